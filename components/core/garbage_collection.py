"""Python's garbage collector, spared work for nothing: TensorFlow is a million objects that stay to the end."""

from __future__ import annotations

import atexit
import contextlib
import gc
from collections.abc import Iterator


def spare_exit() -> None:
    """A process that ends gives its memory back whole; going through it first takes two seconds with TensorFlow."""
    atexit.register(keep)


def keep() -> None:
    """All that is there stays: never gone through again, nor written into where it is shared with a parent process."""
    gc.freeze()


def settle() -> None:
    """Of a server that is ready for its work: what it was made of stays, and requests leave few circles behind."""
    gc.collect()
    keep()
    gc.set_threshold(5_000, 20, 50)


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Of libraries in the `with`: nothing of them becomes garbage, then or later."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        keep()
        if was_enabled:
            gc.enable()
