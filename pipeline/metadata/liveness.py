"""Liveness of runs: a process holds a lock on its run while it works; the lock is released if it dies.

On one host this is a kernel lock on a file. Between hosts it is a lock of the metadata store's database session, which
only PostgreSQL has. Without it, a run that another host began counts as running.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from kerasline.pipeline.metadata.store import Store
from kerasline.pipeline.storage.artifact_root import ArtifactRoot
from kerasline.pipeline.storage.locks import locked


@contextlib.contextmanager
def alive(store: Store, root: ArtifactRoot, run_id: str) -> Iterator[None]:
    """Mark the run as alive within the `with` block. Several processes may share a run."""
    with locked(root.run_lock_file(run_id), shared=True), store.held(_name(root, run_id), shared=True):
        yield


def is_alive(store: Store, root: ArtifactRoot, run_id: str) -> bool:
    """Return whether a run recorded as running is still alive."""
    known = [root.is_run_alive(run_id), store.is_held(_name(root, run_id))]
    return any(known) or known == [None, None]


def _name(root: ArtifactRoot, run_id: str) -> str:
    return f"{root.place} run {run_id}"
