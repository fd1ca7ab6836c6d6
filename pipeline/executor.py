"""One node, whole life: resolve its inputs, look in the cache, run, publish, record.

The same for every runner, in every process. What it knows of other nodes it reads from the
metadata store, so two nodes of one run may be executed on two machines.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import importlib
import logging
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from kerasline.components.core import garbage_collection, malloc
from kerasline.components.core.artifacts import Artifact, Blessing
from kerasline.components.core.component import Channel, Component, Context, LastBlessed
from kerasline.components.core.errors import ArtifactError, KeraslineError, RemoteError, StageSkipped, StoreError
from kerasline.pipeline.dag import Pipeline
from kerasline.pipeline.environment import here
from kerasline.pipeline.fingerprint import node_fingerprint
from kerasline.pipeline.metadata import store as records
from kerasline.pipeline.metadata.store import Execution, Store, StoredArtifact
from kerasline.pipeline.observers import notify
from kerasline.pipeline.storage import roots
from kerasline.pipeline.storage.artifact_root import ArtifactRoot, Published, file_digest
from kerasline.pipeline.storage.locks import locked

LOG = logging.getLogger("kerasline")

# A file touched within this time may be touched again without its time of change telling: the
# clock of some file systems ticks in two seconds. Its digest is not remembered.
SETTLED_NS = 2_000_000_000

PROGRESS_SECONDS = 0.5


@dataclass(frozen=True)
class Executor:
    """Executes the nodes of one run of one pipeline.

    Args:
        pipeline: the nodes and edges.
        store: where executions are recorded.
        root: where artifacts are published.
        run_id: the run; it has been begun in the store.
        selected: the nodes that this run runs; others lend the outputs of their latest execution.
        beam_options: for the Beam pipelines that stages start.
        use_cache: whether outputs of earlier executions may stand for a run.
    """

    pipeline: Pipeline
    store: Store
    root: ArtifactRoot
    run_id: str
    selected: Sequence[str]
    beam_options: Sequence[str] = ()
    use_cache: bool = True

    def from_cache(self, name: str) -> Execution | None:
        """Records the node as cached (or skipped again) if it need not run; None if it must.

        An error met on the way is not raised: `execute` meets it again and records it.
        """
        if not self.use_cache:
            return None
        try:
            work = self._resolve(name)
            found = None if work is None else self._cached(work, self._blank(name))
        except (KeraslineError, OSError):
            return None
        if found is not None:
            self.store.record(found)
            notify.stage_began(self.pipeline, found)
            notify.stage_ended(self.pipeline, found)
        return found

    def prepare(self, names: Sequence[str]) -> None:
        """To be called before any of these nodes is executed, while no other thread runs."""
        for name in names:
            for module in self.pipeline.nodes[name].IMPORTED_ALONE:
                with contextlib.suppress(ImportError):  # the stage tells it
                    importlib.import_module(module)

    def execute(self, name: str) -> Execution:
        """Executes one node and records how it went; never raises for a stage's failure."""
        clock = time.perf_counter()
        blank = self._blank(name)
        self.store.record(blank)
        notify.stage_began(self.pipeline, blank)
        try:
            work = self._resolve(name)
            if work is not None:
                blank = dataclasses.replace(blank, inputs=work.stored_inputs)
            result = self._executed(name, blank, work)
        except KeraslineError as error:
            LOG.info("%s failed: %s", name, error, exc_info=error)
            result = dataclasses.replace(blank, state="failed", message=str(error))
        except OSError as error:
            LOG.exception("%s failed", name)
            result = dataclasses.replace(blank, state="failed", message=_explain(error))
        except Exception as error:  # ours or a library's: the traceback goes to the log
            LOG.exception("%s failed", name)
            told = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            message = f"{told} (traceback in {self.root.log_file(self.run_id)})"
            result = dataclasses.replace(blank, state="failed", message=message)
        seconds = time.perf_counter() - clock
        result = dataclasses.replace(result, finished=records.now(), seconds=seconds)
        self.store.record(result)
        notify.stage_ended(self.pipeline, result)
        return result

    def _executed(self, name: str, blank: Execution, work: _Work | None) -> Execution:
        if work is None:
            return dataclasses.replace(blank, state="skipped", message=self._why_not(name))
        # Whoever else is at this very work, here, in another run or on another host, is waited for: then
        # it is there. Of one host, one at a time asks the store.
        elsewhere = self.store.held(f"{self.root.place} {work.fingerprint}")
        with locked(self.root.lock_file(work.fingerprint)), elsewhere:
            if self.use_cache:
                self.root.finish(self.pipeline.name, name, work.fingerprint)
            return self._cached(work, blank) or self._run(work, blank)

    def _run(self, work: _Work, blank: Execution) -> Execution:
        component = work.component
        staging = self.root.new_staging(component.name, work.fingerprint)
        work_dir = staging.with_name(staging.name + ".work")
        shutil.rmtree(work_dir, ignore_errors=True)
        work_dir.mkdir()
        note = f"run again: {work.note}" if work.note else None
        state_dir = self.root.state(component.name, work.fingerprint)
        if not self.use_cache:
            shutil.rmtree(state_dir, ignore_errors=True)
        try:
            _import_libraries(component)
            outputs = component.output_artifacts(staging)
            cache = self.root.cache / type(component).__name__ if self.use_cache else None
            context = Context(work_dir, tuple(self.beam_options), self._reporter(blank), cache, state_dir)
            metrics = _plain(component.run(component.input_artifacts(self._inputs(work)), outputs, context))
            facts = {
                "component": _component_name(component),
                "parameters": {key: _shown(value) for key, value in component.parameters.items()},
                "run_id": self.run_id,
                "environment": here(),
                "metrics": metrics,
            }
            published = self.root.publish(staging, self.pipeline.name, component, work.fingerprint, facts)
            shutil.rmtree(state_dir, ignore_errors=True)
        except StageSkipped as skip:
            return dataclasses.replace(
                blank,
                state="skipped",
                fingerprint=work.fingerprint,
                message=str(skip),
            )
        finally:
            shutil.rmtree(staging, ignore_errors=True)
            shutil.rmtree(work_dir, ignore_errors=True)
            malloc.give_back()
        return _with_outputs(blank, work, published, state="ran", message=note)

    def _cached(self, work: _Work, blank: Execution) -> Execution | None:
        """The execution as found in the cache; None, and why in `work.note`, where it is not."""
        if not self.use_cache:
            return None
        known = self.store.published(work.fingerprint)
        if known is not None and known.state == "skipped":
            return dataclasses.replace(
                blank,
                state="skipped",
                fingerprint=work.fingerprint,
                message=known.message,
                inputs=work.stored_inputs,
                finished=records.now(),
                seconds=0.0,
            )
        for published in self._candidates(work, known):
            work.note = published.broken() or self._stale(work.component, published)
            if work.note is None:
                return _with_outputs(blank, work, published, state="cached", message=None)
            LOG.warning("%s: cached outputs cannot be used: %s", work.component.name, work.note)
        return None

    def _candidates(self, work: _Work, known: Execution | None) -> Iterator[Published]:
        found = self.root.candidates(self.pipeline.name, work.component.name, work.fingerprint)
        folder = known.folder if known is not None else None
        below = folder is not None and folder.startswith(f"{self.root.place}/")  # else it is another root's
        if below and folder not in [p.place for p in found]:
            work.note = f"{folder} is missing or broken"
            LOG.warning("%s: %s", work.component.name, work.note)
        yield from found

    def _stale(self, component: Component, published: Published) -> str | None:
        """What the stage itself has against outputs that are whole; they are opened only if it looks at them."""
        if type(component).stale is Component.stale:
            return None
        kinds = type(component).spec().outputs
        opened = {name: kind(roots.local(f"{published.place}/{name}")) for name, kind in kinds.items()}
        return component.stale(SimpleNamespace(**opened))

    def _inputs(self, work: _Work) -> dict[str, Artifact]:
        """The inputs opened, on this machine's disk.

        Raises:
            ArtifactError: one is not as it was published.
        """
        opened = dict(work.given)
        for name, stored in work.stored_inputs.items():
            source = work.component.inputs[name]
            kind = type(work.component).spec().inputs[name].type
            if isinstance(source, Channel):
                kind, reason = source.type, roots.fault(stored.path)
                if reason:  # its results would enter the cache under the fingerprint of the intact input
                    raise ArtifactError(f"{reason}; run {source.producer.name} again first")
            opened[name] = kind(roots.local(stored.path))
        return opened

    def _resolve(self, name: str) -> _Work | None:
        """The node's inputs and fingerprint; None where a node that it needs gave no outputs.

        Raises:
            StoreError: a node that is not part of this run has never given outputs.
        """
        component = self.pipeline.nodes[name]
        given: dict[str, Artifact] = {}
        stored: dict[str, StoredArtifact] = {}
        digests: dict[str, str] = {}
        for field, source in component.inputs.items():
            if isinstance(source, LastBlessed):
                continue
            if isinstance(source, Artifact):
                given[field] = source
                digests[field] = _folder_digest(source.path, self._file_digest)
                continue
            upstream = self._upstream(source.producer.name)
            if upstream is None:
                return None
            stored[field] = upstream.outputs[source.name]
            digests[field] = stored[field].digest
        for field, source in component.inputs.items():
            earlier = self._last_blessed(component, source, digests) if isinstance(source, LastBlessed) else None
            if earlier is not None:
                stored[field] = earlier
                digests[field] = earlier.digest
        fingerprint = node_fingerprint(component, digests, self._file_digest)
        return _Work(component, given, stored, fingerprint)

    def _upstream(self, name: str) -> Execution | None:
        latest = self.store.latest(self.pipeline.name, name, self.run_id)
        if latest is not None and latest.run_id == self.run_id:
            return latest
        # Of a run in several calls, a stage each: what gave nothing in this run is not borrowed of another.
        if name in self.selected or any(e.node == name for e in self.store.executions(self.run_id)):
            return None
        if latest is None:
            raise StoreError(
                f"{name} is not part of this run and has no earlier outputs in {self.root.place}; "
                "run it first, or run the whole pipeline"
            )
        return latest

    def _last_blessed(
        self, component: Component, wanted: LastBlessed, digests: Mapping[str, str]
    ) -> StoredArtifact | None:
        """What the node took as `wanted.input` when it last blessed another than it takes now."""
        for execution in self.store.history(self.pipeline.name, component.name):
            taken = execution.inputs.get(wanted.input)
            if taken is None or taken.digest == digests.get(wanted.input) or not roots.exists(taken.path):
                continue
            if was_blessed(execution):
                return taken
        return None

    def _why_not(self, name: str) -> str:
        states = {e.node: e.state for e in self.store.executions(self.run_id)}
        told = {"failed": "failed", "skipped": "was skipped", "running": "has not ended"}
        blockers = [n for n in self.pipeline.upstream(name) if states.get(n) in told]
        return "not run, because " + " and ".join(f"{n} {told[states[n]]}" for n in blockers)

    def _file_digest(self, path: Path) -> str:
        status = path.stat()
        key = (str(path.absolute()), status.st_size, status.st_mtime_ns)
        known = self.store.known_digest(*key)
        if known is None:
            known = file_digest(path)
            if time.time_ns() - status.st_mtime_ns > SETTLED_NS:
                self.store.remember_digest(*key, known)
        return known

    def _blank(self, name: str) -> Execution:
        component = _component_name(self.pipeline.nodes[name])
        return Execution(self.run_id, self.pipeline.name, name, component, "running", records.now())

    def _reporter(self, execution: Execution) -> Callable[[str], None]:
        last = [0.0]

        def report(text: str) -> None:
            LOG.info("%s: %s", execution.node, text)
            if time.monotonic() - last[0] >= PROGRESS_SECONDS:
                last[0] = time.monotonic()
                self.store.progress(execution.id, text)

        return report


