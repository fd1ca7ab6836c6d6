"""Rows that cannot be used: the end of the run, or set aside with their reasons."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import IO

from kerasline.components.core.errors import DataError


class Quarantine:
    """Takes the rows that a source cannot use.

    Args:
        path: the file of the rows set aside, one JSON object a line: `source` (where it stood),
            `reason`, `rows` (1, or how many are lost together), and `row` (its text) or `row_base64` (its bytes, where they are no text). None
            where a bad row is an error.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._file: IO[str] | None = None
        self.rows = 0

    @property
    def keeps(self) -> bool:
        """Whether bad rows are set aside, instead of ending the run."""
        return self._path is not None

    def put(self, where: str, reason: str, row: bytes | str, advice: str = "mend it", *, rows: int = 1) -> None:
        """Sets a row aside, or several that are lost together.

        Raises:
            DataError: bad rows are errors; says where, why and what to do.
        """
        if self._path is None:
            raise DataError(
                f"{where}: {reason}; {advice}, or set such rows aside with --set ExampleGen.bad_rows=quarantine"
            )
        if self._file is None:
            self._file = self._path.open("w", encoding="utf-8")
        entry = {"source": where, "reason": reason, "rows": rows, **_readable(row)}
        self._file.write(json.dumps(entry, ensure_ascii=False) + "\n")
        self.rows += rows

    def restart(self) -> None:
        """Forgets what was set aside: the data is read again from its beginning."""
        self.close()
        self.rows = 0
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _readable(row: bytes | str) -> dict[str, str]:
    try:
        return {"row": row if isinstance(row, str) else row.decode("utf-8")}
    except UnicodeDecodeError:
        return {"row_base64": base64.b64encode(row).decode("ascii")}
