"""Versions in MLflow's model registry: a version is made when its files are there, an alias says which is served.

A push is a run of MLflow's with the model's files, then a version that names it, then a tag by which the version
counts, then the alias. The server gives the numbers, so of several pushes at once each gets one of its own.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from kerasline.components.core.errors import DataError, ParameterError, one_line
from kerasline.components.models.versions import DEAD_AFTER_SECONDS, content_digest, superfluous

# MLflow keeps the name `latest` for itself: there it means the highest number, which no rollback can move. Its own
# documentation calls the version that is to be served the champion.
ALIAS = "champion"
DIGEST_TAG = "kerasline.digest"
# On a run of MLflow's, and on a version, until the push has come to its end.
PUSHING_TAG = "kerasline.pushing"
MODEL, FILES = "model", "saved_model"
REACH_SECONDS = 10
MOST_PARAMETER_CHARACTERS = 500


@dataclass(frozen=True)
class MlflowDestination:
    """See `kerasline.components.models.versions.Destination`.

    Only versions that a Pusher made are ever removed, and none that bears an alias.

    Attributes:
        url: as it was given.
        name: the registered model's.
        client: MLflow's.
    """

    url: str
    name: str
    client: Any

    @classmethod
    def open(cls, url: str) -> MlflowDestination:
        """Opens `models:/NAME` on the server that MLFLOW_TRACKING_URI names, or `mlflow+http://HOST:PORT/NAME`.

        Raises:
            ParameterError: the URL is not of that form, or MLflow's client is not installed.
            DataError: the server does not answer.
        """
        server, name = _parsed(url)
        try:
            from mlflow import MlflowClient
        except ImportError as error:
            raise ParameterError(
                f"Pusher.destination {url}: {error.name} is not installed; pip install 'kerasline[mlflow]'"
            ) from error
        client = MlflowClient(server, server)
        _check_reachable(url, server or os.environ.get("MLFLOW_TRACKING_URI", ""))
        return cls(url, name, client)

    def __str__(self) -> str:
        return self.url

    def push(self, model: Path, keep: int | None = None) -> int:
        digest = content_digest(model)
        with self._told():
            self._register()
            known = self._versions()
            newest = max(known, default=0)
            version = newest if newest and _digest_of(known[newest]) == digest else self._publish(model, digest)
            self._serve_newest()
            self._clean()
            self._keep(version, keep)
        return version

    def versions(self) -> list[int]:
        with self._told():
            return sorted(self._versions())

    def latest(self) -> int | None:
        with self._told():
            return self._aliases().get(ALIAS)

    def point_to(self, version: int) -> None:
        with self._told():
            if version not in self._versions():
                raise DataError(f"{self}: version {version} is gone")
            self._alias(version)

    def where(self, version: int) -> str:
        return f"models:/{self.name}/{version}"

    def _publish(self, model: Path, digest: str) -> int:
        """Uploads the model, then makes a version of it."""
        tags = {PUSHING_TAG: self.name, DIGEST_TAG: digest}
        run = self.client.create_run(self._experiment(), tags=tags, run_name=self.name).info
        try:
            self._upload(model, run.run_id)
            self.client.set_terminated(run.run_id, "FINISHED")
        except BaseException:
            with contextlib.suppress(Exception):
                self.client.set_terminated(run.run_id, "FAILED")
                self.client.delete_run(run.run_id)
            raise
        tags = {PUSHING_TAG: digest, **_versions_of_libraries(model)}
        made = self.client.create_model_version(self.name, f"{run.artifact_uri}/{MODEL}", run.run_id, tags=tags)
        version = self._settle(int(made.version), digest)
        if version == int(made.version):
            self.client.delete_tag(run.run_id, PUSHING_TAG)
        return version

    def _settle(self, version: int, digest: str) -> int:
        """Makes a version count, or, where others made some of the same model meanwhile, the first of all these.

        They all take the same one, for the server had counted it when it counted the later ones.
        """
        every, first = self._every(), version
        for number in sorted((number for number in every if number < version), reverse=True):
            if digest not in (_digest_of(every[number]), every[number].tags.get(PUSHING_TAG)):
                break
            first = number
        if first != version:
            self._remove(every[version])
        self.client.set_model_version_tag(self.name, str(first), DIGEST_TAG, digest)
        self.client.delete_model_version_tag(self.name, str(first), PUSHING_TAG)
        return first

    def _upload(self, model: Path, run_id: str) -> None:
        """`MLmodel` comes last: without it nobody takes the files for a model."""
        from kerasline.components.pusher.mlflow_model import describe, facts_of

        with tempfile.TemporaryDirectory(prefix="kerasline-") as folder:
            described = describe(model, Path(folder), files=FILES, run_id=run_id)
            self.client.log_artifacts(run_id, str(model), f"{MODEL}/{FILES}")
            for file in described:
                self.client.log_artifact(run_id, str(file), MODEL)
        for name, value in (facts_of(model).get("training") or {}).items():
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                self.client.log_metric(run_id, name, value)
            elif value is not None:
                self.client.log_param(run_id, name, str(value)[:MOST_PARAMETER_CHARACTERS])

    def _serve_newest(self) -> None:
        """Of several pushes at once, whichever comes here last finds them all and serves the newest."""
        served = None
        while (newest := max(self._versions())) != served:
            self._alias(newest)
            served = newest

    def _keep(self, pushed: int, keep: int | None) -> None:
        named = set(self._aliases().values())
        own = {number: version for number, version in self._versions().items() if _digest_of(version)}
        for number in superfluous(own, pushed, keep):
            if number not in named:
                self._remove(own[number])

    def _remove(self, version: Any) -> None:
        """The run goes to MLflow's bin, which `mlflow gc` empties, unless another version is of it too."""
        with _unless("RESOURCE_DOES_NOT_EXIST"):  # somebody else did the same
            self.client.delete_model_version(self.name, version.version)
            if version.run_id and version.run_id not in {other.run_id for other in self._every().values()}:
                self.client.delete_run(version.run_id)

    def _clean(self) -> None:
        """Removes what dead processes left, but never what a version needs."""
        oldest = int((time.time() - DEAD_AFTER_SECONDS) * 1000)
        for version in self._every().values():
            if not _counts(version) and version.creation_timestamp < oldest:
                self._remove(version)
        mine = f"tags.`{PUSHING_TAG}` = '{self.name}' and attributes.start_time < {oldest}"
        needed = {version.run_id for version in self._every().values()}
        for run in self.client.search_runs([self._experiment()], mine):
            if run.info.run_id in needed:
                self.client.delete_tag(run.info.run_id, PUSHING_TAG)
            else:
                self.client.delete_run(run.info.run_id)

    def _register(self) -> None:
        with _unless("RESOURCE_ALREADY_EXISTS"):
            self.client.create_registered_model(self.name)

    def _experiment(self) -> str:
        """Where the runs of pushes lie: what the environment says, as for all of MLflow, or the model's name."""
        if given := os.environ.get("MLFLOW_EXPERIMENT_ID"):
            return given
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or self.name
        with _unless("RESOURCE_ALREADY_EXISTS"):
            return self.client.create_experiment(name)
        return self.client.get_experiment_by_name(name).experiment_id

    def _versions(self) -> dict[int, Any]:
        """Those that count, by number."""
        return {number: version for number, version in self._every().items() if _counts(version)}

    def _every(self) -> dict[int, Any]:
        """Those of which MLflow has the files, and of each number whose push has not come to its end, too.

        The server reads versions first and their tags then: one that is removed between has none, as if it were
        not of a Pusher. Whether it was removed shows when one asks again.
        """
        found = self._listed()
        bare = {number for number, version in found.items() if not {DIGEST_TAG, PUSHING_TAG} & set(version.tags)}
        gone = bare - set(self._listed()) if bare else set()
        return {number: version for number, version in found.items() if number not in gone}

    def _listed(self) -> dict[int, Any]:
        found, token = {}, None
        while True:
            page = self.client.search_model_versions(f"name = '{self.name}'", page_token=token)
            found |= {int(version.version): version for version in page if version.status == "READY"}
            if not (token := page.token):
                return found

    def _aliases(self) -> dict[str, int]:
        with _unless("RESOURCE_DOES_NOT_EXIST"):
            aliases = self.client.get_registered_model(self.name).aliases
            return {alias: int(version) for alias, version in aliases.items()}
        return {}

    def _alias(self, version: int) -> None:
        self.client.set_registered_model_alias(self.name, ALIAS, str(version))

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """What goes wrong at the server, in one line."""
        from mlflow.exceptions import MlflowException

        try:
            yield
        except (MlflowException, OSError) as error:  # OSError: of requests, too
            raise DataError(f"{self}: {one_line(error, 300)}") from error


