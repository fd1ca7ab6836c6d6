"""What is to be trained, with what, and where the results go."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from kerasline.components.core.artifacts import Examples, Model, Preprocessing, Report


@dataclass(frozen=True)
class Job:
    """A training, in a form that another process can take.

    Attributes:
        settings: the Trainer's parameters, by their names.
        model: compiled; from there the weights start.
        trained, history: folders that exist, for the results.
        work_dir: for what may go when training ends.
        state_dir: for checkpoints, which outlast a kill; None keeps none.
    """

    settings: SimpleNamespace
    model: Model
    examples: Examples
    preprocessing: Preprocessing
    trained: Model
    history: Report
    work_dir: Path
    state_dir: Path | None

    @property
    def log_dir(self) -> Path:
        """For TensorBoard, while it is written."""
        return (self.state_dir or self.work_dir) / "tensorboard"

    @property
    def apart(self) -> bool:
        """Whether a setting wants a process of its own: TensorFlow takes it for a whole process, and only
        before it is at work."""
        asked = self.settings
        return bool(asked.deterministic or asked.distribution != "none" or asked.gpu_memory_limit)


class EarlyStoppingSettings(BaseModel):
    """When to stop, in the terms of `keras.callbacks.EarlyStopping`.

    Attributes:
        monitor: a figure of an epoch, such as val_loss.
        patience: epochs without a gain that are waited for.
        min_delta: a smaller gain is none.
        mode: whether less or more is better; by the figure's name when left out.
        restore_best: whether the trained model has the weights of the best epoch.
    """

    model_config = ConfigDict(extra="forbid")

    monitor: str = "val_loss"
    patience: int = Field(3, ge=0)
    min_delta: float = Field(0.0, ge=0)
    mode: Literal["min", "max"] | None = None
    restore_best: bool = True
