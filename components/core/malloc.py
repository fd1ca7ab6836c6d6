"""Let the C library keep freed memory while a stage works, and return it to the system when the stage is done.

By default glibc returns freed blocks above a few hundred kilobytes to the system at once. The next batch then gets
fresh pages, zeroed one by one, which can take twice as long as the model needs to compute the batch.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys

# Options of mallopt, from glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
# Largest total, and largest block, of freed memory to retain. glibc rejects an M_MMAP_THRESHOLD above 32 MB.
RETAINED_BYTES, LARGEST_BLOCK_BYTES = 1 << 28, 1 << 25
# Collecting garbage takes up to half a second, which only large weights are worth.
LARGE_MODEL_BYTES = 1 << 26


def retain_freed() -> None:
    """Retain up to 256 MB of freed memory in this process, in blocks of up to 32 MB. Does nothing without glibc."""
    with contextlib.suppress(AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_TRIM_THRESHOLD, RETAINED_BYTES)
        mallopt(M_MMAP_THRESHOLD, LARGEST_BLOCK_BYTES)


def release_free() -> None:
    """Collect garbage, and return free memory to the system, for other libraries and processes.

    A Keras model refers to itself, so that its weights stay in memory until garbage is collected.
    """
    gc.collect()
    if "pyarrow" in sys.modules:
        sys.modules["pyarrow"].default_memory_pool().release_unused()
    with contextlib.suppress(AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def release_model(weight_bytes: int) -> None:
    """Release the memory of a model that is no longer referenced, if its weights are large."""
    if weight_bytes > LARGE_MODEL_BYTES:
        release_free()
