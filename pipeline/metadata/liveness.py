"""Whether a run goes on: its processes hold its name as long as they work on it, and whoever dies lets go.

On one host the kernel's lock on a file tells. Other hosts are told by a lock of the metadata store's database
session, which only PostgreSQL has; without it, a run that another host began is taken at its word.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from kerasline.pipeline.metadata.store import Store
from kerasline.pipeline.storage.artifact_root import ArtifactRoot
from kerasline.pipeline.storage.locks import locked


@contextlib.contextmanager
def alive(store: Store, root: ArtifactRoot, run_id: str) -> Iterator[None]:
    """The run goes on until the end of the `with`; several processes may each do a part of it."""
    with locked(root.run_lock_file(run_id), shared=True), store.held(_name(root, run_id), shared=True):
        yield


def is_alive(store: Store, root: ArtifactRoot, run_id: str) -> bool:
    """Whether a run that the store has as running goes on."""
    told = [root.is_run_alive(run_id), store.is_held(_name(root, run_id))]
    return any(told) or told == [None, None]


def _name(root: ArtifactRoot, run_id: str) -> str:
    return f"{root.place} run {run_id}"
