"""The access log: one JSON object per line, written in blocks so that no request waits for a disk."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

import orjson

from kerasline.components.core.errors import ParameterError

log = logging.getLogger(__name__)
BLOCK_BYTES = 1 << 16


class AccessLog:
    """Append entries to a file, or to standard output for `-`.

    Entries that cannot be written, for example because the disk is full, are lost. The server's own log reports this
    once, and no request fails.

    Raises:
        ParameterError: the file cannot be opened.
    """

    def __init__(self, target: str):
        try:
            self._file = sys.stdout.buffer if target == "-" else open(target, "ab")
        except OSError as error:
            raise ParameterError(f"serve: --access-log {target}: {error.strerror}") from error
        self._target, self._closes, self._fails = target, target != "-", False
        self._lines: list[bytes] = []
        self._size = 0

    def write(self, entry: dict[str, Any]) -> None:
        """Write an entry. `entry["time"]` is in seconds since 1970 and is written as ISO 8601 in UTC."""
        entry["time"] = datetime.fromtimestamp(entry["time"], UTC)
        try:
            line = orjson.dumps(entry, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z)
        except TypeError:  # a lone surrogate from a client's JSON
            line = json.dumps(entry, default=datetime.isoformat).encode() + b"\n"
        self._lines.append(line)
        self._size += len(line)
        if self._size >= BLOCK_BYTES:
            self.flush()

    def flush(self) -> None:
        if self._lines:
            lines, self._lines, self._size = self._lines, [], 0
            try:
                self._file.write(b"".join(lines))
                self._file.flush()
                self._fails = False
            except OSError as error:
                self._failed(error)

    def reopen(self) -> None:
        """Open the file again, after another program has moved it away."""
        self.flush()
        if self._closes:
            try:
                self._file, before = open(self._target, "ab"), self._file
                before.close()
            except OSError as error:
                self._failed(error)

    def close(self) -> None:
        self.flush()
        try:
            if self._closes:
                self._file.close()
        except OSError as error:
            self._failed(error)

    def _failed(self, error: OSError) -> None:
        if not self._fails:
            log.warning("access log %s: %s; lines are lost until this is fixed", self._target, error.strerror)
        self._fails = True
