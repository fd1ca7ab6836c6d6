"""Execute one node: resolve its inputs, check the cache, run, publish and record.

Every runner uses this code, in every process. The state of other nodes is read from the metadata
store, so two nodes of one run can be executed on two machines.
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
from kerasline.components.core.atomic_files import file_digest
from kerasline.components.core.component import Channel, Component, Context, LastBlessed
from kerasline.components.core.errors import (
    ArtifactError,
    KeraslineError,
    RemoteError,
    StageSkipped,
    StoreError,
    named_cause,
)
from kerasline.pipeline import undeclared_files
from kerasline.pipeline.checks import check_waiting
from kerasline.pipeline.dag import Pipeline
from kerasline.pipeline.environment import here
from kerasline.pipeline.fingerprint import node_fingerprint
from kerasline.pipeline.metadata import store as records
from kerasline.pipeline.metadata.store import Execution, Store, StoredArtifact
from kerasline.pipeline.observers import notify
from kerasline.pipeline.storage import roots
from kerasline.pipeline.storage.artifact_root import ArtifactRoot, Published, file_state
from kerasline.pipeline.storage.locks import locked

LOG = logging.getLogger("kerasline")

# Do not remember the digest of a file changed more recently than this. Some file systems store times in steps of
# two seconds, so a second change could go unnoticed.
SETTLED_NS = 2_000_000_000

PROGRESS_SECONDS = 0.5


@dataclass(frozen=True)
class Executor:
    """Execute the nodes of one run of a pipeline.

    Args:
        pipeline: The pipeline to execute.
        store: Metadata store in which executions are recorded.
        root: Artifact root to which outputs are published.
        run_id: ID of the run, which must already exist in the store.
        selected: Names of the nodes to run. For other nodes the outputs of the latest execution are used.
        beam_options: Options for the Beam pipelines that stages start. Defaults to `()`.
        use_cache: Whether to reuse outputs of earlier executions. Defaults to `True`.
    """

    pipeline: Pipeline
    store: Store
    root: ArtifactRoot
    run_id: str
    selected: Sequence[str]
    beam_options: Sequence[str] = ()
    use_cache: bool = True

    def from_cache(self, name: str) -> Execution | None:
        """Record a node as cached, or as skipped again, if it does not need to run.

        Errors are not raised here: `execute` encounters them again and records them.

        Args:
            name: Name of the node.

        Returns:
            The recorded execution, or None if the node must run.
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
        """Import the modules that must be imported before other threads start.

        Args:
            names: Names of the nodes about to be executed.
        """
        for name in names:
            for module in self.pipeline.nodes[name].imported_alone:
                with contextlib.suppress(ImportError):  # the stage reports it
                    importlib.import_module(module)

    def execute(self, name: str) -> Execution:
        """Execute one node and record the result. A failure of the stage is recorded, not raised.

        Args:
            name: Name of the node.

        Returns:
            The recorded execution.
        """
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
        except Exception as error:  # a bug here or in a library: log the traceback
            LOG.exception("%s failed", name)
            message = f"{named_cause(error)} (traceback in {self.root.log_file(self.run_id)})"
            result = dataclasses.replace(blank, state="failed", message=message)
        seconds = time.perf_counter() - clock
        result = dataclasses.replace(result, finished=records.now(), seconds=seconds)
        self.store.record(result)
        notify.stage_ended(self.pipeline, result)
        return result

    def _executed(self, name: str, blank: Execution, work: _Work | None) -> Execution:
        if work is None:
            return dataclasses.replace(blank, state="skipped", message=self._why_not(name))
        # Wait for any other process, run or host that computes the same fingerprint; its outputs are then
        # in the cache. The file lock comes first, so that one process per host queries the store.
        elsewhere = self.store.held(f"{self.root.place} {work.fingerprint}")
        with locked(self.root.lock_file(work.fingerprint)), elsewhere:
            if self.use_cache:
                self.root.finish(self.pipeline.name, name, work.fingerprint)
            return self._cached(work, blank) or self._run(work, blank)

    def _run(self, work: _Work, blank: Execution) -> Execution:
        component = work.component
        inputs = self._checked_inputs(work)
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
            with undeclared_files.watched(work.digested, self.root.folders_of_stages) as undeclared:
                metrics = _plain(component.run(inputs, outputs, context))
            facts = {
                "component": _component_name(component),
                "parameters": {key: _shown(value) for key, value in component.parameters.items()},
                "run_id": self.run_id,
                "environment": here(),
                "metrics": metrics,
                "undeclared_files": dict(undeclared),
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
            malloc.release_free()
        return _with_outputs(blank, work, published, state="ran", note=note)

    def _cached(self, work: _Work, blank: Execution) -> Execution | None:
        """Return the cached execution, or None with the reason, if any, in `work.note`."""
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
                return _with_outputs(blank, work, published, state="cached")
            LOG.warning("%s: cached outputs cannot be used: %s", work.component.name, work.note)
        return None

    def _candidates(self, work: _Work, known: Execution | None) -> Iterator[Published]:
        """Yield published outputs of the fingerprint: those of this node, then those of another node or pipeline."""
        found = self.root.candidates(self.pipeline.name, work.component.name, work.fingerprint)
        folder = known.folder if known is not None else None
        is_here = folder is not None and folder.startswith(f"{self.root.place}/")  # else it belongs to another root
        if folder is not None and is_here and folder not in [p.place for p in found]:
            other = self.root.published_at(folder)
            if other is None or other.fingerprint != work.fingerprint:
                work.note = f"{folder} is missing or broken"
                LOG.warning("%s: %s", work.component.name, work.note)
            else:
                found.append(other)
        yield from found

    def _stale(self, component: Component, published: Published) -> str | None:
        """Return why the stage rejects intact outputs, or None. Open them only if the stage overrides `stale`."""
        if type(component).stale is Component.stale:
            return None
        kinds = type(component).spec().outputs
        opened = {name: kind(roots.local(f"{published.place}/{name}")) for name, kind in kinds.items()}
        return component.stale(SimpleNamespace(**opened))

    def _checked_inputs(self, work: _Work) -> SimpleNamespace:
        """Open the inputs, and check the parameters of this stage and of those that have not run.

        Raises:
            KeraslineError: An input is damaged, a parameter is wrong, or something is not installed.
        """
        component, opened = work.component, self._inputs(work)
        inputs = component.input_artifacts(opened)
        component.check_machine()
        component.check(inputs)
        channels = {field: source for field, source in component.inputs.items() if isinstance(source, Channel)}
        known = {(source.producer.name, source.name): opened[field] for field, source in channels.items()}
        known = {**self._outputs_on_disk(component.name), **known}
        check_waiting(self.pipeline, component.name, self.selected, known)
        return inputs

    def _outputs_on_disk(self, name: str) -> dict[tuple[str, str], Artifact]:
        """Return the outputs of this run that can be opened without a download."""
        return {
            (execution.node, output): channel.type(stored.path)
            for execution in self.store.executions(self.run_id)
            if execution.node in self.pipeline.nodes and execution.node != name
            for output, stored in execution.outputs.items()
            if (channel := self.pipeline.nodes[execution.node].outputs.get(output)) and Path(stored.path).is_dir()
        }

    def _inputs(self, work: _Work) -> dict[str, Artifact]:
        """Return the input artifacts, opened on the local disk.

        Raises:
            ArtifactError: If an input differs from what was published.
        """
        opened = dict(work.given)
        for name, stored in work.stored_inputs.items():
            source = work.component.inputs[name]
            kind = type(work.component).spec().input(name).type
            if isinstance(source, Channel):
                kind, reason = source.type, roots.fault(stored.path)
                if reason:  # otherwise results enter the cache under the intact input's fingerprint
                    raise ArtifactError(f"{reason}; run {source.producer.name} again first")
            opened[name] = kind(roots.local(stored.path))
        return opened

    def _resolve(self, name: str) -> _Work | None:
        """Return the node's inputs and fingerprint, or None if an upstream node produced no outputs.

        Raises:
            StoreError: If an upstream node outside this run has never produced outputs.
        """
        component = self.pipeline.nodes[name]
        given: dict[str, Artifact] = {}
        stored: dict[str, StoredArtifact] = {}
        digests: dict[str, str] = {}
        digested: list[Path] = []

        def digest(path: Path) -> str:
            digested.append(path)
            return self._file_digest(path)

        for field, source in component.inputs.items():
            if isinstance(source, LastBlessed):
                continue
            if isinstance(source, Artifact):
                given[field] = source
                digests[field] = _folder_digest(source.path, digest)
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
        fingerprint = node_fingerprint(component, digests, digest)
        return _Work(component, given, stored, fingerprint, digested)

    def _upstream(self, name: str) -> Execution | None:
        latest = self.store.latest(self.pipeline.name, name, self.run_id)
        if latest is not None and latest.run_id == self.run_id:
            return latest
        # A run may span several calls, one per stage. A node that produced nothing in this run does not
        # fall back to the outputs of another run.
        if name in self.selected or any(e.node == name for e in self.store.executions(self.run_id)):
            return None
        if latest is None:
            raise StoreError(
                f"{name} is not part of this run and has no earlier outputs in {self.root.place}; "
                "run it first, or run the whole pipeline"
            )
        return latest

    def _last_blessed(
        self, component: Component, source: LastBlessed, digests: Mapping[str, str]
    ) -> StoredArtifact | None:
        """Return the last blessed artifact for `source.input` that differs from the current input."""
        for execution in self.store.history(self.pipeline.name, component.name):
            taken = execution.inputs.get(source.input)
            if taken is None or taken.digest == digests.get(source.input) or not roots.exists(taken.path):
                continue
            if was_blessed(execution):
                return taken
        return None

    def _why_not(self, name: str) -> str:
        states = {e.node: e.state for e in self.store.executions(self.run_id)}
        verbs = {"failed": "failed", "skipped": "was skipped", "running": "has not ended"}
        blockers = [n for n in self.pipeline.upstream(name) if states.get(n) in verbs]
        return "not run, because " + " and ".join(f"{n} {verbs[states[n]]}" for n in blockers)

    def _file_digest(self, path: Path) -> str:
        status = path.stat()
        key = (str(path.absolute()), file_state(status))
        known = self.store.known_digest(*key)
        if known is None:
            known = file_digest(path)
            if time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) > SETTLED_NS:
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
    """A node with resolved inputs.

    Attributes:
        component: The stage to run.
        given: Input artifacts passed directly, not produced by a pipeline.
        stored_inputs: Input artifacts recorded in the store.
        fingerprint: Cache key of the node.
        digested: Files whose content is part of the fingerprint.
        note: Why cached outputs, if any, were not used.
    """

    component: Component
    given: Mapping[str, Artifact]
    stored_inputs: Mapping[str, StoredArtifact]
    fingerprint: str
    digested: Sequence[Path]
    note: str | None = None


