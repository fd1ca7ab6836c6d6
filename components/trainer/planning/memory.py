"""The memory that a training needs, and the largest batch size that fits a device."""

from __future__ import annotations

from dataclasses import dataclass

import keras

from kerasline.components.models.costs import LENGTH, Costs, model_costs
from kerasline.components.models.precision import Precision

# Memory of TensorFlow, its kernels and this program without a model: measured, resident after the first step.
RUNTIME_BYTES = {"cpu": 700 << 20, "gpu": 1200 << 20}


@dataclass(frozen=True)
class MemoryNeed:
    """The memory that a training needs.

    Attributes:
        costs: costs of a step.
        batch_size: number of rows per step.
        runtime_bytes: memory of the runtime.
        bytes_per_row: memory that each additional row needs.
    """

    costs: Costs
    batch_size: int
    runtime_bytes: int
    bytes_per_row: float

    @property
    def total_bytes(self) -> int:
        return self.costs.memory_bytes + self.runtime_bytes

    def largest_batch(self, memory_bytes: int) -> int:
        """Return the largest batch size that fits, or 0 if not even one row fits.

        Activations grow linearly with the batch size.
        """
        costs = self.costs
        constant = costs.weight_bytes + costs.optimizer_bytes + self.runtime_bytes
        fixed = costs.activation_bytes + costs.input_bytes - self.bytes_per_row * self.batch_size
        if constant + costs.gradient_bytes > memory_bytes or self.bytes_per_row <= 0:
            return 0
        return max(0, int((memory_bytes - constant - max(fixed, 0)) / self.bytes_per_row))


def memory_need(
    model: keras.Model, batch_size: int, kind: str, *, precision: Precision = "float32", length: int = LENGTH
) -> MemoryNeed:
    """Estimate the memory that training needs, by tracing steps of two batch sizes.

    Args:
        model: the model.
        batch_size: number of rows per step.
        kind: kind of the device, "cpu" or "gpu".
        precision: precision of the training. Defaults to float32.
        length: length of inputs whose length varies. Defaults to 128.
    """
    larger_size = max(2 * batch_size, 2)
    costs = model_costs(model, batch_size, precision=precision, length=length)
    larger = model_costs(model, larger_size, precision=precision, length=length)
    more = larger.activation_bytes + larger.input_bytes - costs.activation_bytes - costs.input_bytes
    return MemoryNeed(costs, batch_size, RUNTIME_BYTES[kind], more / (larger_size - batch_size))


def describe_shortage(model: keras.Model, batch_size: int, precision: Precision, device: str) -> str:
    """Return a message for when memory ran out: what is needed, what is available, and what would fit."""
    from kerasline.components.trainer.planning.hardware import local_device

    available = local_device(device)
    need = memory_need(model, batch_size, available.kind, precision=precision)
    largest = need.largest_batch(available.memory_bytes)
    advice = f"the largest batch_size that fits is about {largest:,}" if largest else "not even one row per step fits"
    return (
        f"a step of {batch_size:,} rows needs about {format_bytes(need.total_bytes)} in {precision}, {available.name} "
        f"has {format_bytes(available.memory_bytes)}; {advice}; to need less, use mixed precision, "
        "Trainer.rematerialize=true or accumulate_steps with a smaller batch_size (see `plan`)"
    )


def format_bytes(size: float) -> str:
    """Return a number of bytes as text: "1.5 GiB", "20 MiB", "700 KiB"."""
    if size >= 2**30:
        return f"{size / 2**30:.1f} GiB"
    return f"{size / 2**20:.0f} MiB" if size >= 10 << 20 else f"{size / 2**10:,.0f} KiB"
