"""Write files atomically: to a temporary name, flushed to disk where that matters, then renamed. Hash files."""

from __future__ import annotations

import contextlib
import hashlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def atomic_write(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """Yield a temporary path next to `path`, and rename it to `path` at the end of the block.

    Concurrent writers have a temporary path each. If the block or the rename raises, the temporary file is deleted.

    Args:
        path: the file to create or replace.
        durable: whether to flush the content to disk before the rename.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        yield temporary
        if durable:
            fsync(temporary)
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal, with constant memory."""
    with path.open("rb", buffering=0) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fsync_tree(folder: Path) -> None:
    """Flush everything in a folder to disk, so that a later rename of the folder never exposes partial files."""
    for path in folder.rglob("*"):
        fsync(path)
    fsync(folder)


def fsync(path: Path) -> None:
    """Flush a file, or the entries of a folder, to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
