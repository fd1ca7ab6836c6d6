"""Models and their versions: load, warm up, swap in, and unload once unused.

If the folder has a `latest`, which Pusher writes and a rollback moves, that version is served. Otherwise the highest
version number is served, as in TensorFlow Serving.

A version answers requests once it is completely loaded and warmed up. Until then the previous version answers; it
then finishes its requests and is closed. A version that fails to load only changes the reported status.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import logging
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from kerasline.components.core.errors import KeraslineError
from kerasline.components.models.session import SavedModelSession
from kerasline.components.models.signatures import Signature
from kerasline.components.models.versions import has_digests
from kerasline.components.serving.runtime.batching import Batcher, Inputs
from kerasline.components.serving.runtime.errors import RequestError, from_exception, invalid, not_found, unavailable
from kerasline.components.serving.runtime.generations import Generations, StreamedModel
from kerasline.components.serving.runtime.loading import LoadedModel, load_model
from kerasline.components.serving.runtime.metrics import Metrics
from kerasline.components.serving.runtime.model_folders import (
    INVALID_LATEST,
    Fingerprint,
    changed_before,
    find_versions,
    fingerprint,
    read_latest,
)
from kerasline.components.serving.runtime.models_file import read_message
from kerasline.components.serving.runtime.request_log import RequestLog
from kerasline.components.serving.runtime.settings import ModelSource, ServerSettings
from kerasline.components.serving.runtime.shared_configuration import SharedConfiguration
from kerasline.components.serving.runtime.workers import shared_folder

log = logging.getLogger(__name__)
# Number of unloaded versions of a model to keep in its status.
MAX_ENDED = 10
# Try again after this time to load a version that failed and did not change.
RETRY_SECONDS = 60.0
# Files without digests are complete if they have not changed for this time.
REST_SECONDS = 2.0
DEFAULT_MODEL = "default"  # TensorFlow Serving's name for an unnamed model
Found = dict[int, tuple[Path, Fingerprint]]


class Version:
    """A version of a model.

    Attributes:
        files: fingerprint of the folder before it was loaded.
        batch: the settings that it was loaded with.
        state: START, LOADING, AVAILABLE, UNLOADING or END, as in TensorFlow Serving.
        error: why it failed to load, or None.
        session: the loaded model while AVAILABLE, else None.
        unbatched: why signatures are not batched, by name, if batching is automatic.
        users: number of requests in progress.
        generations: answers that are generated token by token, if the model can do so.
    """

    def __init__(
        self,
        source: ModelSource,
        number: int,
        path: Path,
        files: Fingerprint = (),
        request_log: RequestLog | None = None,
    ):
        self.model, self.number, self.path, self.files, self.batch = source.name, number, path, files, source.batch
        self._request_log = request_log
        self.state = "START"
        self.error: RequestError | None = None
        self.session: SavedModelSession | None = None
        self.unbatched: Mapping[str, str] = {}
        self.users = 0
        self._unused = asyncio.Event()
        self._batchers: dict[tuple[str, str], Batcher] = {}
        self._new_batcher: Callable[[Signature, str], Batcher] | None = None
        self.generations: Generations | None = None

    def open(
        self,
        loaded: LoadedModel,
        new_batcher: Callable[[Signature, str], Batcher],
        generations: Generations | None,
    ) -> None:
        self.generations = generations
        self.session, self.unbatched, self._new_batcher = loaded.session, loaded.unbatched, new_batcher
        self.state = "AVAILABLE"

    @contextlib.contextmanager
    def in_use(self) -> Iterator[SavedModelSession]:
        """Keep the version loaded while a request uses it."""
        assert self.session is not None, "an available version has a session"
        self.users += 1
        try:
            yield self.session
        finally:
            self.users -= 1
            if not self.users and self.state == "UNLOADING":
                self._unused.set()

    async def run(self, signature: Signature, inputs: Inputs, deadline: float, method: str) -> list[np.ndarray]:
        """Return the outputs in the order of `signature.outputs`. Call it inside `in_use`.

        Args:
            method: the API that was called, such as `predict`. Requests of different APIs are not batched together.

        Raises:
            RequestError: the inputs are invalid, the model failed, or the deadline passed.
        """
        batcher = self._batchers.get((signature.name, method))
        if batcher is None:
            assert self._new_batcher is not None, "an available version creates batchers"
            batcher = self._batchers[signature.name, method] = self._new_batcher(signature, method)
        outputs = await batcher.run(inputs, deadline)
        self.log_request(signature, inputs)
        return outputs

    def streamed(self) -> Generations:
        """Return what generates the answers. Raise FAILED_PRECONDITION if the model cannot stream them."""
        if self.generations is None:
            raise RequestError(
                "FAILED_PRECONDITION",
                f"{self.model} version {self.number} cannot stream its answers: Exporter needs stream=True",
            )
        return self.generations

    def log_request(self, signature: Signature, inputs: Inputs) -> None:
        """Add the inputs of an answered request to the request log, if it is one of the sample."""
        if self._request_log is None or not self._request_log.samples():
            return
        arrays = inputs if isinstance(inputs, list) else inputs.arrays()
        fills_missing = self.session is not None and self.session.fills_missing
        self._request_log.add(self.model, signature, arrays, fills_missing=fills_missing)

    def queued_requests(self) -> int:
        """Return the number of requests that wait for an execution."""
        waiting = 0 if self.generations is None else self.generations.queued_requests()
        return waiting + sum(batcher.queued_requests() for batcher in self._batchers.values())

    async def close(self, threads: Executor) -> None:
        """Wait for the requests in progress, then free the memory."""
        self.state = "UNLOADING"
        if self.users:
            await self._unused.wait()
        assert self.session is not None, "only an available version is closed"
        sessions, self.session, self._new_batcher = [self.session], None, None
        self._batchers.clear()
        self.generations = None
        await asyncio.get_running_loop().run_in_executor(threads, _free, sessions)
        self.state = "END"


class Model:
    """A model and its versions.

    Attributes:
        versions: by number, including versions that were unloaded or failed to load.
        served: the version that answers requests for no specific version.
        labels: the loaded version of each label. A label moves when its new version is loaded.
        warning: the last warning about `latest` that was logged.
        seen: fingerprint of each version folder, and since when it is unchanged.
        failed: fingerprint and time of each failed load, by version.
    """

    def __init__(self, source: ModelSource):
        self.source = source
        self.versions: dict[int, Version] = {}
        self.served: Version | None = None
        self.labels: dict[str, int] = {}
        self.warning = ""
        self.seen: dict[int, tuple[Fingerprint, float]] = {}
        self.failed: dict[int, tuple[Fingerprint, float]] = {}

    def number_of(self, label: str) -> int:
        """Return the version with this label. Raise INVALID_ARGUMENT if there is none."""
        number = self.labels.get(label, self.source.labels.get(label))
        if number is None:
            raise invalid(f"Unrecognized servable version label: {label}")
        return number

    def available(self) -> list[Version]:
        return [version for version in self.versions.values() if version.state == "AVAILABLE"]


class Models:
    """All models of a server. Use it in the event loop only."""

    def __init__(
        self, settings: ServerSettings, metrics: Metrics, threads: Executor, request_log: RequestLog | None = None
    ):
        self._settings, self._metrics, self._threads, self._request_log = settings, metrics, threads, request_log
        self._loading = ThreadPoolExecutor(1, thread_name_prefix="load")
        self._models = {source.name: Model(source) for source in settings.models}
        self._tasks: set[asyncio.Task[None]] = set()
        self._changing = asyncio.Lock()
        self._shared = SharedConfiguration(shared_folder(), self.configure) if settings.workers > 1 else None
        self._is_ready = False
        self._configuration_error = ""

    def names(self) -> list[str]:
        return list(self._models)

    def configuration(self) -> dict[str, Any]:
        """Return the file of --models, if there is one, and why its last change was rejected, if it was."""
        file = self._settings.models_file
        return {"configuration": {"file": str(file.path), "error": self._configuration_error}} if file else {}

    def is_ready(self) -> bool:
        """Return whether all models were loaded at the start. Models that a configuration adds later do not count."""
        return self._is_ready

    def find(self, name: str, number: int | None = None, label: str | None = None) -> Version:
        """Return the version that answers a request.

        Raises:
            RequestError: NOT_FOUND for an unknown model or version, INVALID_ARGUMENT for an unknown label,
                UNAVAILABLE before the first version is loaded.
        """
        model = self._model(name)
        if model is not None and label:
            number = model.number_of(label)
        if model is None or number is not None:
            version = model.versions.get(number) if model and number is not None else None
            if version is None or version.state != "AVAILABLE":
                requested = f"Latest({name})" if number is None else f"Specific({name}, {number})"
                raise not_found(f"Servable not found for request: {requested}")
            return version
        if model.served is None:
            raise unavailable(f"Servable not available yet for request: Latest({name})")
        return model.served

    def status(self, name: str, number: int | None = None, label: str | None = None) -> list[Version]:
        """Return the requested versions, newest first. Raise NOT_FOUND if there are none."""
        model = self._model(name)
        if model is not None and label:
            number = model.number_of(label)
        versions = model.versions if model else {}
        if number is not None:
            if number not in versions:
                raise not_found(f"Could not find version {number} of model {name}")
            return [versions[number]]
        if not versions:
            raise not_found(f"Could not find any versions of model {name}")
        return [versions[n] for n in sorted(versions, reverse=True)]

    async def start(self) -> None:
        """Load all models. Raise UNAVAILABLE if one of the first configuration has no version that can be loaded."""
        if self._shared is not None:
            await self._shared.listen()
        async with self._changing:
            sources = None if self._shared is None else self._shared.read()
            if sources is not None:  # this worker replaces another
                self._models = {source.name: Model(source) for source in sources}
            for model in self._models.values():
                await self._load_first(model)
                if sources is not None:
                    continue
                while model.served is None and set(model.seen) - set(
                    model.failed
                ):  # files that are still being written
                    await asyncio.sleep(self._settings.poll_seconds)
                    await self._refresh(model)
                _check_served(model)
        self._is_ready = True

    async def reload_file(self) -> None:
        """Read the file of --models again. If it is wrong, the configuration before stays in force."""
        file = self._settings.models_file
        if file is None:
            return
        try:
            sources = await asyncio.get_running_loop().run_in_executor(None, file.read)
        except KeraslineError as error:
            self._configuration_error = str(error)
            log.error("%s; the configuration before stays in force", error)
            return
        self._configuration_error = ""
        if self._shared is not None:
            self._shared.forget()
        with contextlib.suppress(RequestError):  # which is logged
            await self.configure(sources)

    async def reload_from(self, config: Any) -> None:
        """Serve the models of a ModelServerConfig from a client, in all workers, see `configure`.

        Raises:
            RequestError: INVALID_ARGUMENT if it is wrong; then the configuration before stays in force in all workers.
                UNAVAILABLE if a model has no version that can be loaded, or a worker ends meanwhile.
        """
        try:
            read = functools.partial(read_message, config, self._settings.defaults)
            sources = await asyncio.get_running_loop().run_in_executor(None, read)
        except KeraslineError as error:
            raise invalid(str(error)) from error
        configure = self.configure if self._shared is None else self._shared.publish
        await asyncio.shield(self._start_task(configure(sources)))  # loading continues if the client hangs up

    def request_reload(self) -> None:
        """Read the file of --models again soon, on SIGHUP."""
        self._start_task(self.reload_file())

    async def configure(self, sources: Sequence[ModelSource]) -> None:
        """Serve these models from now on, and wait until they are loaded.

        Models and versions that are served already continue to answer meanwhile. What is no longer served finishes its
        requests and is unloaded.

        Raises:
            RequestError: UNAVAILABLE if a model has no version that can be loaded. The configuration is in force.
        """
        async with self._changing:
            before, self._models = self._models, {one.name: self._models.get(one.name) or Model(one) for one in sources}
            for name in before.keys() - self._models.keys():
                self._unload(before[name], before[name].available())
            log.info("serving %s by a new configuration", ", ".join(self._models))
            errors = []
            for source in sources:
                model = self._models[source.name]
                model.source = source
                await self._load_first(model)
                try:
                    _check_served(model)
                except RequestError as error:
                    errors.append(str(error))
        if errors:
            raise unavailable("; ".join(errors))

    async def _load_first(self, model: Model) -> None:
        await self._wait_at_rest(model)
        await self._refresh(model)

    async def _wait_at_rest(self, model: Model) -> None:
        """Wait until versions that were just written are at rest, but not for a copy that goes on."""
        end = time.monotonic() + 2 * REST_SECONDS
        while time.monotonic() < end:
            found, _ = await asyncio.get_running_loop().run_in_executor(None, _scan, model.source)
            if all(has_digests(path) or changed_before(path, REST_SECONDS) for path, _files in found.values()):
                return
            await asyncio.sleep(min(REST_SECONDS / 4, self._settings.poll_seconds))

    async def watch(self) -> None:
        """Check the folders for new versions, and the file of --models for changes, until cancelled."""
        file = self._settings.models_file
        while True:
            await asyncio.sleep(self._settings.poll_seconds)
            try:
                if file is not None and file.has_changed():
                    await self.reload_file()
                async with self._changing:
                    for model in self._models.values():
                        await self._refresh(model)
            except Exception:
                log.exception("the check for new versions failed; trying again")

    async def close(self) -> None:
        if self._shared is not None:
            self._shared.close()
        versions = [version for model in self._models.values() for version in model.available()]
        await asyncio.gather(*(version.close(self._loading) for version in versions))
        if self._tasks:
            await asyncio.wait(self._tasks)

    def record_load(self) -> None:
        """Record the requests in progress, and those that wait for an execution."""
        versions = [version for model in self._models.values() for version in model.versions.values()]
        self._metrics.in_progress.set(sum(version.users for version in versions))
        for version in versions:
            if version.state == "AVAILABLE":
                labels = (version.model, str(version.number))
                self._metrics.queued.labels(*labels).set(version.queued_requests())
                if version.generations is not None:
                    self._metrics.slots_in_use.labels(*labels).set(version.generations.slots_in_use())

    def _model(self, name: str) -> Model | None:
        model = self._models.get(name)
        if model is None and name == DEFAULT_MODEL and len(self._models) == 1:
            (model,) = self._models.values()
        return model

    async def _refresh(self, model: Model) -> None:
        """Serve the right version, load the others to keep, then unload the rest."""
        loop = asyncio.get_running_loop()
        found, latest = await loop.run_in_executor(None, _scan, model.source)
        if model.source.only and latest not in model.source.only:
            latest = None
        now = time.monotonic()
        before = model.seen
        model.seen = {
            number: before[number] if number in before and before[number][0] == files else (files, now)
            for number, (_path, files) in found.items()
        }
        loaded: set[int] = set()
        for number in self._candidates(model, found, latest):
            if await self._ensure_loaded(model, number, found):
                model.served = model.versions[number]
                loaded.add(number)
                break
        self._warn_about_latest(model, found, latest)
        labels, keep = model.source.labels, model.source.keep
        for number in sorted(found, reverse=True):
            if keep is not None and len(loaded) >= keep and number not in labels.values():
                continue
            if await self._ensure_loaded(model, number, found):
                loaded.add(number)
        loaded_labels = {label: number for label, number in labels.items() if number in loaded}
        model.labels = {label: number for label, number in model.labels.items() if label in labels} | loaded_labels
        loaded.update(model.labels.values())
        if loaded:
            self._unload(model, [v for v in model.available() if v.number not in loaded])

    def _candidates(self, model: Model, found: Found, latest: int | None) -> list[int]:
        """Return the versions to try to serve, most preferred first."""
        newest_first = sorted(found, reverse=True)
        if latest is None:
            return newest_first
        return [latest, model.served.number] if model.served else [latest, *newest_first]

    def _warn_about_latest(self, model: Model, found: Found, latest: int | None) -> None:
        """Log once, not at each check, that `latest` names a version that does not exist."""
        warning = ""
        if latest is not None and latest not in found and model.served is not None:
            named = "no version" if latest == INVALID_LATEST else f"version {latest}, which does not exist"
            warning = f"latest names {named}; version {model.served.number} is served"
        if warning and warning != model.warning:
            log.error("%s: %s", model.source.path, warning)
        model.warning = warning

    async def _ensure_loaded(self, model: Model, number: int, found: Found) -> bool:
        """Load a version unless it is loaded from the same files. Return whether it is available."""
        version = model.versions.get(number)
        is_available = version is not None and version.state == "AVAILABLE"
        if number not in found:
            return is_available
        path, files = found[number]
        if version is not None and is_available:
            if (version.path, version.files, version.batch) == (path, files, model.source.batch):
                return True
        if self._may_load(model, number, path, files):
            return await self._load(model, number, path, files) or is_available
        return is_available

    def _may_load(self, model: Model, number: int, path: Path, files: Fingerprint) -> bool:
        """Return False for a folder that may still be written to, and for a recent failure."""
        version = model.versions.get(number)
        if version is not None and version.state in ("LOADING", "UNLOADING"):
            return False
        if number in model.failed:
            before, when = model.failed[number]
            if files == before and time.monotonic() - when <= RETRY_SECONDS:
                return False
        if has_digests(path):  # which loading checks
            return True
        at_rest_seconds = time.monotonic() - model.seen[number][1]
        return at_rest_seconds > REST_SECONDS or changed_before(path, REST_SECONDS)

    async def _load(self, model: Model, number: int, path: Path, files: Fingerprint) -> bool:
        """Load a version. If the version is loaded from other files, it continues to answer meanwhile."""
        name = model.source.name
        version = Version(model.source, number, path, files, self._request_log)
        before = model.versions.get(number)
        is_reload = before is not None and before.state == "AVAILABLE"
        change = "its settings" if before is not None and before.files == files else "its files"
        if not is_reload:
            model.versions[number] = version
        version.state = "LOADING"
        started = time.monotonic()
        loop = asyncio.get_running_loop()
        try:
            load = functools.partial(load_model, path, version.batch, is_safe=self._settings.safe)
            loaded = await loop.run_in_executor(self._loading, load)
        except Exception as raised:
            error = from_exception(raised)
            version.state, version.error = "END", error
            model.failed[number] = (files, time.monotonic())
            if before is not None and before.error is not None and str(before.error) == str(error):
                return False  # reported already, such as a copy that makes progress
            self._metrics.load_failures.labels(name).inc()
            fallback = f"; version {model.served.number} is served" if model.served else ""
            changed = f"{change} changed and " if is_reload else ""
            log.error("%s version %d: %scannot be loaded: %s%s", name, number, changed, error, fallback)
            return False
        model.failed.pop(number, None)
        generations = self._new_generations(version, loaded.streamed)
        version.open(loaded, functools.partial(self._new_batcher, version, loaded), generations)
        model.versions[number] = version
        if is_reload and before is not None:
            log.info("%s version %d: %s changed; it was loaded again", name, number, change)
            if model.served is before:
                model.served = version
            self._unload(model, [before])
        self._metrics.version_state.labels(name, str(number)).set(1)
        self._metrics.queued.labels(name, str(number)).set(0)
        self._metrics.load_seconds.labels(name, str(number)).set(time.monotonic() - started)
        log.info("%s version %d loaded (%.1f s)", name, number, time.monotonic() - started)
        for signature, why in loaded.unbatched.items():
            log.info("%s version %d: signature %s is not batched: %s", name, number, signature, why)
        return True

    def _new_batcher(self, version: Version, loaded: LoadedModel, signature: Signature, method: str) -> Batcher:
        return Batcher(
            functools.partial(loaded.session.call, signature),
            signature,
            version.batch,
            threads=self._threads,
            observe=functools.partial(self._metrics.count_execution, version.model, version.number, method),
            merges=signature.name in loaded.batched,
            seconds=loaded.seconds.get(signature.name),
        )

    def _new_generations(self, version: Version, streamed: StreamedModel | None) -> Generations | None:
        if streamed is None:
            return None
        name, number, metrics = version.model, version.number, self._metrics
        return Generations(
            streamed,
            version.batch,
            threads=self._threads,
            observe_step=functools.partial(metrics.count_step, name, number),
            observe_first=functools.partial(metrics.count_first_token, name, number),
        )

    def _unload(self, model: Model, versions: Iterable[Version]) -> None:
        for version in versions:
            version.state = "UNLOADING"
            self._start_task(self._close(model, version))

    def _start_task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _close(self, model: Model, version: Version) -> None:
        await version.close(self._loading)
        if model.versions.get(version.number) is not version:  # loaded again
            return
        self._metrics.forget(model.source.name, version.number)
        log.info("%s version %d unloaded", model.source.name, version.number)
        ended = sorted(v.number for v in model.versions.values() if v.state == "END")
        for number in ended[:-MAX_ENDED]:
            del model.versions[number]


def _check_served(model: Model) -> None:
    """Raise UNAVAILABLE if no version of the model could be loaded."""
    if model.served is None:
        errors = [f"version {v.number}: {v.error}" for v in model.versions.values() if v.error]
        raise unavailable(f"{model.source.path}: cannot be loaded: {'; '.join(errors) or 'no complete version'}")


def _free(sessions: list[SavedModelSession]) -> None:
    """Close the only session in the list, which must hold its last reference, and collect its cyclic graph."""
    sessions.pop().close()
    gc.collect()


def _scan(source: ModelSource) -> tuple[Found, int | None]:
    """Return the version folders and `latest`. Read `latest` first: it is written after the folder that it names."""
    latest = read_latest(source)
    return {number: (path, fingerprint(path)) for number, path in find_versions(source).items()}, latest