def _with_outputs(
    blank: Execution, work: _Work, published: Published, *, state: str, note: str | None = None
) -> Execution:
    warning = undeclared_files.warning(work.component.name, published.undeclared_files)
    if warning:
        LOG.warning("%s: %s", work.component.name, warning)
    return dataclasses.replace(
        blank,
        state=state,
        fingerprint=work.fingerprint,
        folder=published.place,
        metrics=published.metrics,
        message="; ".join(filter(None, [note, warning])) or None,
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
    """Return the digest of an artifact that no pipeline produced: a folder, or a `.keras` file."""
    if folder.is_file():
        return digest(folder)
    if not folder.is_dir():
        raise KeraslineError(f"{folder}: no such folder; expected an artifact")
    return "".join(f"{p.relative_to(folder)} {digest(p)} " for p in sorted(folder.rglob("*")) if p.is_file())


def was_blessed(execution: Execution) -> bool:
    """Return whether an execution blessed a model.

    Args:
        execution: The execution to check.

    Returns:
        True if it has at least one blessing and all of its blessings are positive.

    Raises:
        RemoteError: If the blessing cannot be fetched.
    """
    found = [a for a in execution.outputs.values() if a.type == Blessing.__name__]
    try:
        return bool(found) and all(Blessing(roots.local(a.path)).blessed for a in found)
    except RemoteError:
        raise
    except (KeraslineError, OSError, ValueError, KeyError):  # garbage-collected or damaged
        return False


def _component_name(component: Component) -> str:
    return f"{type(component).__module__}.{type(component).__qualname__}"


def _plain(metrics: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return metrics with NumPy scalars converted to Python numbers, for JSON."""
    return {k: v.item() if hasattr(v, "item") else v for k, v in (metrics or {}).items()}


def _shown(value: Any) -> Any:
    return getattr(value, "__qualname__", None) or value


_IMPORTING = threading.Lock()


def _import_libraries(component: Component) -> None:
    """Import the libraries of a stage, one stage at a time.

    TensorFlow has circular imports, on which two threads that import it at once can deadlock.
    """
    with _IMPORTING:
        # If a distribution and its module have different names, the stage imports the module itself.
        missing = [name for name in component.LIBRARIES if name not in sys.modules and find_spec(name)]
        with garbage_collection.paused_for_imports() if missing else contextlib.nullcontext():
            for name in missing:
                with contextlib.suppress(ModuleNotFoundError):  # the stage reports it
                    importlib.import_module(name)


def _explain(error: OSError) -> str:
    where = f": {error.filename}" if error.filename else ""
    advice = {
        errno.ENOSPC: "; free some space, or give another --root",
        errno.EACCES: "; check the permissions, or give another --root",
        errno.EROFS: "; give another --root",
    }.get(error.errno or 0, "")
    return f"{error.strerror or error}{where}{advice}"
