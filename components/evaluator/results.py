"""The results of an evaluation, one per metric, slice and output, with tests between slices."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import NormalDist
from typing import Any

from kerasline.components.core.json_files import finite
from kerasline.components.metrics.metric_values import Figures

VERSION = 1


@dataclass(frozen=True)
class Result:
    """The value of a metric for a slice and an output.

    Attributes:
        output: name of the output; "" for metrics of the whole model: latency, or the loss of all outputs.
        slicing: name of the slicing; "" for all rows.
        slice: label of the slice; "" for all rows.
        rows: number of rows.
        weight: sum of the weights of the rows.
        small: whether the slice has too few rows to be tested.
        several: whether the model has several outputs.
        compared: the rows that the slice is compared with: "all other rows", or a slice; "" if it is not compared.
        p_value, p_corrected: of the test of that difference; see `with_tests`.
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
    compared: str = ""
    p_value: float = math.nan
    p_corrected: float = math.nan

    @property
    def full_name(self) -> str:
        """Name of the metric, prefixed with the output if the model has several."""
        return f"{self.output}/{self.metric}" if self.several and self.output else self.metric

    @property
    def value(self) -> float:
        return self.figures.estimate.value

    @property
    def baseline(self) -> float | None:
        return self.figures.baseline

    @property
    def gap(self) -> float:
        """Distance from the rows that the slice is compared with; NaN if it is not compared."""
        return abs(self.figures.difference[0]) if self.figures.difference else math.nan

    def gap_limits(self, confidence: float | None) -> tuple[float, float]:
        """Return the one-sided confidence limits of `gap`, normal; NaN without a level or a standard error."""
        if confidence is None or self.figures.difference is None:
            return math.nan, math.nan
        reach = NormalDist().inv_cdf(confidence) * self.figures.difference[1]
        return max(0.0, self.gap - reach), self.gap + reach

    def as_row(self, confidence: float) -> dict[str, Any]:
        """Return the row of the table, with None for unknown values."""
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
            "compared": self.compared if self.figures.difference else None,
            "difference": self.figures.difference[0] if self.figures.difference else None,
            "p_value": self.p_value,
            "p_corrected": self.p_corrected,
            "baseline": self.baseline,
            "change": change.value if change is not None else None,
            "change_low": change_low,
            "change_high": change_high,
        }
        return finite(row)


def name_of_slice(slicing: str, label: str) -> str:
    return f"{slicing}={label}" if slicing else ""


def with_tests(results: Sequence[Result]) -> list[Result]:
    """Add the p-values of the difference between each slice and the rows it is compared with.

    The test is two-sided and normal, with bootstrapped standard errors. It is corrected for all slices of a metric
    (Holm, Scandinavian Journal of Statistics 6, 1979). Small slices are not tested.
    """
    tested: dict[tuple[str, str], list[int]] = {}
    p_values: dict[int, float] = {}
    for place, result in enumerate(results):
        p_value = _p_value(result)
        if not math.isnan(p_value):
            p_values[place] = p_value
            tested.setdefault((result.output, result.metric), []).append(place)
    corrected: dict[int, float] = {}
    for places in tested.values():
        corrected |= dict(zip(places, holm([p_values[place] for place in places])))
    return [
        replace(result, p_value=p_values[place], p_corrected=corrected[place]) if place in p_values else result
        for place, result in enumerate(results)
    ]


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm-adjusted p-values.

    The k-th smallest of n, counted from 0, is multiplied by n - k, is at least the one before, and is at most 1.
    """
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
    """Write the rows as Parquet with fixed columns and types."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts = ("output", "slicing", "slice", "metric", "direction", "interval", "compared")
    kinds = {name: pa.string() for name in texts} | {"rows": pa.int64(), "small": pa.bool_()}
    schema = pa.schema([(name, kinds.get(name, pa.float64())) for name in rows[0]])
    pq.write_table(pa.Table.from_pylist([dict(row) for row in rows], schema), path)
