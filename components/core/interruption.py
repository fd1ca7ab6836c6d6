"""SIGTERM, answered at a good moment: long work first puts away what it has.

Whoever needs that says so with `deferred`; otherwise SIGTERM ends the process at once, which is safe.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any, NoReturn

ENDED_BY_SIGTERM = 128 + signal.SIGTERM

_requested = threading.Event()
_lock = threading.Lock()
_deferring = 0


def install() -> None:
    """Takes SIGTERM over; call it in the main thread of a program."""
    signal.signal(signal.SIGTERM, _on_sigterm)


@contextlib.contextmanager
def deferred() -> Iterator[threading.Event]:
    """While inside, SIGTERM sets the event that this gives; then put things away and call `obey`."""
    global _deferring
    with _lock:
        _deferring += 1
    try:
        yield _requested
    finally:
        with _lock:
            _deferring -= 1


def request() -> None:
    """What SIGTERM does, from any thread: for one who was told otherwise."""
    _requested.set()
    if not _deferring:
        obey()


def obey() -> NoReturn:
    """Ends the process at once, from any thread, with the exit status that SIGTERM has in a shell."""
    os._exit(ENDED_BY_SIGTERM)


def _on_sigterm(_number: int, _frame: Any) -> None:
    request()