@dataclass
class _Work:
    """A node whose inputs are known: those that no pipeline made, and those that the store knows.

    `note`: why cached outputs, if there were any, were not used.
    """

    component: Component
    given: Mapping[str, Artifact]
    stored_inputs: Mapping[str, StoredArtifact]
    fingerprint: str
    note: str | None = None


def _with_outputs(blank: Execution, work: _Work, published: Published, *, state: str, message: str | None) -> Execution:
    return dataclasses.replace(
        blank,
        state=state,
        fingerprint=work.fingerprint,
        folder=published.place,
        metrics=published.metrics,
        message=message,
        inputs=work.stored_inputs,
        outputs=_stored(published),
        finished=records.now(),
        seconds=0.0,
    )


def _stored(published: Published) -> dict[str, StoredArtifact]:
    return {
        name: StoredArtifact(facts["type"], f"{published.place}/{name}", facts["digest"], facts["size_bytes"])
        for name, facts in published.outputs.items()
    }


def _folder_digest(folder: Path, digest: Callable[[Path], str]) -> str:
    """The digest of an artifact that no pipeline made, given as an input by its folder."""
    if not folder.is_dir():
        raise KeraslineError(f"{folder}: no such folder; an artifact was wanted there")
    return "".join(f"{p.relative_to(folder)} {digest(p)} " for p in sorted(folder.rglob("*")) if p.is_file())


