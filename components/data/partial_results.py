"""Partial results kept between runs, by the content of what they were computed from."""

from __future__ import annotations

import hashlib
import os
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kerasline.components.core.durable_files import replaced

# Row groups in a part. States of few rows are not much smaller than those of many, and what is
# remembered is to be merged in a fraction of the time that it took to compute.
GROUPS = 4


@dataclass(frozen=True)
class Part:
    """Some row groups of a shard, a quarter of a million rows: what one worker reads at a time.

    Attributes:
        shard: a Parquet file.
        groups: their numbers within it.
    """

    shard: str
    groups: tuple[int, ...]

    def digest(self, columns: tuple[str, ...]) -> str:
        """The SHA-256 of the columns' bytes, whatever file they lie in and whatever is beside them."""
        import pyarrow.parquet as pq

        metadata, digest = pq.read_metadata(self.shard), hashlib.sha256()
        schema = metadata.schema.to_arrow_schema()
        digest.update(repr([(name, str(schema.field(name).type)) for name in columns]).encode())
        with open(self.shard, "rb") as file:
            for number in self.groups:
                group = metadata.row_group(number)
                for chunk in map(group.column, range(group.num_columns)):
                    if chunk.path_in_schema.split(".")[0] in columns:
                        file.seek(chunk.dictionary_page_offset or chunk.data_page_offset)
                        digest.update(file.read(chunk.total_compressed_size))
        return digest.hexdigest()


def parts(shards: Sequence[Path]) -> list[Part]:
    """All rows of some shards, in order; the parts of a shard are of one length, or nearly, for workers' sake."""
    import pyarrow.parquet as pq

    found = []
    for shard in map(str, shards):
        count = pq.read_metadata(shard).num_row_groups
        number = -(-count // GROUPS)
        spans = [range(count * part // number, count * (part + 1) // number) for part in range(number)]
        found += [Part(shard, tuple(span)) for span in spans]
    return found


@dataclass
class Counted:
    """An accumulator, and of how many elements it was computed anew or remembered."""

    value: Any
    computed: int
    remembered: int

    @staticmethod
    def merged(ours: Counted, theirs: Counted, merge: Callable[[Any, Any], Any]) -> Counted:
        computed, remembered = ours.computed + theirs.computed, ours.remembered + theirs.remembered
        return Counted(merge(ours.value, theirs.value), computed, remembered)


@dataclass(frozen=True)
class Remembering:
    """`accumulate`, which looks for its result first, and keeps it.

    Attributes:
        accumulate: a pure function of the part's columns, picklable.
        columns: those that it reads.
        folder: where results are kept, a file each, which no other function shares; None keeps none.
    """

    accumulate: Callable[[Part], Any]
    columns: tuple[str, ...]
    folder: Path | None

    def __call__(self, part: Part) -> Counted:
        if self.folder is None:
            return Counted(self.accumulate(part), 1, 0)
        path = self.folder / part.digest(self.columns)
        found = _read(path)
        if found is not None:
            return Counted(found, 0, 1)
        result = self.accumulate(part)
        _write(path, result)
        return Counted(result, 1, 0)


def _read(path: Path) -> Any | None:
    """What was kept; None where nothing was, or it is damaged."""
    try:
        data = path.read_bytes()
        os.utime(path)  # what is used stays: garbage is told by its age
    except OSError:
        return None
    digest, pickled = data[:32], data[32:]
    return pickle.loads(pickled) if hashlib.sha256(pickled).digest() == digest else None


def _write(path: Path, result: Any) -> None:
    """Aside, then renamed: another process may read or write the same at the same moment."""
    pickled = pickle.dumps(result)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced(path) as aside:
        aside.write_bytes(hashlib.sha256(pickled).digest() + pickled)
