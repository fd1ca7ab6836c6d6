"""Progress of a fold, reported while Beam workers run in other processes."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

POLLING_SECONDS = 0.3


def record_start(file: Path, name: str) -> None:
    """Record the start of an element: append a line, which is atomic."""
    with file.open("a", encoding="utf-8") as lines:
        lines.write(f"{name}\n")


@contextlib.contextmanager
def report_progress(file: Path, what: str, total: int, report: Callable[[str], None]) -> Iterator[None]:
    """Report "WHAT 3 of 14: fare" within the context.

    Args:
        file: the file that workers append to with `record_start`.
    """
    finished = threading.Event()

    def watch() -> None:
        reported = 0
        while True:
            ended = finished.wait(POLLING_SECONDS)
            lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
            if len(lines) > reported:
                reported = len(lines)
                report(f"{what} {min(reported, total)} of {total}: {lines[-1]}")
            if ended:
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        finished.set()
        watcher.join()
