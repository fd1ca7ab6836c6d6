"""The memory and the peak performance of devices: those of this machine, and well-known GPUs."""

from __future__ import annotations

import functools
import os
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from kerasline.components.core.errors import ParameterError, nearest

if TYPE_CHECKING:
    from kerasline.components.models.precision import Precision


GIB = 1 << 30
PRECISIONS: tuple[Precision, ...] = ("float32", "mixed_bfloat16", "mixed_float16")


@dataclass(frozen=True)
class Device:
    """A device to train on.

    Attributes:
        name: the manufacturer's name.
        kind: cpu or gpu.
        memory_bytes: memory that a training may use.
        peak: floating-point operations per second by precision, empty if unknown.
        is_local: whether it is a device of this machine, where durations can be measured.
    """

    name: str
    kind: Literal["cpu", "gpu"]
    memory_bytes: int
    peak: Mapping[str, float]
    is_local: bool = False


def _gpu(gib: float, float32: float, half: float, bfloat16: bool = True) -> tuple[int, dict[str, float]]:
    """Return memory in bytes and peaks by precision. Peaks are given in TFLOP/s."""
    peak = {"float32": float32 * 1e12, "mixed_float16": half * 1e12}
    return int(gib * GIB), peak | ({"mixed_bfloat16": half * 1e12} if bfloat16 else {})


# From NVIDIA's data sheets: memory in GiB, TFLOP/s of dense matrix products in float32 (TF32 from Ampere on) and in
# half precision, without sparsity.
KNOWN_GPUS = {
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


def known_device(name: str) -> Device:
    """Return a well-known GPU by its name, or by a prefix that only one name has.

    Raises:
        ParameterError: no GPU or several GPUs match.
    """
    key = name.lower().replace(" ", "-").replace("_", "-")
    exact = [known for known in KNOWN_GPUS if known.lower() == key]
    found = exact or [known for known in KNOWN_GPUS if known.lower().startswith(key)]
    if len(found) != 1:
        hint = f"one of {', '.join(found)}" if found else nearest(name, [*KNOWN_GPUS, "auto", "cpu", "gpu"])
        raise ParameterError(f"--device {name}: no such device is known; {hint}")
    memory, peak = KNOWN_GPUS[found[0]]
    return Device(f"NVIDIA {found[0]}", "gpu", memory, peak)


def local_device(device: str = "auto") -> Device:
    """Return the device of this machine that training would use.

    Args:
        device: see `kerasline.components.trainer.devices.choose_device`.

    Raises:
        ParameterError: it is not available.
    """
    from kerasline.components.trainer.devices import choose_device

    placement = choose_device(device)
    if placement.kind == "CPU":
        return Device(cpu_name(), "cpu", cpu_memory(), measured_peak(placement.name), is_local=True)
    index = int(placement.name.rpartition(":")[2])
    known = [KNOWN_GPUS[name] for name in KNOWN_GPUS if name.replace("-", " ") in placement.description]
    memory = _gpu_memory(index) or (known[0][0] if known else 0)
    peak = known[0][1] if known else measured_peak(placement.name)
    return Device(placement.description, "gpu", memory, peak, is_local=True)


def cpu_name() -> str:
    """Return the model of the processor and the number of cores that this process may use."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{model or platform.processor() or platform.machine()}, {cores} cores"


def cpu_memory() -> int:
    """Return the memory in bytes that this process may use, limited by the machine or its container."""
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
    """Measure the floating-point operations per second of a matrix product, half a second for each precision.

    Args:
        name: TensorFlow's name of the device.
        size: number of rows and columns of the matrices. Defaults to 2048.
    """
    import tensorflow as tf

    found: dict[str, float] = {}
    with tf.device(name):
        for precision, dtype in zip(PRECISIONS, (tf.float32, tf.bfloat16, tf.float16)):
            matrix = tf.ones((size, size), dtype)
            product = tf.function(lambda x: tf.reduce_sum(tf.cast(tf.matmul(x, x)[:1], tf.float32)), autograph=False)
            product(matrix).numpy()
            best, end = float("inf"), time.perf_counter() + 0.5
            while time.perf_counter() < end:
                start = time.perf_counter()
                product(matrix).numpy()
                best = min(best, time.perf_counter() - start)
            found[precision] = 2 * size**3 / best
    return found


def _gpu_memory(index: int) -> int:
    """Return the memory of a GPU in bytes, from the driver, or 0 if it is unknown."""
    import subprocess

    query = ["nvidia-smi", f"--id={index}", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        output = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return 0
    return int(output.split()[0]) << 20
