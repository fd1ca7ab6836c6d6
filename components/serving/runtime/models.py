"""Models and their versions: loaded aside, warmed, swapped in, and unloaded when nobody uses them.

Where the folder has a `latest`, which Pusher writes and a rollback moves, it says which version answers;
elsewhere it is the one of the highest number, as in TensorFlow Serving.

A version answers requests only when it is loaded and warm as a whole. The one before it answers until
then, finishes what it was given, and is closed. A version that cannot be loaded changes nothing but the
status: what answered goes on answering.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import logging
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from kerasline.components.models.session import SavedModelSession
from kerasline.components.models.signatures import Signature
from kerasline.components.serving.runtime.batching import Batcher
from kerasline.components.serving.runtime.errors import RequestError, from_exception, invalid, not_found, unavailable
from kerasline.components.serving.runtime.metrics import Metrics
from kerasline.components.serving.runtime.versions import (
    NOWHERE,
    Fingerprint,
    find_versions,
    fingerprint,
    latest_of,
    was_pushed,
)
from kerasline.components.serving.settings import ModelSource, ServerSettings

log = logging.getLogger(__name__)
ENDED_REMEMBERED = 10
RETRY_SECONDS = 60.0
DEFAULT_MODEL = "default"  # TensorFlow Serving's name for a model without one
Found = dict[int, tuple[Path, Fingerprint]]


class Version:
    """A version of a model.

    Attributes:
        state: START, LOADING, AVAILABLE, UNLOADING or END, as in TensorFlow Serving.
        error: why it could not be loaded.
        users: the requests that it is answering.
    """

    def __init__(self, model: str, number: int, path: Path):
        self.model, self.number, self.path = model, number, path
        self.state = "START"
        self.error: RequestError | None = None
        self.session: SavedModelSession | None = None
        self.users = 0
        self._unused = asyncio.Event()
        self._batchers: dict[str, Batcher] = {}
        self._new_batcher: Callable[[Signature], Batcher] | None = None

    def open(self, session: SavedModelSession, new_batcher: Callable[[Signature], Batcher]) -> None:
        self.session, self._new_batcher, self.state = session, new_batcher, "AVAILABLE"

    async def run(self, signature: Signature, arrays: Any, deadline: float) -> Any:
        """The outputs in the order of `signature.outputs`. Raises RequestError."""
        self.users += 1
        try:
            batcher = self._batchers.get(signature.name)
            if batcher is None:
                batcher = self._batchers[signature.name] = self._new_batcher(signature)
            return await batcher.submit(arrays, deadline)
        finally:
            self.users -= 1
            if not self.users and self.state == "UNLOADING":
                self._unused.set()

    async def close(self, threads: Executor) -> None:
        """Waits for the requests under way, then gives the memory back."""
        self.state = "UNLOADING"
        if self.users:
            await self._unused.wait()
        session, self.session, self._new_batcher = [self.session], None, None
        self._batchers.clear()
        await asyncio.get_running_loop().run_in_executor(threads, _give_back, session)
        self.state = "END"


class Model:
    """A model's versions by number, those that ended or failed included.

    Attributes:
        served: the version that answers who asks for none.
    """

    def __init__(self, source: ModelSource):
        self.source = source
        self.versions: dict[int, Version] = {}
        self.served: Version | None = None
        self.complaint = ""
        self.seen: dict[int, Fingerprint] = {}
        self.failed: dict[int, tuple[Fingerprint, float]] = {}

    def available(self) -> list[Version]:
        return [version for version in self.versions.values() if version.state == "AVAILABLE"]


class Models:
    """All models; to be used in the event loop only."""

    def __init__(self, settings: ServerSettings, metrics: Metrics, threads: Executor):
        self._settings, self._metrics, self._threads = settings, metrics, threads
        self._loading = ThreadPoolExecutor(1, thread_name_prefix="load")
        self._models = {source.name: Model(source) for source in settings.models}
        self._closing: set[asyncio.Task] = set()
        metrics.watch_under_way(self._users)

    def names(self) -> list[str]:
        return list(self._models)

    def is_ready(self) -> bool:
        return all(model.served is not None for model in self._models.values())

    def find(self, name: str, number: int | None = None, label: str | None = None) -> Version:
        """The version that answers. Raises NOT_FOUND, INVALID_ARGUMENT for a label, or UNAVAILABLE."""
        model = self._model(name)
        if model is not None and label:
            number = model.source.labels.get(label)
            if number is None:
                raise invalid(f"Unrecognized servable version label: {label}")
        if model is None or number is not None:
            version = model.versions.get(number) if model else None
            if version is None or version.state != "AVAILABLE":
                wanted = f"Latest({name})" if number is None else f"Specific({name}, {number})"
                raise not_found(f"Servable not found for request: {wanted}")
            return version
        if model.served is None:
            raise unavailable(f"Servable not available yet for request: Latest({name})")
        return model.served

    def status(self, name: str, number: int | None = None, label: str | None = None) -> list[Version]:
        """The versions asked for, the newest first. Raises NOT_FOUND."""
        model = self._model(name)
        if model is not None and label:
            number = model.source.labels.get(label)
            if number is None:
                raise invalid(f"Unrecognized servable version label: {label}")
        versions = model.versions if model else {}
        if number is not None:
            if number not in versions:
                raise not_found(f"Could not find version {number} of model {name}")
            return [versions[number]]
        if not versions:
            raise not_found(f"Could not find any versions of model {name}")
        return [versions[n] for n in sorted(versions, reverse=True)]

    async def start(self) -> None:
        """Loads what is there. Raises RequestError where a model has no version that can be loaded."""
        for model in self._models.values():
            await self._refresh(model, is_first=True)
            if model.served is None:
                errors = [f"version {v.number}: {v.error}" for v in model.versions.values() if v.error]
                raise unavailable(f"{model.source.path}: cannot be loaded: {'; '.join(errors) or 'no version'}")

    async def watch(self) -> None:
        """Looks at the folders for ever."""
        while True:
            await asyncio.sleep(self._settings.poll_seconds)
            for model in self._models.values():
                try:
                    await self._refresh(model)
                except Exception:
                    log.exception("%s: looking for versions failed; trying again", model.source.path)

    async def close(self) -> None:
        versions = [version for model in self._models.values() for version in model.available()]
        await asyncio.gather(*(version.close(self._loading) for version in versions), *self._closing)

    def _users(self) -> int:
        return sum(version.users for model in self._models.values() for version in model.versions.values())

    def _model(self, name: str) -> Model | None:
        model = self._models.get(name)
        if model is None and name == DEFAULT_MODEL and len(self._models) == 1:
            (model,) = self._models.values()
        return model

    async def _refresh(self, model: Model, *, is_first: bool = False) -> None:
        """Serves the version that is to be served, loads what else is wanted, then unloads the rest."""
        loop = asyncio.get_running_loop()
        found, latest = await loop.run_in_executor(None, _look, model.source)
        wanted: set[int] = set()
        for number in self._candidates(model, found, latest):
            if await self._have(model, number, found, is_first):
                model.served = model.versions[number]
                wanted.add(number)
                break
        self._complain(model, found, latest)
        for number in sorted(found, reverse=True):
            if len(wanted) >= self._settings.keep_versions and number not in model.source.labels.values():
                continue
            if await self._have(model, number, found, is_first):
                wanted.add(number)
        model.seen = {number: print_ for number, (_path, print_) in found.items()}
        if wanted:
            self._unload(model, [v for v in model.available() if v.number not in wanted])

    def _candidates(self, model: Model, found: Found, latest: int | None) -> list[int]:
        """Of these versions the first that can be had is served."""
        newest_first = sorted(found, reverse=True)
        if latest is None:
            return newest_first
        return [latest, model.served.number] if model.served else [latest, *newest_first]

    def _complain(self, model: Model, found: Found, latest: int | None) -> None:
        """One line, not one a look, where `latest` names nothing that is there."""
        complaint = ""
        if latest is not None and latest not in found and model.served is not None:
            named = "no version" if latest == NOWHERE else f"version {latest}, which is not there"
            complaint = f"latest names {named}; version {model.served.number} is served"
        if complaint and complaint != model.complaint:
            log.error("%s: %s", model.source.path, complaint)
        model.complaint = complaint

    async def _have(self, model: Model, number: int, found: Found, is_first: bool) -> bool:
        """Whether a version answers, which may have to be loaded first."""
        version = model.versions.get(number)
        if version is not None and version.state == "AVAILABLE":
            return True
        if number not in found:
            return False
        path, print_ = found[number]
        return self._may_load(model, number, path, print_, is_first) and await self._load(model, number, path)

    def _may_load(self, model: Model, number: int, path: Path, print_: Fingerprint, is_first: bool) -> bool:
        """A folder that somebody is still writing is left alone; one that failed waits its time."""
        version = model.versions.get(number)
        if version is not None and version.state in ("LOADING", "UNLOADING"):
            return False
        if number in model.failed:
            before, when = model.failed[number]
            return print_ != before or time.monotonic() - when > RETRY_SECONDS
        return is_first or was_pushed(path) or model.seen.get(number) == print_

    async def _load(self, model: Model, number: int, path: Path) -> bool:
        name = model.source.name
        version = model.versions[number] = Version(name, number, path)
        version.state = "LOADING"
        started = time.monotonic()
        loop = asyncio.get_running_loop()
        try:
            session, seconds = await loop.run_in_executor(self._loading, _load_and_warm, path)
        except Exception as raised:
            error = from_exception(raised)
            version.state, version.error = "END", error
            model.failed[number] = (fingerprint(path), time.monotonic())
            self._metrics.load_failures.labels(name).inc()
            instead = f"; version {model.served.number} is served" if model.served else ""
            log.error("%s version %d cannot be loaded: %s%s", name, number, error, instead)
            return False
        model.failed.pop(number, None)
        version.open(session, functools.partial(self._new_batcher, version, seconds))
        self._metrics.version_state.labels(name, str(number)).set(1)
        self._metrics.load_seconds.labels(name, str(number)).set(time.monotonic() - started)
        log.info("%s version %d is loaded (%.1f s)", name, number, time.monotonic() - started)
        return True

    def _new_batcher(self, version: Version, seconds: dict[str, float], signature: Signature) -> Batcher:
        return Batcher(
            functools.partial(version.session.call, signature),
            signature,
            self._settings.batch,
            threads=self._threads,
            observe=functools.partial(self._metrics.executed, version.model, version.number),
            seconds=seconds.get(signature.name),
        )

    def _unload(self, model: Model, versions: Iterable[Version]) -> None:
        for version in versions:
            version.state = "UNLOADING"
            task = asyncio.ensure_future(self._close(model, version))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def _close(self, model: Model, version: Version) -> None:
        await version.close(self._loading)
        self._metrics.forget(model.source.name, version.number)
        log.info("%s version %d is unloaded", model.source.name, version.number)
        ended = sorted(v.number for v in model.versions.values() if v.state == "END")
        for number in ended[:-ENDED_REMEMBERED]:
            del model.versions[number]


def _give_back(session: list[SavedModelSession]) -> None:
    """Closes the session and frees its graph, whose Python objects refer to each other in circles."""
    session.pop().close()
    gc.collect()


def _look(source: ModelSource) -> tuple[Found, int | None]:
    """What is there, and what `latest` says; that first, for what it names is there before it."""
    latest = latest_of(source)
    return {number: (path, fingerprint(path)) for number, path in find_versions(source).items()}, latest


def _load_and_warm(path: Path) -> tuple[SavedModelSession, dict[str, float]]:
    from kerasline.components.serving.runtime.warmup import warm

    session = SavedModelSession(path)
    try:
        return session, warm(session, path)
    except BaseException:
        session.close()
        raise
