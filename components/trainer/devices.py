"""The device that a model is trained on, its memory and the precision that suits it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import tensorflow as tf

from kerasline.components.core.errors import ParameterError
from kerasline.components.models.precision import Precision


@dataclass(frozen=True)
class Placement:
    """A device of this machine.

    Attributes:
        name: TensorFlow's name, such as "/GPU:0".
        kind: "CPU" or "GPU".
        description: name for people, such as "NVIDIA T4".
        capability: compute capability of a GPU, such as (7, 5).
    """

    name: str
    kind: str
    description: str
    capability: tuple[int, int] | None = None


def choose_device(device: str, memory_limit: int | None = None) -> Placement:
    """Choose a device and configure its memory.

    Args:
        device: "auto" (a GPU if there is one), "cpu", "gpu" or "gpu:1".
        memory_limit: limit of GPU memory in MiB. If None, TensorFlow allocates more as needed instead of everything
            at once.

    Raises:
        ParameterError: there is no such device, or its memory cannot be limited (any more).
    """
    match = re.fullmatch(r"(auto|cpu|gpu)(?::(\d+))?", device.lower())
    if not match or match[2] and match[1] != "gpu":
        raise ParameterError(f"Trainer.device: expected auto, cpu, gpu, gpu:0, gpu:1 …, received {device!r}")
    gpus, index = tf.config.list_physical_devices("GPU"), int(match[2] or 0)
    if match[1] == "gpu" and index >= len(gpus):
        raise ParameterError(
            f"Trainer.device: {device!r} is not available, TensorFlow finds {len(gpus) or 'no'} GPUs; check the driver "
            "and CUDA (pip install 'kerasline[gpu]'), or set Trainer.device=cpu"
        )
    if match[1] == "cpu" or not gpus:
        if memory_limit:
            raise ParameterError("Trainer.gpu_memory_limit: training runs on the CPU; remove this parameter")
        return Placement("/CPU:0", "CPU", "CPU")
    _configure_memory(gpus[index], memory_limit)
    details = tf.config.experimental.get_device_details(gpus[index])
    return Placement(f"/GPU:{index}", "GPU", details.get("device_name", "GPU"), details.get("compute_capability"))


def choose_precision(precision: Precision | Literal["auto"], placement: Placement) -> Precision:
    """Return the precision, resolving "auto" by the device.

    GPUs have bfloat16 units from compute capability 8 on and float16 units from 7 on (CUDA C++ Programming Guide,
    "Compute Capabilities"). CPUs without AMX or the like gain from neither.
    """
    if precision != "auto":
        return precision
    capability = placement.capability or (0, 0)
    return "mixed_bfloat16" if capability >= (8, 0) else "mixed_float16" if capability >= (7, 0) else "float32"


def _configure_memory(gpu: tf.config.PhysicalDevice, memory_limit: int | None) -> None:
    try:
        if memory_limit is None:
            tf.config.experimental.set_memory_growth(gpu, True)
        else:
            limit = tf.config.LogicalDeviceConfiguration(memory_limit=memory_limit)
            tf.config.set_logical_device_configuration(gpu, [limit])
    except RuntimeError as error:
        # TensorFlow already uses this GPU: its growth setting stays. Trainings with a limit run in a process of
        # their own (see `process`), where this cannot happen.
        if memory_limit is not None:
            raise ParameterError(f"Trainer.gpu_memory_limit: {error}") from error
