"""Opening files that may be compressed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from kerasline.components.core.errors import DataError, one_line

_SUFFIXES = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd", ".lz4": "lz4"}
_MAGIC = {b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\x28\xb5\x2f\xfd": "zstd"}


@contextlib.contextmanager
def open_stream(path: Path, *, by_content: bool = False) -> Iterator[pa.NativeFile]:
    """Open a file for reading and decompress it.

    Args:
        by_content: detect the compression from the first bytes instead of the suffix.

    Raises:
        DataError: the file cannot be opened, its compressed data are damaged or truncated, or it is compressed without
            the suffix that says so.
    """
    try:
        found = _compression_of_content(path)
        compression = found if by_content else compression_of(path)
        if found and not compression:
            raise DataError(f"{path}: compressed with {found}; rename the file to {path.name}{_suffix_of(found)}")
        with pa.input_stream(str(path), compression=compression) as stream:
            yield stream
    except OSError as error:
        raise unreadable(path, error) from error


def compression_of(path: Path) -> str | None:
    """Return the compression that the suffix of a file denotes."""
    return _SUFFIXES.get(path.suffix.lower())


def unreadable(path: Path, error: OSError) -> DataError:
    """Return the error for a file that cannot be read or decompressed."""
    if isinstance(error, PermissionError):
        return DataError(f"{path}: {error.strerror}; change the permissions of the file")
    return DataError(f"{path}: cannot be read to the end ({one_line(error)}); obtain the file again")


def _compression_of_content(path: Path) -> str | None:
    with open(path, "rb") as file:
        start = file.read(4)
    return next((name for magic, name in _MAGIC.items() if start.startswith(magic)), None)


def _suffix_of(compression: str) -> str:
    return next(suffix for suffix, name in _SUFFIXES.items() if name == compression)
