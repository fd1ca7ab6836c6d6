"""Partial results that are cached between runs, by the content of the data they were computed from."""

from __future__ import annotations

import functools
import hashlib
import os
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kerasline.components.core.atomic_files import atomic_write

# Accumulators of few rows are hardly smaller than those of many, and merging cached ones must take a fraction of the
# time of computing them.
ROW_GROUPS_PER_PART = 4


@dataclass(frozen=True)
class Part:
    """Some row groups of a shard, about a quarter of a million rows, which one worker reads at a time.

    Attributes:
        shard: path of a Parquet file.
        groups: numbers of the row groups in the file.
    """

    shard: str
    groups: tuple[int, ...]

    def digest(self, columns: tuple[str, ...]) -> str:
        """Return the SHA-256 of the columns' bytes. It depends on neither the file nor its other columns."""
        return _digest(self, columns, Path(self.shard).stat().st_mtime_ns)


@functools.lru_cache(maxsize=4096)
def _digest(part: Part, columns: tuple[str, ...], _modified: int) -> str:
    import pyarrow.parquet as pq

    metadata, digest = pq.read_metadata(part.shard), hashlib.sha256()
    schema = metadata.schema.to_arrow_schema()
    digest.update(repr([(name, str(schema.field(name).type)) for name in columns]).encode())
    with open(part.shard, "rb") as file:
        for number in part.groups:
            group = metadata.row_group(number)
            for chunk in map(group.column, range(group.num_columns)):
                if chunk.path_in_schema.split(".")[0] in columns:
                    file.seek(chunk.dictionary_page_offset or chunk.data_page_offset)
                    digest.update(file.read(chunk.total_compressed_size))
    return digest.hexdigest()


def split_into_parts(shards: Sequence[Path]) -> list[Part]:
    """Divide shards into parts, in order. The parts of a shard have nearly equal length, to balance the workers."""
    import pyarrow.parquet as pq

    parts = []
    for shard in map(str, shards):
        count = pq.read_metadata(shard).num_row_groups
        number = -(-count // ROW_GROUPS_PER_PART)
        spans = [range(count * part // number, count * (part + 1) // number) for part in range(number)]
        parts += [Part(shard, tuple(span)) for span in spans]
    return parts


@dataclass
class CountedResult:
    """An accumulator, with the number of parts that were computed and the number that were read from the cache."""

    value: Any
    computed: int
    cached: int

    @staticmethod
    def merge(ours: CountedResult, theirs: CountedResult, merge_values: Callable[[Any, Any], Any]) -> CountedResult:
        value = merge_values(ours.value, theirs.value)
        return CountedResult(value, ours.computed + theirs.computed, ours.cached + theirs.cached)


@dataclass(frozen=True)
class CachedAccumulate:
    """A function of a part that reads its result from a cache, or computes and caches it.

    Attributes:
        accumulate: picklable, pure function of the part's columns.
        columns: columns that `accumulate` reads.
        folder: folder for the results, one file each, for this function alone. None turns caching off.
    """

    accumulate: Callable[[Part], Any]
    columns: tuple[str, ...]
    folder: Path | None

    def __call__(self, part: Part) -> CountedResult:
        if self.folder is None:
            return CountedResult(self.accumulate(part), 1, 0)
        path = self._path(part)
        found = _read(path)
        if found is not None:
            return CountedResult(found, 0, 1)
        result = self.accumulate(part)
        _write(path, result)
        return CountedResult(result, 1, 0)

    def missing(self, parts: Sequence[Part]) -> int:
        """Return the number of parts without a cached result."""
        return len(parts) if self.folder is None else sum(not self._path(part).exists() for part in parts)

    def _path(self, part: Part) -> Path:
        assert self.folder is not None
        return self.folder / part.digest(self.columns)


def _read(path: Path) -> Any | None:
    """Return the cached result, or None if there is none or it is damaged."""
    try:
        data = path.read_bytes()
        os.utime(path)  # garbage collection removes the files that were not used for long
    except OSError:
        return None
    digest, pickled = data[:32], data[32:]
    return pickle.loads(pickled) if hashlib.sha256(pickled).digest() == digest else None


def _write(path: Path, result: Any) -> None:
    """Write atomically, because another process may read or write the same file."""
    pickled = pickle.dumps(result)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        temporary.write_bytes(hashlib.sha256(pickled).digest() + pickled)
