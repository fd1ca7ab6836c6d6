"""Rows that cannot be used: an error, or kept in a file with the reason."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import IO

from kerasline.components.core.errors import DataError


class Quarantine:
    """Receives the rows that a source cannot use.

    Args:
        path: JSON Lines file for bad rows. Each entry has `source` (the location), `reason`, `rows` (the number of rows
            that are lost together, usually 1), and `row` (the text) or `row_base64` (the bytes, if they are not UTF-8).
            None makes a bad row an error.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._file: IO[str] | None = None
        self.rows = 0

    @property
    def enabled(self) -> bool:
        """Whether bad rows are kept in the file instead of raising an error."""
        return self._path is not None

    def put(self, where: str, reason: str, row: bytes | str, advice: str = "fix it", *, rows: int = 1) -> None:
        """Add a bad row, or several that are lost together.

        Args:
            where: location of the row.
            advice: how to fix the data, for the error message.

        Raises:
            DataError: there is no file for bad rows.
        """
        if self._path is None:
            raise DataError(
                f"{where}: {reason}; {advice}, or put such rows into quarantine with "
                "--set ExampleGen.bad_rows=quarantine"
            )
        if self._file is None:
            self._file = self._path.open("w", encoding="utf-8")
        entry = {"source": where, "reason": reason, "rows": rows, **_readable(row)}
        self._file.write(json.dumps(entry, ensure_ascii=False) + "\n")
        self.rows += rows

    def restart(self) -> None:
        """Delete all entries, because the data is read again from the start."""
        self.close()
        self.rows = 0
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _readable(row: bytes | str) -> dict[str, str]:
    if isinstance(row, str):
        return {"row": row}
    try:
        return {"row": row.decode("utf-8")}
    except UnicodeDecodeError:
        return {"row_base64": base64.b64encode(row).decode("ascii")}
