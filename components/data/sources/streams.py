"""Files as streams of bytes, decompressed by their ending or their first bytes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from kerasline.components.core.errors import DataError, one_line

_ENDINGS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd", ".lz4": "lz4"}
_MAGIC = {b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\x28\xb5\x2f\xfd": "zstd"}


@contextlib.contextmanager
def open_stream(path: Path, *, by_content: bool = False) -> Iterator[pa.NativeFile]:
    """Opens a file for reading.

    Args:
        path: the file.
        by_content: decompress by the first bytes, whatever the ending is.

    Raises:
        DataError: it cannot be opened, or its compressed data are damaged or cut short.
    """
    compression = _of_content(path) if by_content else compression_of(path)
    try:
        with pa.input_stream(str(path), compression=compression) as stream:
            yield stream
    except OSError as error:
        raise unreadable(path, error) from error


def compression_of(path: Path) -> str | None:
    """The compression that a file's ending tells of."""
    return _ENDINGS.get(path.suffix.lower())


def unreadable(path: Path, error: OSError) -> DataError:
    """What to tell of a file that the system, or its decompression, does not give."""
    if isinstance(error, PermissionError):
        return DataError(f"{path}: {error.strerror}; mend the file's permissions")
    return DataError(f"{path}: cannot be read to its end ({one_line(error)}); get the file anew")


def _of_content(path: Path) -> str | None:
    with open(path, "rb") as file:
        start = file.read(4)
    return next((name for magic, name in _MAGIC.items() if start.startswith(magic)), None)
