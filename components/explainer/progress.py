"""How far a fold has come, told while Beam's workers are at it, in whatever processes they are."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

SECONDS = 0.3


def begun(file: Path, name: str) -> None:
    """Notes that work on something has begun: a line, which the system appends whole."""
    with file.open("a", encoding="utf-8") as lines:
        lines.write(f"{name}\n")


@contextlib.contextmanager
def watched(file: Path, what: str, total: int, report: Callable[[str], None]) -> Iterator[None]:
    """Reports "WHAT 3 of 14: fare" while the work goes on.

    Args:
        file: to which workers append by `begun`.
    """
    over = threading.Event()

    def watch() -> None:
        told = 0
        while True:
            ended = over.wait(SECONDS)
            lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
            if len(lines) > told:
                told = len(lines)
                report(f"{what} {min(told, total)} of {total}: {lines[-1]}")
            if ended:
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
