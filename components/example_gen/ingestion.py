"""Copying rows from a source to an Examples artifact: in this process, or in parallel on the workers of an engine.

Rules of exact shares count all rows before.

Each piece of the data gets its own shards, named in the order of the pieces. So the bytes of the artifact are the same
either way.
"""

from __future__ import annotations

import copy
import functools
import operator
import shutil
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kerasline.components.core.artifacts import Examples
from kerasline.components.core.component import Context
from kerasline.components.data.shards import ExamplesWriter
from kerasline.components.data.sources.source import DivisibleSource, SchemaChanged
from kerasline.components.example_gen.exact_shares import Counts
from kerasline.components.example_gen.selection import SelectedSource
from kerasline.components.example_gen.splitting import SplitRule

# The split of a piece of the data, or None if its rows are split one by one, and the piece in the terms of its source.
Piece = tuple[str | None, Any]


def count(pieces: Sequence[Piece], source: SelectedSource, rule: SplitRule) -> Counts:
    """Count the rows of all pieces for a rule that needs counts, in this process.

    Raises:
        SchemaChanged: begin again with the same source.
    """
    counts = rule.new_counts()
    for _, piece in pieces:
        for batch in source.batches(piece):
            rule.count(batch, counts)
    # The hash of a value may depend on its type.
    inner = source.source
    if isinstance(inner, DivisibleSource) and inner.merge_inferred([inner.inferred]):
        raise SchemaChanged
    return counts


def count_on_engine(pieces: Sequence[Piece], source: SelectedSource, rule: SplitRule, context: Context) -> Counts:
    """Count the rows of pieces by workers, each starting with a copy of `source`; see `count`."""
    from kerasline.components.data.fold import fold

    while True:
        work = functools.partial(_count_piece, source=source, rule=rule)
        context.report(f"counting {len(pieces)} pieces on the engine")
        done: _CountedPieces | None = fold(pieces, work, _CountedPieces.merge, context)
        assert done is not None, "there are pieces"
        if not source.source.merge_inferred(done.inferred):
            return done.counts


def ingest(
    parts: Sequence[tuple[str | None, Sequence[Any]]],
    source: SelectedSource,
    rule: SplitRule,
    writer: ExamplesWriter,
    report: Callable[[str], None],
) -> int:
    """Write the rows of all parts in this process, and return the number of columns.

    Args:
        parts: the split of each part, or None, and the pieces of the part.

    Raises:
        SchemaChanged: begin again with the same source and a new writer.
    """
    columns = 0
    for name, pieces in parts:
        splitter = rule.new_splitter()
        for piece in pieces:
            for batch in source.batches(piece):
                columns = len(writer.columns or batch.schema)
                if name is None:
                    splitter.write(batch, writer)
                else:
                    writer.write(name, batch)
                report(f"{sum(writer.rows.values()):,} rows")
            writer.end_shards()  # so that the shards of a piece do not depend on other pieces
    return columns


def ingest_on_engine(
    pieces: Sequence[Piece],
    source: SelectedSource,
    rule: SplitRule,
    splits: Sequence[str],
    writer: ExamplesWriter,
    context: Context,
) -> int:
    """Write the rows of pieces by workers, each starting with a copy of `source`; see `ingest`."""
    from kerasline.components.data.fold import fold

    while True:
        folder = context.work_dir / f"pieces-{uuid.uuid4().hex}"
        work = functools.partial(
            _ingest_piece, source=source, rule=rule, splits=splits, kept=writer.columns, folder=folder
        )
        context.report(f"{len(pieces)} pieces on the engine")
        done = fold(enumerate(pieces), work, operator.add, context) or []
        if not source.source.merge_inferred([one.inferred for one in done]):
            break
        shutil.rmtree(folder)
    for one in done:
        source.source.rows_read += one.rows_read
        source.left_out += one.left_out
        for split, shard, rows in one.shards:
            writer.move_shard(split, shard, rows)
    return max(one.columns for one in done)  # a piece may have no rows


@dataclass(frozen=True)
class _CountedPieces:
    """Counts of some pieces, and what the copies of the source inferred about the schema."""

    counts: Counts
    inferred: list[Any]

    def merge(self, other: _CountedPieces) -> _CountedPieces:
        return _CountedPieces(self.counts.merge(other.counts), [*self.inferred, *other.inferred])


def _count_piece(piece: Piece, source: SelectedSource, rule: SplitRule) -> _CountedPieces:
    source = copy.deepcopy(source)  # a worker may use the same object for several pieces
    while True:
        try:
            return _CountedPieces(count([piece], source, rule), [source.source.inferred])
        except SchemaChanged:
            continue


@dataclass(frozen=True)
class _IngestedPiece:
    """The shards of a piece (split, path, rows), and what its copy of the source inferred about the schema."""

    shards: Sequence[tuple[str, Path, int]]
    rows_read: int
    left_out: int
    columns: int
    inferred: Any


def _ingest_piece(
    numbered: tuple[int, Piece],
    source: SelectedSource,
    rule: SplitRule,
    splits: Sequence[str],
    kept: Mapping[str, str] | None,
    folder: Path,
) -> list[_IngestedPiece]:
    number, (name, piece) = numbered
    source = copy.deepcopy(source)  # a worker may use the same object for several pieces
    target = folder / f"{number}-{uuid.uuid4().hex}"  # an engine may run this twice, even concurrently
    while True:
        examples = Examples(target)
        target.mkdir(parents=True)
        try:
            with ExamplesWriter(examples, splits, kept) as writer:
                columns = ingest([(name, [piece])], source, rule, writer, lambda _: None)
        except SchemaChanged:
            shutil.rmtree(target)
            source.source.rows_read = source.left_out = 0
            continue
        shards = [(split, target / shard["path"], shard["rows"]) for split, shard in writer.shards()]
        inner = source.source
        return [_IngestedPiece(shards, inner.rows_read, source.left_out, columns, inner.inferred)]
