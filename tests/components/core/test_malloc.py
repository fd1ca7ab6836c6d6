"""Freed memory is not fetched anew for each batch, and is given back when a stage is done."""

import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="other C libraries keep freed memory as they like"
)

# Batches of 64 MB in pieces of 8; a page is 4 kB, so a batch whose memory is fetched anew faults 16,384 times.
BATCHES = """
import resource, sys
import numpy as np
from kerasline.components.core import malloc

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def held():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()

def batch():
    return [np.ones(1 << 20) for _ in range(8)]

if sys.argv[1] == "kept":
    malloc.retain_freed()
batch()
before = faults()
for _ in range(20):
    batch()
fetched, most = faults() - before, held()
malloc.release_free()
print(fetched, most - held())
"""


def batches(how):
    done = subprocess.run([sys.executable, "-c", BATCHES, how], capture_output=True, text=True, check=True)
    return map(int, done.stdout.split())


def test_retained_memory_is_reused_until_it_is_released():
    fetched, given_back = batches("kept")
    assert fetched < 16384  # once at the most, in twenty batches
    assert given_back > 50 << 20


def test_without_retention_each_batch_faults_in_new_pages():
    fetched, _ = batches("as the C library likes")
    assert fetched > 2 * 16384
