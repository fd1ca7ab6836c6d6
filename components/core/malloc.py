"""Let the C library keep freed memory while a stage works, and return it to the system when the stage is done.

By default glibc returns freed blocks above some hundred kilobytes to the system at once. The next batch then gets fresh
pages, zeroed one by one, which can take twice as long as the model needs to compute the batch.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys

# Options of mallopt, from glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
# Total size kept, in bytes, and largest block kept. glibc rejects an M_MMAP_THRESHOLD above 32 MB.
MOST_KEPT, LARGEST_KEPT = 1 << 28, 1 << 25


def keep_freed() -> None:
    """Keep up to 256 MB of freed memory in this process, in blocks of up to 32 MB. Does nothing without glibc."""
    with contextlib.suppress(AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_TRIM_THRESHOLD, MOST_KEPT)
        mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT)


def give_back() -> None:
    """Return free memory to the system, for other libraries and processes."""
    if "pyarrow" in sys.modules:
        sys.modules["pyarrow"].default_memory_pool().release_unused()
    with contextlib.suppress(AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
