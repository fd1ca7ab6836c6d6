"""SIGTERM, handled at a safe point: long work saves its state first.

By default SIGTERM ends the process at once, which is safe. Code with state to save uses `deferred`.
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
    """Install the handler of SIGTERM. Call it in the main thread of a program."""
    signal.signal(signal.SIGTERM, _on_sigterm)


@contextlib.contextmanager
def deferred() -> Iterator[threading.Event]:
    """Within the block, let SIGTERM only set the event that this yields. Save the state, then call `obey`."""
    global _deferring
    with _lock:
        _deferring += 1
    try:
        yield _requested
    finally:
        with _lock:
            _deferring -= 1


def request() -> None:
    """Do what SIGTERM does, from any thread."""
    _requested.set()
    if not _deferring:
        obey()


def obey() -> NoReturn:
    """End the process at once, from any thread, with the exit status that shells give to SIGTERM."""
    os._exit(ENDED_BY_SIGTERM)


def _on_sigterm(_number: int, _frame: Any) -> None:
    request()
