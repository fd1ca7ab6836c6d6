"""What is told of a process that ended: which signal it was, and the end of what it printed."""

from __future__ import annotations

import signal
from pathlib import Path


def signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # one of those that have no name
        return f"signal {number}"


def end_of(log: Path, most_bytes: int, start: int = 0) -> bytes:
    """The last bytes of a file, of those from `start` on."""
    with log.open("rb") as file:
        file.seek(max(start, log.stat().st_size - most_bytes))
        return file.read()
