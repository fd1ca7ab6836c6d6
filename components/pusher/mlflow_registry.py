"""Versions in MLflow's model registry. An alias marks the version to serve.

A push creates an MLflow run with the model's files, then a version that refers to it, then a tag that marks the version
as complete, then the alias. The server assigns the numbers, so concurrent pushes get different ones.
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
from kerasline.components.models.versions import DEAD_AFTER_SECONDS, content_digest, obsolete_versions

# MLflow reserves the alias `latest` for the highest number, which a rollback cannot change. Its documentation calls the
# version to serve the champion.
ALIAS = "champion"
DIGEST_TAG = "kerasline.digest"
# Marks a run and a version until the push is complete.
PUSHING_TAG = "kerasline.pushing"
MODEL, FILES = "model", "saved_model"
REACH_SECONDS = 10
MAX_PARAMETER_LENGTH = 500


@dataclass(frozen=True)
class MlflowDestination:
    """See `kerasline.components.models.versions.Destination`.

    Only versions that a Pusher created are removed, and none that has an alias.

    Attributes:
        url: as the user wrote it.
        name: name of the registered model.
        client: an MlflowClient.
    """

    url: str
    name: str
    client: Any

    @classmethod
    def open(cls, url: str) -> MlflowDestination:
        """Open `models:/NAME` on the server that MLFLOW_TRACKING_URI names, or `mlflow+http://HOST:PORT/NAME`.

        Raises:
            ParameterError: the URL is invalid, or MLflow's client is not installed.
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
        with self._errors_named():
            self._register()
            known = self._versions()
            newest = max(known, default=0)
            version = newest if newest and _digest_of(known[newest]) == digest else self._publish(model, digest)
            self._serve_newest()
            self._clean()
            self._keep(version, keep)
        return version

    def versions(self) -> list[int]:
        with self._errors_named():
            return sorted(self._versions())

    def latest(self) -> int | None:
        with self._errors_named():
            return self._aliases().get(ALIAS)

    def point_to(self, version: int) -> None:
        with self._errors_named():
            if version not in self._versions():
                raise DataError(f"{self}: version {version} no longer exists")
            self._alias(version)

    def where(self, version: int) -> str:
        return f"models:/{self.name}/{version}"

    def _publish(self, model: Path, digest: str) -> int:
        """Upload the model, then create a version of it."""
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
        created = self.client.create_model_version(self.name, f"{run.artifact_uri}/{MODEL}", run.run_id, tags=tags)
        version = self._settle(int(created.version), digest)
        if version == int(created.version):
            self.client.delete_tag(run.run_id, PUSHING_TAG)
        return version

    def _settle(self, version: int, digest: str) -> int:
        """Mark a version as complete. If others have pushed the same model meanwhile, mark the first of these versions.

        All of them choose the same version, because the server had created it before the later ones.
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
        """Upload `MLmodel` last: without it the files are not a model."""
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
                self.client.log_param(run_id, name, str(value)[:MAX_PARAMETER_LENGTH])

    def _serve_newest(self) -> None:
        """Serve the newest version. Of concurrent pushes, the last one sees all versions."""
        served = None
        while (newest := max(self._versions())) != served:
            self._alias(newest)
            served = newest

    def _keep(self, pushed: int, keep: int | None) -> None:
        named = set(self._aliases().values())
        own = {number: version for number, version in self._versions().items() if _digest_of(version)}
        for number in obsolete_versions(own, pushed, keep):
            if number not in named:
                self._remove(own[number])

    def _remove(self, version: Any) -> None:
        """Remove a version, and its run unless another version uses it. `mlflow gc` deletes removed runs for good."""
        with _ignoring("RESOURCE_DOES_NOT_EXIST"):  # another push has removed it
            self.client.delete_model_version(self.name, version.version)
            if version.run_id and version.run_id not in {other.run_id for other in self._every().values()}:
                self.client.delete_run(version.run_id)

    def _clean(self) -> None:
        """Remove what killed pushes left, except what a version needs."""
        oldest = int((time.time() - DEAD_AFTER_SECONDS) * 1000)
        for version in self._every().values():
            if not _is_complete(version) and version.creation_timestamp < oldest:
                self._remove(version)
        mine = f"tags.`{PUSHING_TAG}` = '{self.name}' and attributes.start_time < {oldest}"
        needed = {version.run_id for version in self._every().values()}
        for run in self.client.search_runs([self._experiment()], mine):
            if run.info.run_id in needed:
                self.client.delete_tag(run.info.run_id, PUSHING_TAG)
            else:
                self.client.delete_run(run.info.run_id)

    def _register(self) -> None:
        with _ignoring("RESOURCE_ALREADY_EXISTS"):
            self.client.create_registered_model(self.name)

    def _experiment(self) -> str:
        """Return the experiment of the runs: MLflow's environment variables, or an experiment named after the model."""
        if given := os.environ.get("MLFLOW_EXPERIMENT_ID"):
            return given
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or self.name
        with _ignoring("RESOURCE_ALREADY_EXISTS"):
            return self.client.create_experiment(name)
        return self.client.get_experiment_by_name(name).experiment_id

    def _versions(self) -> dict[int, Any]:
        """Return the complete versions by number."""
        return {number: version for number, version in self._every().items() if _is_complete(version)}

    def _every(self) -> dict[int, Any]:
        """Return all versions by number, including those whose push is not complete.

        The server reads versions before their tags, so a version that is removed in between has no tags, as if it
        were not a Pusher's. A second request shows whether it was removed.
        """
        found = self._listed()
        bare = {number for number, version in found.items() if not {DIGEST_TAG, PUSHING_TAG} & set(version.tags)}
        gone = bare - set(self._listed()) if bare else set()
        return {number: version for number, version in found.items() if number not in gone}

    def _listed(self) -> dict[int, Any]:
        found: dict[int, Any] = {}
        token = None
        while True:
            page = self.client.search_model_versions(f"name = '{self.name}'", page_token=token)
            found |= {int(version.version): version for version in page if version.status == "READY"}
            if not (token := page.token):
                return found

    def _aliases(self) -> dict[str, int]:
        with _ignoring("RESOURCE_DOES_NOT_EXIST"):
            aliases = self.client.get_registered_model(self.name).aliases
            return {alias: int(version) for alias, version in aliases.items()}
        return {}

    def _alias(self, version: int) -> None:
        self.client.set_registered_model_alias(self.name, ALIAS, str(version))

    @contextlib.contextmanager
    def _errors_named(self) -> Iterator[None]:
        """Report an error of the server in one line."""
        from mlflow.exceptions import MlflowException

        try:
            yield
        except (MlflowException, OSError) as error:  # OSError: of requests, too
            raise DataError(f"{self}: {one_line(error)}") from error


def _parsed(url: str) -> tuple[str | None, str]:
    """Return the server, or None for the one in the environment, and the name of the registered model."""
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
            raise ParameterError(f"{where}: expected mlflow+http://HOST:PORT/NAME")
    if not name or set(name) & set("/:@'\"`"):
        raise ParameterError(
            f"{where}: expected models:/NAME or mlflow+http://HOST:PORT/NAME, where NAME is the model's"
        )
    return server, name


def _check_reachable(url: str, server: str) -> None:
    """Send one request with a short timeout. MLflow's client would retry for minutes."""
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
def _ignoring(code: str) -> Iterator[None]:
    """Suppress the server's error with this code."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code != code:
            raise


def _is_complete(version: Any) -> bool:
    """Return whether a version is complete: not a Pusher's, or one whose push has finished."""
    return _digest_of(version) is not None or PUSHING_TAG not in version.tags


def _digest_of(version: Any) -> str | None:
    return version.tags.get(DIGEST_TAG)


def _versions_of_libraries(model: Path) -> Mapping[str, str]:
    from kerasline.components.pusher.mlflow_model import facts_of

    return {f"kerasline.{name}": version for name, version in (facts_of(model).get("versions") or {}).items()}