def was_blessed(execution: Execution) -> bool:
    """Whether an execution judged a model, and blessed it.

    Raises:
        RemoteError: the verdict cannot be fetched.
    """
    found = [a for a in execution.outputs.values() if a.type == Blessing.__name__]
    try:
        return bool(found) and all(Blessing(roots.local(a.path)).blessed for a in found)
    except RemoteError:
        raise
    except (KeraslineError, OSError, ValueError, KeyError):  # collected since, or damaged
        return False


def _component_name(component: Component) -> str:
    return f"{type(component).__module__}.{type(component).__qualname__}"


def _plain(metrics: Mapping[str, Any] | None) -> dict[str, Any]:
    """Metrics as JSON has them: NumPy's numbers become Python's."""
    return {k: v.item() if hasattr(v, "item") else v for k, v in (metrics or {}).items()}


def _shown(value: Any) -> Any:
    return getattr(value, "__qualname__", None) or value


_IMPORTING = threading.Lock()


def _import_libraries(component: Component) -> None:
    """Imports what a stage names, one stage at a time: TensorFlow's modules import each other in circles,
    where two threads that begin at once, as stages side by side do, lock each other out."""
    with _IMPORTING:
        # A distribution that is not called as its module is left to the stage.
        wanted = [name for name in component.LIBRARIES if name not in sys.modules and find_spec(name)]
        with garbage_collection.importing() if wanted else contextlib.nullcontext():
            for name in wanted:
                with contextlib.suppress(ModuleNotFoundError):  # the stage tells it
                    importlib.import_module(name)


def _explain(error: OSError) -> str:
    where = f": {error.filename}" if error.filename else ""
    advice = {
        errno.ENOSPC: "; free some space, or give another --root",
        errno.EACCES: "; check the permissions, or give another --root",
        errno.EROFS: "; give another --root",
    }.get(error.errno or 0, "")
    return f"{error.strerror or error}{where}{advice}"
