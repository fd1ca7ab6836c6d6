"""The figures of an evaluation, one a metric, slice and output: as rows, as JSON and as Parquet."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import NormalDist
from typing import Any

from kerasline.components.evaluator.estimating import Figures

VERSION = 1


@dataclass(frozen=True)
class Result:
    """A metric of a slice of an output.

    Attributes:
        output: "" for what is of the model as a whole.
        slicing, slice: "" for all rows.
        rows, weight: how many, and the sum of their weights.
        several: whether the model has several outputs.
    """

    output: str
    slicing: str
    slice: str
    rows: int
    weight: float
    small: bool
    metric: str
    direction: str | None
    figures: Figures
    several: bool = False
    p_value: float = math.nan
    p_corrected: float = math.nan

    @property
    def full_name(self) -> str:
        """The metric's name, with the output's before it where there are several."""
        return f"{self.output}/{self.metric}" if self.several and self.output else self.metric

    @property
    def value(self) -> float:
        return self.figures.estimate.value

    @property
    def baseline(self) -> float | None:
        return self.figures.baseline

    def as_row(self, confidence: float) -> dict[str, Any]:
        """As the table has it; what is not known is None."""
        low, high = self.figures.estimate.interval(confidence)
        change = self.figures.change
        change_low, change_high = change.interval(confidence) if change is not None else (math.nan, math.nan)
        row = {
            "output": self.output,
            "slicing": self.slicing,
            "slice": self.slice,
            "rows": self.rows,
            "weight": self.weight,
            "small": self.small,
            "metric": self.metric,
            "direction": self.direction,
            "value": self.value,
            "low": low,
            "high": high,
            "interval": self.figures.estimate.method,
            "difference": self.figures.difference[0] if self.figures.difference else None,
            "p_value": self.p_value,
            "p_corrected": self.p_corrected,
            "baseline": self.baseline,
            "change": change.value if change is not None else None,
            "change_low": change_low,
            "change_high": change_high,
        }
        return {name: known(value) for name, value in row.items()}


def known(value: Any) -> Any:
    """None for what is not a finite number: JSON has no other word for it."""
    if isinstance(value, Mapping):
        return {name: known(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [known(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def name_of_slice(slicing: str, label: str) -> str:
    return f"{slicing}={label}" if slicing else ""


def with_tests(results: Sequence[Result]) -> list[Result]:
    """The results with the p-values of each slice's difference from the other rows.

    Two-sided, normal, by bootstrapped standard errors; corrected for all slices tested of one metric
    (Holm, Scandinavian Journal of Statistics 6, 1979). Small slices are not tested.
    """
    tested: dict[tuple[str, str], list[int]] = {}
    p_values: dict[int, float] = {}
    for place, result in enumerate(results):
        p_value = _p_value(result)
        if not math.isnan(p_value):
            p_values[place] = p_value
            tested.setdefault((result.output, result.metric), []).append(place)
    corrected = {}
    for places in tested.values():
        corrected |= dict(zip(places, holm([p_values[place] for place in places])))
    return [
        replace(result, p_value=p_values[place], p_corrected=corrected[place]) if place in p_values else result
        for place, result in enumerate(results)
    ]


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values: the k-th smallest of n times n - k, never less than the one before, at most 1."""
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    adjusted, least = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        least = max(least, min(1.0, p_values[place] * (len(p_values) - rank)))
        adjusted[place] = least
    return adjusted


def _p_value(result: Result) -> float:
    if result.small or result.figures.difference is None:
        return math.nan
    difference, error = result.figures.difference
    if not error or math.isnan(error) or math.isnan(difference):
        return math.nan
    return 2 * NormalDist().cdf(-abs(difference / error))


def write_table(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """The rows as Parquet, all with the same columns and types whatever they hold."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts = ("output", "slicing", "slice", "metric", "direction", "interval")
    kinds = {name: pa.string() for name in texts} | {"rows": pa.int64(), "small": pa.bool_()}
    schema = pa.schema([(name, kinds.get(name, pa.float64())) for name in rows[0]])
    pq.write_table(pa.Table.from_pylist([dict(row) for row in rows], schema), path)
