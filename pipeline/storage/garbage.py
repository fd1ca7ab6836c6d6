"""Garbage collection of a pipeline root."""

from __future__ import annotations

import collections
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kerasline.components.core.errors import KeraslineError
from kerasline.pipeline.executor import was_blessed
from kerasline.pipeline.metadata.liveness import is_alive
from kerasline.pipeline.metadata.store import Execution, Store
from kerasline.pipeline.storage.artifact_root import ArtifactRoot, size_of
from kerasline.pipeline.storage.locks import removed_if_free

# Keep partial results this long after their last use.
CACHE_DAYS = 30
# Keep outputs in a shared root for this long, because other hosts may use them or upload them.
SHARED_DAYS = 1
DAY_SECONDS = 86_400


@dataclass(frozen=True)
class Removed:
    """A folder that was removed, by path or URL, and the reason."""

    path: str
    why: str
    size_bytes: int


def collect(
    store: Store, root: ArtifactRoot, *, keep: int, dry_run: bool, time_now: float | None = None
) -> list[Removed]:
    """Remove staging folders of dead processes and outputs that no kept run uses.

    In a shared root, remove only outputs that the store records and that are older than a day, because a run of another
    host may be about to read others.

    Args:
        keep: number of newest runs with outputs of a stage to keep, for each stage of each pipeline. A run that is kept
            keeps the outputs of all its stages and what they read. Runs that failed or executed a few stages
            therefore never replace the last whole run.
        dry_run: whether to only report what would be removed.
        time_now: reference time for ages, in seconds since 1970. Defaults to now.

    Raises:
        KeraslineError: a run is in progress in this root.
    """
    with removed_if_free(_created(root.use_lock_file)) as free:
        if not free:
            raise KeraslineError(f"{root.place}: a run is in progress there; run gc again when it has ended")
        time_now = time.time() if time_now is None else time_now
        found = [*_staging(root), *_unused(store, root, keep, time_now), *_expired(root, time_now)]
        if not dry_run:
            # The store first: after a kill in between, the next collection finds the folders.
            store.forget_artifacts([item.path for item in found])
            for item in found:
                root.remove(item.path)
    return found


def _created(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def _staging(root: ArtifactRoot) -> Iterator[Removed]:
    for path in sorted(root.staging.glob("*")):
        yield Removed(str(path), "left by a process that died", size_of(path))


def _unused(store: Store, root: ArtifactRoot, keep: int, time_now: float) -> Iterator[Removed]:
    used, recorded = _used(store, root, keep)
    for folder in root.folders():
        if root.shared and not (folder.modified and time_now - folder.modified > SHARED_DAYS * DAY_SECONDS):
            continue
        if not folder.complete:
            yield Removed(folder.place, "left by a process that died", folder.size_bytes)
        elif folder.place not in used and (folder.place in recorded or not root.shared):
            yield Removed(folder.place, f"not used by the newest {keep} runs of its stage", folder.size_bytes)
    for place, path in root.copies():
        if place not in used:
            yield Removed(str(path), f"a copy, not used by the newest {keep} runs of its stage", size_of(path))


def _used(store: Store, root: ArtifactRoot, keep: int) -> tuple[set[str | None], set[str | None]]:
    """Return the folders to keep, and all folders that the store records."""
    used: set[str | None] = set()
    recorded: set[str | None] = set()
    seen: collections.Counter[tuple[str, str]] = collections.Counter()
    blessed: set[tuple[str, str]] = set()
    for run in store.runs():
        executions = store.executions(run.id)
        recorded |= {execution.folder for execution in executions}
        stages = [(run.pipeline, execution.node) for execution in executions if execution.folder]
        is_newest = any(seen[stage] < keep for stage in stages)
        seen.update(stages)
        if is_newest or (run.state == "running" and is_alive(store, root, run.id)):
            used = used.union(*map(_with_inputs, executions))
        # The next model is compared with the one that this stage blessed last.
        for execution in executions:
            stage = (run.pipeline, execution.node)
            if stage not in blessed and was_blessed(execution):
                blessed.add(stage)
                used |= _with_inputs(execution)
    return used, recorded


def _with_inputs(execution: Execution) -> set[str | None]:
    return {execution.folder} | {artifact.path.rpartition("/")[0] for artifact in execution.inputs.values()}


def _expired(root: ArtifactRoot, time_now: float) -> Iterator[Removed]:
    not_uploaded = root.path.glob("outbox/*/*/*")  # outputs for a remote root
    for path in sorted([*root.cache.glob("*/*"), *root.states.glob("*"), *not_uploaded]):
        last_used = max((part.stat().st_mtime for part in path.rglob("*")), default=0)
        if time_now - last_used > CACHE_DAYS * DAY_SECONDS:
            yield Removed(str(path), f"not used for {CACHE_DAYS} days", size_of(path))
