"""Freed memory is reused for the next batch, and released after a stage."""

import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="other C libraries have other policies for freed memory"
)

# Batches of 64 MB in blocks of 8 MB. With pages of 4 kB, a batch in new memory causes 16,384 page faults.
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

if sys.argv[1] == "retain":
    malloc.retain_freed()
batch()
before = faults()
for _ in range(20):
    batch()
new_pages, peak = faults() - before, held()
malloc.release_free()
print(new_pages, peak - held())
"""


def batches(mode):
    done = subprocess.run([sys.executable, "-c", BATCHES, mode], capture_output=True, text=True, check=True)
    return map(int, done.stdout.split())


def test_retained_memory_is_reused_until_it_is_released():
    new_pages, released = batches("retain")
    assert new_pages < 16384  # fewer than one of the twenty batches
    assert released > 50 << 20


def test_without_retention_each_batch_faults_in_new_pages():
    new_pages, _ = batches("default")
    assert new_pages > 2 * 16384
