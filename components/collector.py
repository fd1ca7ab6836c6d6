"""Python's garbage collector, spared work for nothing: TensorFlow is a million objects that stay to the end."""

from __future__ import annotations

import atexit
import contextlib
import gc
from collections.abc import Iterator


def spare_exit() -> None:
    """A process that ends gives its memory back whole; going through it first takes two seconds with TensorFlow."""
    atexit.register(gc.freeze)


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Of libraries in the `with`: nothing of them becomes garbage, then or later."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()
