"""Whether a training fits a device, and with how many rows a step."""

from __future__ import annotations

from dataclasses import dataclass

import keras

from kerasline.components.models.costs import LENGTH, Costs, model_costs

# TensorFlow, its kernels and this program, beside the model: measured, resident after the first step.
RUNTIME_BYTES = {"cpu": 700 << 20, "gpu": 1200 << 20}


@dataclass(frozen=True)
class Need:
    """What a training takes of a device.

    Attributes:
        costs: of a step of `batch_size` rows.
        batch_size: rows a step.
        runtime_bytes: beside the model.
        bytes_a_row: by which each further row makes it more.
    """

    costs: Costs
    batch_size: int
    runtime_bytes: int
    bytes_a_row: float

    @property
    def total_bytes(self) -> int:
        return self.costs.memory_bytes + self.runtime_bytes

    def largest_batch(self, memory_bytes: int) -> int:
        """The most rows a step that fit; 0 where not even one does.

        Activations grow with the rows by the same for each, from what two batches take.
        """
        costs = self.costs
        lasting = costs.weight_bytes + costs.optimizer_bytes + self.runtime_bytes
        fixed = costs.activation_bytes + costs.input_bytes - self.bytes_a_row * self.batch_size
        if lasting + costs.gradient_bytes > memory_bytes or self.bytes_a_row <= 0:
            return 0
        return max(0, int((memory_bytes - lasting - max(fixed, 0)) / self.bytes_a_row))


def need(model: keras.Model, batch_size: int, kind: str, *, precision: str = "float32", length: int = LENGTH) -> Need:
    """Traces steps of two batches.

    Args:
        kind: of the device, cpu or gpu.
    """
    other = max(2 * batch_size, 2)
    costs = model_costs(model, batch_size, precision=precision, length=length)
    larger = model_costs(model, other, precision=precision, length=length)
    more = larger.activation_bytes + larger.input_bytes - costs.activation_bytes - costs.input_bytes
    return Need(costs, batch_size, RUNTIME_BYTES[kind], more / (other - batch_size))


def would_have_said(model: keras.Model, batch_size: int, precision: str, device: str) -> str:
    """What to say when memory ran out: what was needed, what there is, and what would fit."""
    from kerasline.components.trainer.planning import devices

    here = devices.at_hand(device)
    needed = need(model, batch_size, here.kind, precision=precision)
    fits = needed.largest_batch(here.memory_bytes)
    advice = f"the largest batch_size that fits is about {fits:,}" if fits else "not even one row a step fits"
    return (
        f"a step of {batch_size:,} rows takes about {gib(needed.total_bytes)} in {precision}, "
        f"{here.name} has {gib(here.memory_bytes)}; {advice}; mixed precision, Trainer.rematerialize=true or "
        "accumulate_steps with a smaller batch_size take less (see `plan`)"
    )


def gib(size: float) -> str:
    """Bytes for people."""
    if size >= 2**30:
        return f"{size / 2**30:.1f} GiB"
    return f"{size / 2**20:.0f} MiB" if size >= 10 << 20 else f"{size / 2**10:,.0f} KiB"
