"""Files that appear whole: written aside, on the disk where that matters, then renamed."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replaced(path: Path, *, synced: bool = False) -> Iterator[Path]:
    """Gives a path beside to write to, which takes the place of `path` at the end; of several writers each has its own.

    Where the block raises, or the rename does, nothing is left of it.

    Args:
        synced: whether the content is on the disk before it is renamed.
    """
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        yield aside
        if synced:
            sync(aside)
        aside.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            aside.unlink()
        raise


def sync_tree(folder: Path) -> None:
    """Everything in the folder is on the disk when this returns, so that the rename tells the truth."""
    for path in folder.rglob("*"):
        sync(path)
    sync(folder)


def sync(path: Path) -> None:
    """One file, or the names in one folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
