"""Keep Python's garbage collector from scanning TensorFlow's million objects, which live until the process ends."""

from __future__ import annotations

import atexit
import contextlib
import gc
from collections.abc import Iterator


def skip_at_exit() -> None:
    """Skip the collection at exit, which takes two seconds with TensorFlow and frees nothing that exit does not."""
    atexit.register(freeze)


def freeze() -> None:
    """Exclude all current objects from collection. Pages shared with a parent process then stay shared."""
    gc.freeze()


def tune_for_server() -> None:
    """Tune the collector for a server after start-up: exclude what exists, and collect new objects less often."""
    gc.collect()
    freeze()
    gc.set_threshold(5_000, 20, 50)


@contextlib.contextmanager
def paused() -> Iterator[None]:
    """Disable collection while the block creates many objects, which a collection would scan again and again."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextlib.contextmanager
def paused_for_imports() -> Iterator[None]:
    """Disable collection while the block imports libraries, and exclude their objects afterwards."""
    with paused():
        try:
            yield
        finally:
            freeze()
