"""The access log: a JSON object a line, written in blocks so that no request waits for a disk."""

from __future__ import annotations

import sys
from datetime import datetime, timezone
from typing import Any

import orjson

from components.errors import ParameterError

BLOCK = 1 << 16


class AccessLog:
    """Appends to a file, or to the standard output for `-`. Raises ParameterError."""

    def __init__(self, target: str):
        try:
            self._file = sys.stdout.buffer if target == "-" else open(target, "ab")  # noqa: SIM115
        except OSError as error:
            raise ParameterError(f"serve: --access-log {target}: {error.strerror}") from error
        self._closes = target != "-"
        self._lines: list[bytes] = []
        self._size = 0

    def write(self, entry: dict[str, Any]) -> None:
        """`entry["time"]` is in seconds since 1970; it is written in ISO 8601, in UTC."""
        entry["time"] = datetime.fromtimestamp(entry["time"], timezone.utc)
        line = orjson.dumps(entry, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z, default=str)
        self._lines.append(line)
        self._size += len(line)
        if self._size >= BLOCK:
            self.flush()

    def flush(self) -> None:
        if self._lines:
            lines, self._lines, self._size = self._lines, [], 0
            self._file.write(b"".join(lines))
            self._file.flush()

    def close(self) -> None:
        self.flush()
        if self._closes:
            self._file.close()
