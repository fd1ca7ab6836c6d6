"""What a pipeline root no longer needs, and its removal."""

from __future__ import annotations

import collections
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from components.errors import KeraslineError
from pipeline.executor import was_blessed
from pipeline.locks import removed_if_free
from pipeline.publishing import ArtifactRoot
from pipeline.store import Store

# Partial results are kept so long after their last use.
CACHE_DAYS = 30


@dataclass(frozen=True)
class Removed:
    path: Path
    why: str
    size_bytes: int


def collect(store: Store, root: ArtifactRoot, *, keep: int, dry_run: bool) -> list[Removed]:
    """Removes staging folders of dead processes and outputs that no kept run uses.

    Args:
        keep: how many of the newest runs of each pipeline keep all their outputs.
        dry_run: tells what would go, and removes nothing.

    Raises:
        KeraslineError: a run is going on in this root.
    """
    with removed_if_free(_made(root.use_lock_file)) as free:
        if not free:
            raise KeraslineError(f"{root.path}: a run is going on there; collect when it has ended")
        found = [*_leftovers(root), *_unused(store, root, keep), *_forgotten(root)]
        if not dry_run:
            # The store first: killed in between, folders are left that the next collection finds.
            store.forget_artifacts([str(item.path) for item in found])
            for item in found:
                shutil.rmtree(item.path)
    return found


def _made(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def _leftovers(root: ArtifactRoot) -> Iterator[Removed]:
    for path in sorted(root.staging.glob("*")):
        yield Removed(path, "left by a process that died", _size(path))


def _unused(store: Store, root: ArtifactRoot, keep: int) -> Iterator[Removed]:
    used: set[str | None] = set()
    seen: collections.Counter[str] = collections.Counter()
    blessed: set[str] = set()
    for run in store.runs():
        seen[run.pipeline] += 1
        executions = store.executions(run.id) if seen[run.pipeline] <= keep or run.pipeline not in blessed else []
        if seen[run.pipeline] <= keep:
            used |= {execution.folder for execution in executions}
        # What was blessed last is what the next model will be held against.
        if run.pipeline not in blessed and (judged := [e for e in executions if was_blessed(e)]):
            blessed.add(run.pipeline)
            used |= {e.folder for e in judged}
            used |= {str(Path(artifact.path).parent) for e in judged for artifact in e.inputs.values()}
    for path in sorted(root.artifacts.glob("*/*/*")):
        if str(path) not in used:
            yield Removed(path, f"not used by the newest {keep} runs", _size(path))


def _forgotten(root: ArtifactRoot) -> Iterator[Removed]:
    for path in sorted([*root.cache.glob("*/*"), *root.states.glob("*")]):
        used = max((part.stat().st_mtime for part in path.rglob("*")), default=0)
        if time.time() - used > CACHE_DAYS * 86_400:
            yield Removed(path, f"not used for {CACHE_DAYS} days", _size(path))


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