def _parsed(url: str) -> tuple[str | None, str]:
    """The server, None for the one that the environment names, and the registered model's name."""
    where = f"Pusher.destination {url}"
    if url.startswith("models:"):
        server, name = None, url.removeprefix("models:").lstrip("/")
        if not os.environ.get("MLFLOW_TRACKING_URI"):
            raise ParameterError(f"{where}: set MLFLOW_TRACKING_URI, or give mlflow+http://HOST:PORT/NAME")
    else:
        parts = urlsplit(url.removeprefix("mlflow+"))
        if "@" in parts.netloc:
            host = parts.netloc.rpartition("@")[2]
            raise ParameterError(
                f"Pusher.destination mlflow+{parts.scheme}://...@{host}{parts.path}: leave name and password out; "
                "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, hold them"
            )
        folder, _, name = parts.path.rstrip("/").rpartition("/")
        server = f"{parts.scheme}://{parts.netloc}{folder}"
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise ParameterError(f"{where}: mlflow+http://HOST:PORT/NAME wanted")
    if not name or set(name) & set("/:@'\"`"):
        raise ParameterError(f"{where}: models:/NAME or mlflow+http://HOST:PORT/NAME wanted, NAME the model's")
    return server, name


def _check_reachable(url: str, server: str) -> None:
    """Asks once, and shortly: MLflow's client itself would try for minutes."""
    if not server.startswith(("http://", "https://")):
        return
    from mlflow.exceptions import MlflowException
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    try:
        http_request(get_default_host_creds(server), "/version", "GET", max_retries=1, timeout=REACH_SECONDS)
    except (MlflowException, OSError) as error:
        raise DataError(f"{url}: no answer from an MLflow server at {server}; is it running?") from error


@contextlib.contextmanager
def _unless(code: str) -> Iterator[None]:
    """Passes over this error of the server's, and over no other."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code != code:
            raise


def _counts(version: Any) -> bool:
    """Whether a version is whole: one of a Pusher's is once its push has looked at those made meanwhile."""
    return _digest_of(version) is not None or PUSHING_TAG not in version.tags


def _digest_of(version: Any) -> str | None:
    return version.tags.get(DIGEST_TAG)


def _versions_of_libraries(model: Path) -> Mapping[str, str]:
    from kerasline.components.pusher.mlflow_model import facts_of

    return {f"kerasline.{name}": version for name, version in (facts_of(model).get("versions") or {}).items()}
