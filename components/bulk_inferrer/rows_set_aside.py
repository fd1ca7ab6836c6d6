"""Rows that failed, as `kerasline.components.data.quarantine` writes those that a source could not use."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa


def written_rows(batch: pa.RecordBatch, failed: list[tuple[int, str]], *, first: int, source: str) -> Iterator[str]:
    """A JSON object a line: `source`, `reason`, `rows` (1) and `row`, the columns that were read.

    Args:
        failed: places in the batch, and reasons.
        first: the place of the batch's first row in its shard.
    """
    for place, reason in failed:
        (row,) = batch.slice(place, 1).to_pylist()
        entry = {"source": f"{source}, row {first + place}", "reason": reason, "rows": 1, "row": row}
        yield json.dumps(entry, ensure_ascii=False, default=_readable) + "\n"


def _readable(value: Any) -> Any:
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            return {"base64": base64.b64encode(value).decode("ascii")}
    return str(value)
