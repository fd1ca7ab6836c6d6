"""The settings of Trainer, as other modules and processes receive them. `Trainer` documents each one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge, Len, Lt
from pydantic import BaseModel, ConfigDict, Field

from kerasline.components.core.parameters import PositiveFloat, PositiveInt, SplitName
from kerasline.components.evaluator.settings import BoxFormat, EvaluatorSettings, TextOptions

if TYPE_CHECKING:
    from kerasline.components.data.bucketing import Bucketing

Auto = Literal["auto"]
ClassWeight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
HIGHER_IS_BETTER = (
    *("accuracy", "auc", "precision", "recall", "f1_score", "fbeta_score", "r2_score", "iou"),
    *("bleu", "chrf", "chrf++", "rouge1", "rouge2", "rougeL", "rougeLsum", "exact_match"),
    *("_ap", "_ap_50", "_ap_75"),
)


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


class Phase(BaseModel):
    """A part of a training, which trains some layers at a learning rate of its own.

    Args:
        epochs: number of epochs. The last phase has none: it lasts to the end of the training.
        freeze: patterns of the layers that the phase leaves unchanged, such as `backbone`, beside those that
            ModelBuilder froze. Defaults to `[]`.
        learning_rate: a number, or the name or dict of a schedule. By default that of the optimizer.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: PositiveInt | None = None
    freeze: list[str] = Field(default_factory=list)
    learning_rate: PositiveFloat | str | dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class TrainerSettings:
    """The parameters of Trainer, which documents them."""

    epochs: PositiveInt | None = None
    steps: PositiveInt | None = None
    batch_size: PositiveInt = 32
    bucket_by: str | Annotated[list[str], Len(1)] | None = None
    tokens_a_batch: PositiveInt | None = None
    frames_a_batch: PositiveInt | None = None
    seed: int = 0
    split: SplitName = "train"
    eval_split: str | None = "eval"
    shuffle: bool = True
    phases: Annotated[list[Phase], Len(1)] | None = None

    optimizer: str | dict[str, Any] | None = None
    loss: str | dict[str, Any] | None = None
    metrics: list[Any] | dict[str, Any] | None = None
    class_weight: Literal["balanced"] | Annotated[dict[str | int, ClassWeight], Len(1)] | None = None
    accumulate_steps: PositiveInt = 1
    clip_norm: PositiveFloat | None = None
    clip_value: PositiveFloat | None = None
    ema: Annotated[float, Ge(0), Lt(1)] | None = None
    early_stopping: EarlyStoppingSettings | None = None
    calibrate: Literal["temperature"] | None = None
    answer: Callable[..., Any] | None = None
    evaluate_answers: PositiveInt | None = None
    task: str | dict[str, str] | None = None
    reference: str | dict[str, str] | None = None
    text_metrics: Annotated[list[str], Len(1)] = field(
        default_factory=lambda: ["bleu", "chrf", "wer", "cer", "exact_match"]
    )
    text_options: TextOptions = field(default_factory=TextOptions)
    detection_columns: dict[str, str] = field(default_factory=dict)
    box_format: BoxFormat = "xyxy"
    function: Callable[..., Any] | None = None

    device: str = "auto"
    gpu_memory_limit: PositiveInt | None = None
    precision: Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"] = "auto"
    distribution: Literal["none", "mirrored", "multi_worker"] = "none"
    replicas: PositiveInt | None = None
    workers: PositiveInt | Annotated[list[str], Len(1)] | None = None
    launch: str | None = None
    max_restarts: Annotated[int, Ge(0)] = 3
    worker_timeout: PositiveFloat = 60.0
    stall_timeout: PositiveFloat | None = 900.0
    jit_compile: bool | Auto = "auto"
    steps_per_execution: PositiveInt | Auto = "auto"
    rematerialize: bool | list[str] = False
    deterministic: bool = False

    checkpoint_seconds: PositiveFloat | None = 60.0
    checkpoint_steps: PositiveInt | None = None
    checkpoint_epochs: PositiveInt | None = None
    keep_checkpoints: PositiveInt = 2
    on_non_finite: Literal["stop", "roll_back"] = "stop"
    tensorboard: bool = True
    profile_steps: Annotated[list[PositiveInt], Len(2, 2)] | None = None

    @property
    def judging(self) -> EvaluatorSettings:
        """How answers are judged, as Evaluator does."""
        return EvaluatorSettings(
            task=self.task,
            reference=self.reference,
            text_metrics=self.text_metrics,
            text_options=self.text_options,
            detection_columns=self.detection_columns,
            box_format=self.box_format,
            replicates=0,
        )

    @property
    def worker_count(self) -> int | None:
        """Number of worker processes, or None without `workers`."""
        return len(self.workers) if isinstance(self.workers, list) else self.workers

    @property
    def bucketing(self) -> Bucketing | None:
        """How rows are batched by length, or None if they are not."""
        from kerasline.components.data.bucketing import Bucketing

        if self.bucket_by is None:
            return None
        names = (self.bucket_by,) if isinstance(self.bucket_by, str) else tuple(self.bucket_by)
        parameter = "tokens_a_batch" if self.tokens_a_batch else "frames_a_batch"
        return Bucketing(names, self.tokens_a_batch or self.frames_a_batch, f"Trainer.{parameter}")
