"""Reading JSON Lines files."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.json as pj

from kerasline.components.core.errors import one_line
from kerasline.components.data.sources.compressed_files import open_stream
from kerasline.components.data.sources.source import UnifyingSource

BLOCK_BYTES = 4 << 20
_PARSE_ERRORS = (pa.ArrowInvalid, UnicodeDecodeError)  # the latter for column names


class JsonSource(UnifyingSource):
    """Reads files with one JSON object per line. Empty lines are skipped. Files may be compressed.

    Nested objects become columns named `outer.inner`, arrays become lists.

    Args:
        quarantine: receives lines that are not JSON objects, or whose values have another type than those before.
    """

    def _read(self, files: Sequence[Path]) -> Iterator[tuple[str, pa.RecordBatch]]:
        for path in files:
            line = 1
            for block in _blocks(path):
                where = f"{path}, from line {line}"
                for batch in self._parse_block(path, line, block).combine_chunks().to_batches():
                    yield where, batch
                line += block.count(b"\n")

    def _parse_block(self, path: Path, first: int, block: bytes) -> pa.Table:
        try:
            table = _parse(block)
            if table.num_rows == block.count(b"\n"):
                self.rows_read += table.num_rows
                return table
        except _PARSE_ERRORS:
            pass
        # The block has empty lines, a last line without a line break, or bad lines: check each line.
        lines = [(first + i, text) for i, text in enumerate(block.split(b"\n")) if text.strip()]
        self.rows_read += len(lines)
        good = self._consistent(path, self._well_formed(path, lines))
        return _parse(b"\n".join(text for _, text in good)) if good else pa.table({})

    def _well_formed(self, path: Path, lines: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
        """Return the lines that are JSON objects. Put the others into quarantine."""
        good = []
        for number, text in lines:
            try:
                if not isinstance(json.loads(text), dict):
                    raise ValueError("a JSON value, but not an object")
                good.append((number, text))
            except (ValueError, RecursionError) as error:
                self._quarantine.put(f"{path}, line {number}", one_line(error), text)
        return good

    def _consistent(self, path: Path, lines: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
        """Return the lines whose values have the types of the lines before. Put the others into quarantine."""
        good: list[tuple[int, bytes]] = []
        pending = [lines]
        while pending:  # a part that is consistent with `good` is taken whole, any other is halved
            part = pending.pop()
            if not part:
                continue
            try:
                _parse(b"\n".join(text for _, text in [*good, *part]))
                good += part
            except _PARSE_ERRORS as error:
                if len(part) == 1:
                    number, text = part[0]
                    self._quarantine.put(f"{path}, line {number}", _describe(error), text)
                else:
                    half = len(part) // 2
                    pending += [part[half:], part[:half]]
        return good


def _blocks(path: Path) -> Iterator[bytes]:
    """Yield blocks of complete lines, a few megabytes each."""
    rest = b""
    with open_stream(path) as stream:
        while data := stream.read(BLOCK_BYTES):
            block, newline, after = data.rpartition(b"\n")
            if newline:
                yield rest + block + b"\n"
                rest = after
            else:
                rest += data
    if rest:
        yield rest


def _parse(block: bytes) -> pa.Table:
    options = pj.ReadOptions(block_size=len(block) + 1, use_threads=False)
    table = pj.read_json(io.BytesIO(block), options, pj.ParseOptions(newlines_in_values=False))
    table.validate(full=True)  # above all that the text is UTF-8
    return table


def _describe(error: Exception) -> str:
    changed = re.search(r"Column\(/(.*?)\) changed from (\w+) to (\w+)", str(error))
    if changed:
        column = changed[1].replace("/[]", "").replace("/", ".")
        return f"column {column!r} changed from {changed[2]} to {changed[3]}"
    return one_line(error)
