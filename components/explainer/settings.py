"""The parameters of Explainer as one typed value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Ge

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
