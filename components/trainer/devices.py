"""Where a model is trained: on which device, with how much of its memory, in which precision."""

from __future__ import annotations

import re
from dataclasses import dataclass

import tensorflow as tf

from kerasline.components.core.errors import ParameterError
from kerasline.components.trainer.precision import Precision


@dataclass(frozen=True)
class Placement:
    """A device that is there.

    Attributes:
        name: as TensorFlow writes it, such as "/GPU:0".
        kind: "CPU" or "GPU".
        description: for people, such as "NVIDIA T4".
        capability: a GPU's compute capability, such as (7, 5).
    """

    name: str
    kind: str
    description: str
    capability: tuple[int, int] | None = None


def place(device: str, memory_limit: int | None = None) -> Placement:
    """Chooses the device and prepares its memory.

    Args:
        device: "auto" (a GPU where there is one), "cpu", "gpu" or "gpu:1".
        memory_limit: of a GPU, in MiB, at most; None lets TensorFlow take more as it needs it,
            instead of everything at once.

    Raises:
        ParameterError: no such device here; the memory cannot be limited any more, or not at all.
    """
    wanted = re.fullmatch(r"(auto|cpu|gpu)(?::(\d+))?", device.lower())
    if not wanted or wanted[2] and wanted[1] != "gpu":
        raise ParameterError(f"Trainer.device: {device!r} given; one of auto, cpu, gpu, gpu:0, gpu:1 … wanted")
    gpus, index = tf.config.list_physical_devices("GPU"), int(wanted[2] or 0)
    if wanted[1] == "gpu" and index >= len(gpus):
        there = f"{len(gpus)} of them" if gpus else "none"
        raise ParameterError(
            f"Trainer.device: {device!r} asked for, and TensorFlow finds {there} here; check the driver and "
            "CUDA (pip install 'kerasline[gpu]'), or set Trainer.device=cpu"
        )
    if wanted[1] == "cpu" or not gpus:
        if memory_limit:
            raise ParameterError("Trainer.gpu_memory_limit: training runs on the CPU; leave it out")
        return Placement("/CPU:0", "CPU", "CPU")
    _prepare_memory(gpus[index], memory_limit)
    details = tf.config.experimental.get_device_details(gpus[index])
    return Placement(f"/GPU:{index}", "GPU", details.get("device_name", "GPU"), details.get("compute_capability"))


def precision_for(precision: Precision | str, placement: Placement) -> Precision:
    """The precision that "auto" means on a device.

    bfloat16 has units of its own from compute capability 8 on, float16 from 7 on (CUDA C++ Programming
    Guide, "Compute Capabilities"); CPUs gain from neither unless they have AMX or the like.
    """
    if precision != "auto":
        return precision
    capability = placement.capability or (0, 0)
    return "mixed_bfloat16" if capability >= (8, 0) else "mixed_float16" if capability >= (7, 0) else "float32"


def _prepare_memory(gpu: tf.config.PhysicalDevice, memory_limit: int | None) -> None:
    try:
        if memory_limit is None:
            tf.config.experimental.set_memory_growth(gpu, True)
        else:
            limit = tf.config.LogicalDeviceConfiguration(memory_limit=memory_limit)
            tf.config.set_logical_device_configuration(gpu, [limit])
    except RuntimeError as error:
        # TensorFlow is at work on this GPU already: growth stays as it is. A limit is set in a process
        # of its own (see `process`), where this cannot happen.
        if memory_limit is not None:
            raise ParameterError(f"Trainer.gpu_memory_limit: {error}") from error
