"""Reading JSON Lines files into Arrow batches."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.json as pj

from kerasline.components.core.errors import one_line
from kerasline.components.data.sources.streams import open_stream
from kerasline.components.data.unify import UnifiedSource

BLOCK_BYTES = 4 << 20
_UNREADABLE = (pa.ArrowInvalid, UnicodeDecodeError)  # the latter for names of columns


class JsonSource(UnifiedSource):
    """The rows of files with one JSON object a line; empty lines are none, compressed files fine.

    Objects within objects become columns named `outer.inner`, arrays lists.

    Args:
        quarantine: takes lines that are no JSON objects, or whose values are of another type than
            those before them.
    """

    def _read(self, files: Sequence[Path]) -> Iterator[tuple[str, pa.RecordBatch]]:
        for path in files:
            line = 1
            for block in _blocks(path):
                where = f"{path}, from line {line}"
                for batch in self._block(path, line, block).combine_chunks().to_batches():
                    yield where, batch
                line += block.count(b"\n")

    def _block(self, path: Path, first: int, block: bytes) -> pa.Table:
        try:
            table = _parsed(block)
            if table.num_rows == block.count(b"\n"):
                self.rows_read += table.num_rows
                return table
        except _UNREADABLE:
            pass
        # Empty lines, a last line without its end, or lines that cannot be used: one by one.
        lines = [(first + i, text) for i, text in enumerate(block.split(b"\n")) if text.strip()]
        self.rows_read += len(lines)
        good = self._without_clashing(path, self._without_broken(path, lines))
        return _parsed(b"\n".join(text for _, text in good)) if good else pa.table({})

    def _without_broken(self, path: Path, lines: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
        """The lines that can be read; those that cannot go to the quarantine."""
        good = []
        for number, text in lines:
            try:
                if not isinstance(json.loads(text), dict):
                    raise ValueError("a JSON value, but no object")
                good.append((number, text))
            except (ValueError, RecursionError) as error:
                self._quarantine.put(f"{path}, line {number}", one_line(error), text)
        return good

    def _without_clashing(self, path: Path, lines: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
        """The lines whose values are of one type with those before them; others are set aside."""
        good: list[tuple[int, bytes]] = []
        waiting = [lines]
        while waiting:  # parts that go with what is good are taken whole, others halved
            part = waiting.pop()
            if not part:
                continue
            try:
                _parsed(b"\n".join(text for _, text in [*good, *part]))
                good += part
            except _UNREADABLE as clash:
                if len(part) == 1:
                    number, text = part[0]
                    self._quarantine.put(f"{path}, line {number}", _clash(clash), text)
                else:
                    half = len(part) // 2
                    waiting += [part[half:], part[:half]]
        return good


def _blocks(path: Path) -> Iterator[bytes]:
    """Whole lines, some megabytes at a time."""
    kept = b""
    with open_stream(path) as stream:
        while data := stream.read(BLOCK_BYTES):
            block, newline, rest = data.rpartition(b"\n")
            if newline:
                yield kept + block + b"\n"
                kept = rest
            else:
                kept += data
    if kept:
        yield kept


def _parsed(block: bytes) -> pa.Table:
    options = pj.ReadOptions(block_size=len(block) + 1, use_threads=False)
    table = pj.read_json(io.BytesIO(block), options, pj.ParseOptions(newlines_in_values=False))
    table.validate(full=True)  # that its texts are UTF-8, above all
    return table


def _clash(error: Exception) -> str:
    changed = re.search(r"Column\(/(.*?)\) changed from (\w+) to (\w+)", str(error))
    if changed:
        return f"column {changed[1].replace('/[]', '').replace('/', '.')!r} is a {changed[3]}, a {changed[2]} before"
    return one_line(error)
