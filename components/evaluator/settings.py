"""The parameters of Evaluator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Len, Lt
from pydantic import BaseModel, ConfigDict, model_validator

from kerasline.components.core.parameters import ColumnName, PositiveFloat, PositiveInt, SplitName


class Buckets(BaseModel):
    """A numeric column cut into intervals.

    Attributes:
        column: name of the column.
        buckets: number of intervals with equal numbers of rows.
        edges: inner edges of the intervals, instead of `buckets`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    column: str
    buckets: Annotated[int, Gt(1)] | None = None
    edges: Annotated[list[float], Len(1)] | None = None


Slicing = str | Buckets | list[str | Buckets] | Callable
"""Columns, crosses of columns, buckets, or a function of a `pyarrow.RecordBatch` (docs/EVALUATION.md)."""


def slicing_name(slicing: Slicing) -> str:
    """Return the name of a slicing: its columns joined by `*`, or the name of the function."""
    if callable(slicing):
        return getattr(slicing, "__name__", "function")
    return "*".join(part if isinstance(part, str) else part.column for part in slicing_parts(slicing))


def slicing_parts(slicing: Slicing) -> list[str | Buckets]:
    """Return the columns and buckets that are crossed. A function has none."""
    found: list[str | Buckets] = []
    for part in [] if callable(slicing) else slicing if isinstance(slicing, list) else [slicing]:
        found += part.split("*") if isinstance(part, str) else [part]
    return found


NEAREST_SPLIT = "train"
"""The split that `nearest` searches for similar pictures."""
BOUNDS = ("min", "max", "max_drop", "max_relative_drop", "max_gap")
"""The kinds of bounds."""
DROPS = ("max_drop", "max_relative_drop")
"""The bounds that compare with a baseline."""


class Bounds(BaseModel):
    """Bounds of a metric.

    Attributes:
        min: smallest allowed value.
        max: largest allowed value.
        max_drop: how much worse than the baseline the metric may be, in its own units. If negative, how much better it
            must be.
        max_relative_drop: the same as a fraction of the absolute value of the baseline's metric.
        max_gap: how far the metric of a slice may be from that of the slice in `Evaluator.reference_slices` or, without
            one, of all other rows, in its own units. Needs `slices`.
        slices: apply the bounds to slices instead of to all rows: True for the slices of all slicings, a list of
            slicings, or a dict of lists of slices by slicing, such as `{"payment_type": ["Cash"]}`.
        min_rows: fewest rows, of a slice or of the split, to which the bounds apply.
        confidence: compare the one-sided confidence limit of the metric instead of its value. For several slices the
            level is corrected by their number (Bonferroni).
        if_unmeasured: whether a model passes bounds that could not be checked: no slice is large enough, the metric
            is undefined for these rows, the baseline lacks it, or it has no confidence limit.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    min: float | None = None
    max: float | None = None
    max_drop: float | None = None
    max_relative_drop: float | None = None
    max_gap: Annotated[float, Ge(0)] | None = None
    slices: bool | list[str] | dict[str, Annotated[list[str], Len(1)]] = False
    min_rows: Annotated[int, Ge(1)] = 1
    confidence: Annotated[float, Gt(0.5), Lt(1)] | None = None
    if_unmeasured: Literal["fail", "pass"] = "fail"

    @model_validator(mode="after")
    def _has_a_bound(self) -> Bounds:
        if not self.kinds:
            names = ", ".join(f"`{kind}`" for kind in BOUNDS)
            raise ValueError(f"expected one of {names}, received no bound")
        if self.max_gap is not None and not self.slices:
            raise ValueError("`max_gap` compares slices; set `slices` too")
        return self

    @property
    def kinds(self) -> list[str]:
        """Names of the bounds that are set, of `BOUNDS`."""
        return [kind for kind in BOUNDS if getattr(self, kind) is not None]

    @property
    def slicings(self) -> list[str]:
        """Names of the slicings in `slices`; empty if it is a boolean."""
        return [] if isinstance(self.slices, bool) else list(self.slices)


Proportion = Annotated[float, Gt(0), Le(1)]
OperatingPoint = Literal[
    "precision_at_recall",
    "specificity_at_recall",
    "recall_at_precision",
    "recall_at_specificity",
    "recall_at_false_positive_rate",
]
BoxFormat = Literal["xyxy", "yxyx", "xywh", "center_xywh"]


class TextOptions(BaseModel):
    """Options of the metrics of texts; see `kerasline.components.metrics.text.TextMetrics`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tokenize: str = "13a"
    lowercase: bool = False
    stem: bool = False
    smoothing: Literal["exp", "floor", "add-k", "none"] = "exp"
    smoothing_value: PositiveFloat | None = None


Thresholds = dict[str, Bounds | Annotated[list[Bounds], Len(1)]]


@dataclass(frozen=True, kw_only=True)
class EvaluatorSettings:
    """The parameters of Evaluator, which documents them."""

    thresholds: Thresholds = field(default_factory=dict)
    slices: list[Slicing] = field(default_factory=list)
    reference_slices: dict[str, str] = field(default_factory=dict)
    most_slices: PositiveInt = 100
    small_slice_rows: int = 100
    task: str | dict[str, str] | None = None
    metrics: list[Any] = field(default_factory=list)
    decision_thresholds: Annotated[list[float], Len(1)] = field(default_factory=lambda: [0.5])
    beta: PositiveFloat = 1.0
    operating_points: dict[OperatingPoint, list[Proportion]] = field(default_factory=dict)
    class_metrics: list[str] = field(default_factory=list)
    class_weights: dict[str, Annotated[float, Ge(0)]] = field(default_factory=dict)
    top_k: PositiveInt = 5
    loss_quantiles: list[float] = field(default_factory=lambda: [0.1, 0.5, 0.9])
    query: ColumnName | None = None
    decode: Callable | None = None
    reference: str | dict[str, str] | None = None
    judge_inputs: dict[str, str] = field(default_factory=dict)
    judge_outputs: dict[str, str] = field(default_factory=dict)
    text_metrics: list[str] = field(
        default_factory=lambda: ["bleu", "chrf", "rouge1", "rouge2", "rougeL", "wer", "cer", "exact_match"]
    )
    text_options: TextOptions = field(default_factory=TextOptions)
    ndcg_at: list[PositiveInt] = field(default_factory=lambda: [5, 10])
    padding: int = -1
    detection_columns: dict[str, str] = field(default_factory=dict)
    box_format: BoxFormat = "xyxy"
    confidence: Annotated[float, Gt(0), Lt(1)] = 0.95
    replicates: Annotated[int, Ge(0)] = 200
    seed: int = 0
    split: SplitName = "test"
    batch_size: PositiveInt | None = None
    samples: Annotated[int, Ge(0)] = 8
    nearest: ColumnName | None = None
