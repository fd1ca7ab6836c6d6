"""The parameters of Explainer as one typed value."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Ge

from kerasline.components.core.errors import ParameterError, check_known
from kerasline.components.core.parameters import ColumnName, PositiveInt, SplitName

Baseline = Literal["zeros", "mean"] | dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class ExplainerSettings:
    """The parameters of Explainer, which documents them."""

    split: SplitName = "test"
    most_rows: PositiveInt = 2000
    seed: Annotated[int, Ge(0)] = 0
    repeats: PositiveInt = 5
    metric: str | Callable[..., Any] | None = None
    direction: Literal["minimize", "maximize"] | None = None
    output: str | None = None
    features: list[ColumnName] | None = None
    classes: list[int | str] | None = None
    points: PositiveInt = 20
    integrated_gradients: Literal["auto", "on", "off"] = "auto"
    steps: PositiveInt = 64
    baseline: Baseline = "zeros"
    worst: Annotated[int, Ge(0)] = 20


def check_metric(metric: Any, *, has_loss: bool, task: str, keras_names: Callable[[], Collection[str]]) -> None:
    """Raise a ParameterError if `metric` is unknown or does not apply to the output.

    Args:
        has_loss: whether the model was compiled with a loss for the output.
        task: the task of the output.
        keras_names: returns the names of Keras's loss functions. Called only if `metric` names one.
    """
    if metric in (None, "loss") and not has_loss:
        raise ParameterError("Explainer.metric: the model was compiled without a loss for this output; name a metric")
    if metric == "accuracy" and task == "regression":
        raise ParameterError(
            "Explainer.metric: accuracy is for classes, and this output gives numbers; try 'mean_absolute_error'"
        )
    if isinstance(metric, str) and metric not in ("loss", "accuracy"):
        check_known("Explainer.metric", "no metric", [metric], [*keras_names(), "loss", "accuracy"])
