"""The settings of Trainer, as other modules and processes receive them. `Trainer` documents each one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Len, Lt
from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[int, Gt(0)]
Auto = Literal["auto"]
HIGHER_IS_BETTER = ("accuracy", "auc", "precision", "recall", "f1_score", "fbeta_score", "r2_score", "iou", "bleu")


def lower_is_better(metric: str) -> bool:
    """Return whether lower values of a metric are better, judged by the end of its name (`val_loss`, `val_auc`)."""
    return not metric.endswith(HIGHER_IS_BETTER)


class EarlyStoppingSettings(BaseModel):
    """When to stop training early, with the meaning that `keras.callbacks.EarlyStopping` gives these arguments.

    Args:
        monitor: metric of an epoch. Defaults to `"val_loss"`.
        patience: number of epochs without improvement before training stops. Defaults to 3.
        min_delta: smallest change that counts as an improvement. Defaults to 0.
        mode: `"min"` or `"max"`. By default it is inferred from the name of the metric.
        restore_best: whether to restore the weights of the best epoch. Defaults to True.
    """

    model_config = ConfigDict(extra="forbid")

    monitor: str = "val_loss"
    patience: int = Field(3, ge=0)
    min_delta: float = Field(0.0, ge=0)
    mode: Literal["min", "max"] | None = None
    restore_best: bool = True

    @property
    def lower_is_better(self) -> bool:
        return lower_is_better(self.monitor) if self.mode is None else self.mode == "min"


@dataclass(frozen=True, kw_only=True)
class TrainerSettings:
    """The parameters of Trainer, which documents them."""

    epochs: Positive | None = None
    steps: Positive | None = None
    batch_size: Positive = 32
    seed: int = 0
    split: str = "train"
    eval_split: str | None = "eval"
    shuffle: bool = True

    optimizer: str | dict[str, Any] | None = None
    loss: str | dict[str, Any] | None = None
    metrics: list[Any] | dict[str, Any] | None = None
    class_weight: Literal["balanced"] | dict[str, float] | None = None
    accumulate_steps: Positive = 1
    clip_norm: Annotated[float, Gt(0)] | None = None
    clip_value: Annotated[float, Gt(0)] | None = None
    ema: Annotated[float, Ge(0), Lt(1)] | None = None
    early_stopping: EarlyStoppingSettings | None = None
    function: Callable[..., Any] | None = None

    device: str = "auto"
    gpu_memory_limit: Positive | None = None
    precision: Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"] = "auto"
    distribution: Literal["none", "mirrored", "multi_worker"] = "none"
    replicas: Positive | None = None
    workers: Positive | Annotated[list[str], Len(1)] | None = None
    launch: str | None = None
    max_restarts: Annotated[int, Ge(0)] = 3
    worker_timeout: Annotated[float, Gt(0)] = 60.0
    stall_timeout: Annotated[float, Gt(0)] | None = 900.0
    jit_compile: bool | Auto = "auto"
    steps_per_execution: Positive | Auto = "auto"
    rematerialize: bool | list[str] = False
    deterministic: bool = False

    checkpoint_seconds: Annotated[float, Gt(0)] | None = 60.0
    checkpoint_steps: Positive | None = None
    checkpoint_epochs: Positive | None = None
    keep_checkpoints: Positive = 2
    on_non_finite: Literal["stop", "roll_back"] = "stop"
    tensorboard: bool = True
    profile_steps: Annotated[list[Positive], Len(2, 2)] | None = None
