"""From a source to an Examples artifact: piece after piece in this process, or side by side on an engine's workers.

Each piece makes shards of its own, which are named in the order of the pieces: the artifact has the same bytes
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
from kerasline.components.data.sources import ReadAgain
from kerasline.components.example_gen.splitting import Splitter

# A piece of the data, in its source's own terms, and the split that it is; None if its rows are split one by one.
Piece = tuple[str | None, Any]


@dataclass(frozen=True)
class Splits:
    """The splits of an artifact, and how rows get there; see `Splitter`.

    Attributes:
        names: all of them, in order.
    """

    names: Sequence[str]
    by: str
    shares: Mapping[str, float]
    key: Sequence[str] | None
    told: str

    def splitter(self) -> Splitter:
        return Splitter(self.by, self.shares, self.key, self.told)


def read_here(
    parts: Sequence[tuple[str | None, Sequence[Any]]],
    source: Any,
    splits: Splits,
    writer: ExamplesWriter,
    report: Callable[[str], None],
) -> int:
    """Writes the rows of all parts, and gives the number of their columns.

    Args:
        parts: the split that each is, and its pieces: a splitter deals out the rows of a whole part.

    Raises:
        ReadAgain: begin again with the same source, which knows better now, and a new writer.
    """
    columns = 0
    for name, pieces in parts:
        splitter = None if name else splits.splitter()
        for piece in pieces:
            for batch in source.batches(piece):
                columns = len(batch.schema)
                if splitter:
                    splitter.write(batch, writer)
                else:
                    writer.write(name, batch)
                report(f"{sum(writer.rows.values()):,} rows")
            writer.end_shards()  # so that a piece's shards are the same beside any others
    return columns


def read_on_engine(
    pieces: Sequence[Piece], source: Any, splits: Splits, writer: ExamplesWriter, context: Context
) -> int:
    """As `read_here`, by workers, each of which begins with what `source` knows now."""
    from kerasline.components.data.fold import fold

    while True:
        folder = context.work_dir / f"pieces-{uuid.uuid4().hex}"
        work = functools.partial(_read_piece, source=source, splits=splits, folder=folder)
        context.report(f"{len(pieces)} pieces, on the engine")
        done: list[_Done] = fold(enumerate(pieces), work, operator.add, context)
        if not source.learn([one.knowledge for one in done]):
            break
        shutil.rmtree(folder)
    for one in done:
        source.rows_read += one.rows_read
        for split, shard, rows in one.shards:
            writer.adopt(split, shard, rows)
    return max(one.columns for one in done)  # a piece may be empty


@dataclass(frozen=True)
class _Done:
    """What came of a piece. `knowledge`: of the source, after it."""

    shards: Sequence[tuple[str, Path, int]]
    rows_read: int
    columns: int
    knowledge: Any


def _read_piece(numbered: tuple[int, Piece], source: Any, splits: Splits, folder: Path) -> list[_Done]:
    number, (name, piece) = numbered
    source = copy.deepcopy(source)  # the same object may stand for several pieces in one worker
    aside = folder / f"{number}-{uuid.uuid4().hex}"  # an engine that lost a worker may do this twice, even at once
    while True:
        examples = Examples(aside)
        aside.mkdir(parents=True)
        try:
            with ExamplesWriter(examples, splits.names) as writer:
                columns = read_here([(name, [piece])], source, splits, writer, lambda _: None)
        except ReadAgain:
            shutil.rmtree(aside)
            source.rows_read = 0
            continue
        shards = [(split, aside / shard["path"], shard["rows"]) for split, shard in writer.shards()]
        return [_Done(shards, source.rows_read, columns, source.knowledge)]
