"""Devices: how much memory they have and how fast they compute."""

from __future__ import annotations

import functools
import os
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kerasline.components.core.errors import ParameterError, nearest

GIB = 1 << 30
# The floats are named by the Trainer's precisions.
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")


@dataclass(frozen=True)
class Device:
    """A place to train.

    Attributes:
        name: as its maker calls it.
        kind: cpu or gpu.
        memory_bytes: that a training may use.
        peak: floating-point operations a second by precision; empty where nobody knows.
        here: whether it can be measured.
    """

    name: str
    kind: Literal["cpu", "gpu"]
    memory_bytes: int
    peak: Mapping[str, float]
    here: bool = False


def _gpu(gib: float, float32: float, half: float, bfloat16: bool = True) -> tuple[int, dict[str, float]]:
    """Memory in bytes and dense peaks, from TFLOP/s; float32 is what matrices get (TF32 from Ampere on)."""
    peak = {"float32": float32 * 1e12, "mixed_float16": half * 1e12}
    return int(gib * GIB), peak | ({"mixed_bfloat16": half * 1e12} if bfloat16 else {})


# NVIDIA's data sheets, dense figures (without sparsity): memory in GiB, TFLOP/s of matrices in float32 (TF32
# where there is such) and in half precision.
KNOWN = {
    "T4": _gpu(15, 8.1, 65, bfloat16=False),
    "V100-16GB": _gpu(16, 15.7, 125, bfloat16=False),
    "V100-32GB": _gpu(32, 15.7, 125, bfloat16=False),
    "A10": _gpu(24, 62.5, 125),
    "L4": _gpu(24, 60, 121),
    "L40S": _gpu(48, 183, 362),
    "RTX-3090": _gpu(24, 35.6, 71),
    "RTX-4090": _gpu(24, 82.6, 165),
    "A100-40GB": _gpu(40, 156, 312),
    "A100-80GB": _gpu(80, 156, 312),
    "H100-PCIe": _gpu(80, 378, 756),
    "H100": _gpu(80, 494, 989),
    "H200": _gpu(141, 494, 989),
    "B200": _gpu(180, 1100, 2250),
}


def named(name: str) -> Device:
    """A well-known device, by its name or a part of it that only one has.

    Raises:
        ParameterError: none is called so, or several are.
    """
    wanted = name.lower().replace(" ", "-").replace("_", "-")
    exact = [known for known in KNOWN if known.lower() == wanted]
    found = exact or [known for known in KNOWN if known.lower().startswith(wanted)]
    if len(found) != 1:
        hint = f"one of {', '.join(found)}" if found else nearest(name, [*KNOWN, "auto", "cpu", "gpu"])
        raise ParameterError(f"--device {name}: no such device is known; {hint}")
    memory, peak = KNOWN[found[0]]
    return Device(f"NVIDIA {found[0]}", "gpu", memory, peak)


def at_hand(device: str = "auto") -> Device:
    """The device that training would use here; see `kerasline.components.trainer.devices.place`.

    Raises:
        ParameterError: it is not here.
    """
    from kerasline.components.trainer.devices import place

    placement = place(device)
    if placement.kind == "CPU":
        return Device(cpu_name(), "cpu", cpu_memory(), measured_peak(placement.name), here=True)
    index = int(placement.name.rpartition(":")[2])
    known = [peak for name, (_, peak) in KNOWN.items() if name.replace("-", " ") in placement.description]
    memory = _gpu_memory(index) or next((m for n, (m, _) in KNOWN.items() if n in placement.description), 0)
    return Device(placement.description, "gpu", memory, known[0] if known else measured_peak(placement.name), here=True)


def cpu_name() -> str:
    """The processor's model, with the cores that this process may use."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{model or platform.processor() or platform.machine()}, {cores} cores"


def cpu_memory() -> int:
    """What this process may use: of the machine, or of its container."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            text = Path(file).read_text().strip()
        except OSError:
            continue
        if text.isdecimal():
            total = min(total, int(text))
    return total


@functools.cache
def measured_peak(name: str, size: int = 2048) -> dict[str, float]:
    """Floating-point operations a second of a large matrix product, by precision: the best of half a second each.

    Args:
        name: of the device, as TensorFlow writes it.
        size: rows and columns of the matrices.
    """
    import tensorflow as tf

    found = {}
    with tf.device(name):
        for precision, dtype in zip(PRECISIONS, (tf.float32, tf.bfloat16, tf.float16)):
            matrix = tf.ones((size, size), dtype)
            product = tf.function(lambda: tf.reduce_sum(tf.cast(tf.matmul(matrix, matrix)[:1], tf.float32)))
            product().numpy()
            best, until = float("inf"), time.perf_counter() + 0.5
            while time.perf_counter() < until:
                began = time.perf_counter()
                product().numpy()
                best = min(best, time.perf_counter() - began)
            found[precision] = 2 * size**3 / best
    return found


def _gpu_memory(index: int) -> int:
    """In bytes, from the driver; 0 where it does not say."""
    import subprocess

    query = ["nvidia-smi", f"--id={index}", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        told = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return 0
    return int(told.split()[0]) << 20
