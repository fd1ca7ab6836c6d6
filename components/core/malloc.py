"""Freed memory: kept while a stage works, for its next batch, and given back when the stage is done.

By default the C library of Linux gives what it frees back to the system as soon as it is some hundred kilobytes, and
fetches it again, page by page and zeroed, for the next batch: of a batch that passes through a model, that can take
twice as long as to compute it.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys

# Of glibc's malloc.h. Any larger threshold than 32 MB for what is fetched by itself is refused.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
MOST_KEPT, LARGEST_KEPT = 1 << 28, 1 << 25


def keep_freed() -> None:
    """From now on up to 256 MB of freed memory stay, of pieces of up to 32 MB; with another C library, as it likes."""
    with contextlib.suppress(AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_TRIM_THRESHOLD, MOST_KEPT)
        mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT)


def give_back() -> None:
    """What is free goes back to the system: the next need may be another library's, or another process's."""
    if "pyarrow" in sys.modules:
        sys.modules["pyarrow"].default_memory_pool().release_unused()
    with contextlib.suppress(AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
