"""Base classes of metrics, for writing your own. Public as `kl.metrics`.

A metric has two parts: something that adds up over rows, and a function from that total to the metric's value.
Choose the base class by what has to be kept until all rows have been seen:

- `SumMetrics`: sums of a few numbers per row. For losses, accuracies, errors and word counts.
- `CellMetrics`: the number of rows in each of many cells. For confusion matrices and curves over scores.
- `StateMetrics`: any other state that can be merged. It computes its own intervals.

A metric does not handle sample weights, slices or resampling: the Evaluator applies them in the same way to all
metrics.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import pyarrow as pa

from kerasline.components.metrics.estimates import Estimate

Direction = Literal["up", "down"] | None
"""Whether higher (`"up"`) or lower (`"down"`) values are better, or neither (None)."""


@dataclass(frozen=True)
class Rows:
    """A batch of labels and predictions, the input of a metric.

    Attributes:
        label: the true values, (rows, ...). Texts and lists are object arrays.
        prediction: the model's output, (rows, ...). For a classifier, probabilities.
        weight: sample weights, float64 (rows,), or None if all rows count equally. For `TokenMetrics` also (rows,
            length), weights of tokens relative to that of their row.
        number: int64 (rows,), a unique number of each row in its split.
        columns: further columns by name, such as the query of a ranking.
        baseline: the output of the baseline, as `prediction`, or None. Only for `Metrics.compares_with_baseline`.
    """

    label: np.ndarray
    prediction: np.ndarray
    weight: np.ndarray | None
    number: np.ndarray
    columns: Mapping[str, pa.Array] = field(default_factory=dict)
    baseline: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.number)

    def take(self, indices: np.ndarray) -> Rows:
        """Return the rows at these indices, int64 (n,), or of this mask, bool (rows,)."""
        taken = pa.array(np.arange(len(self))[indices]) if self.columns else None
        return Rows(
            self.label[indices],
            self.prediction[indices],
            None if self.weight is None else self.weight[indices],
            self.number[indices],
            {name: column.take(taken) for name, column in self.columns.items()},
            None if self.baseline is None else self.baseline[indices],
        )


class Metrics:
    """Base class of `SumMetrics`, `CellMetrics` and `StateMetrics`: a family of metrics computed together.

    Attributes:
        directions: maps the name of each metric, the main ones first, to whether higher values are better.
        compares_with_baseline: whether the metrics compare predictions with those of the baseline.
    """

    directions: Mapping[str, Direction]
    compares_with_baseline: bool = False

    @property
    def key(self) -> str:
        """A name of the family, unique among those of one output. Defaults to the name of the class."""
        return type(self).__name__


class SumMetrics(Metrics):
    """Metrics that are functions of sums over units. A unit is a row, or a group of rows such as a query.

    Override `directions`, `sums` and `values`.

    Attributes:
        proportions: maps the name of a metric that is a proportion, number of successes by number of trials, to
            the indices of these two columns of `sums`. Without sample weights it gets a Wilson interval.
        weighs_rows: whether `sums` applies the sample weights itself.

    Example:

    >>> class Bias(SumMetrics):
    ...     directions = {"mean_error": None, "overestimated": None}
    ...     proportions = {"overestimated": (2, 0)}
    ...
    ...     def sums(self, rows):
    ...         error = rows.prediction - rows.label
    ...         return np.stack([np.ones(len(rows)), error, error > 0], axis=1)
    ...
    ...     def values(self, sums):
    ...         count = sums[..., 0]
    ...         return {"mean_error": divided(sums[..., 1], count), "overestimated": divided(sums[..., 2], count)}
    >>> rows = Rows(np.array([1.0, 2.0]), np.array([1.5, 1.0]), None, np.arange(2))
    >>> values = Bias().values(Bias().sums(rows).sum(axis=0))
    >>> {name: float(value) for name, value in values.items()}
    {'mean_error': -0.25, 'overestimated': 0.5}
    """

    proportions: Mapping[str, tuple[int, int]] = {}
    weighs_rows: bool = False

    def sums(self, rows: Rows) -> np.ndarray:
        """Return the unweighted terms of the sums.

        Returns:
            float64 (units, k). The first column is 1 for each unit.
        """
        raise NotImplementedError

    def unit_rows(self, rows: Rows) -> np.ndarray | None:
        """Return the index of the row that gives each unit its slice, weight and number.

        Returns:
            int64 (units,), or None if the units are the rows themselves.
        """
        return None

    def values(self, sums: np.ndarray) -> dict[str, np.ndarray]:
        """Compute the metrics from weighted sums.

        Args:
            sums: float64 (..., k).

        Returns:
            Maps each name to float64 (...), NaN where the metric is undefined.
        """
        raise NotImplementedError


class CellMetrics(Metrics):
    """Metrics that are functions of the number of rows in each cell. A cell is identified by an integer.

    Override `directions`, `cells` and `values`.

    Attributes:
        max_exact_cells: with more cells than this in a slice, `coarsen` merges cells, level by level.
        coarsening_levels: the last level passed to `coarsen`. Defaults to 0, which never merges cells.
        row_groups: if a row has several cells, the number of groups of rows that are resampled together. All cells of a
            row must have the same `cell % row_groups`, such as a hash of `Rows.number`, also after `coarsen` and
            `resampling_cells`. Defaults to 0: each row has one cell.

    Example:

    >>> class Agreement(CellMetrics):
    ...     directions = {"agreement": "up"}
    ...
    ...     def cells(self, rows):
    ...         return 10 * rows.label + rows.prediction
    ...
    ...     def values(self, cells, counts):
    ...         agree = cells // 10 == cells % 10
    ...         return {"agreement": divided(counts[..., agree].sum(axis=-1), counts.sum(axis=-1))}
    >>> rows = Rows(np.array([0, 1, 2, 2]), np.array([0, 1, 1, 2]), None, np.arange(4))
    >>> cells, counts = np.unique(Agreement().cells(rows), return_counts=True)
    >>> float(Agreement().values(cells, counts)["agreement"])
    0.75
    """

    max_exact_cells: int = 1 << 62
    coarsening_levels: int = 0
    row_groups: int = 0

    def cells(self, rows: Rows) -> np.ndarray:
        """Return the cell, int64 (rows,), or the cells, int64 (rows, m), of each row."""
        raise NotImplementedError

    def values(self, cells: np.ndarray, counts: np.ndarray) -> dict[str, np.ndarray]:
        """Compute the metrics from weighted counts.

        Args:
            cells: int64 (n,), ascending.
            counts: float64 (..., n).

        Returns:
            Maps each name to float64 (...), NaN where the metric is undefined.
        """
        raise NotImplementedError

    def proportions(self, cells: np.ndarray, counts: np.ndarray) -> dict[str, tuple[float, float]]:
        """Return successes and trials, in rows, of metrics that are proportions. They get Wilson intervals."""
        return {}

    def coarsen(self, cells: np.ndarray, level: int) -> np.ndarray:
        """Map cells to fewer cells, if a slice has too many.

        A higher level maps to fewer cells. It must hold that `coarsen(coarsen(c, i), j) == coarsen(c, j)` for i <= j.

        Returns:
            int64, of the shape of `cells`.
        """
        return cells

    def resampling_cells(self, cells: np.ndarray, counts: np.ndarray, most: int) -> np.ndarray:
        """Map cells to not many more than `most` cells, for estimating the spread by resampling.

        Args:
            cells: int64 (n,), ascending.
            counts: float64 (n,), weighted.
            most: the target number of cells.

        Returns:
            int64 (n,), the representative of each cell.
        """
        return cells


class State(Protocol):
    """The state that a `StateMetrics` accumulates."""

    def add(self, rows: Rows) -> None:
        """Add a batch of rows."""

    def merge(self, other: Any) -> None:
        """Add the state of another worker."""


class StateMetrics(Metrics):
    """Metrics of a state that can be merged in any order. Override `directions`, `new_state` and `estimates`.

    Example:

    >>> class Largest:
    ...     value = -np.inf
    ...
    ...     def add(self, rows):
    ...         self.value = max(self.value, float(np.max(rows.prediction, initial=-np.inf)))
    ...
    ...     def merge(self, other):
    ...         self.value = max(self.value, other.value)
    >>> class LargestPrediction(StateMetrics):
    ...     directions = {"largest_prediction": None}
    ...
    ...     def new_state(self):
    ...         return Largest()
    ...
    ...     def estimates(self, state, seed):
    ...         return {"largest_prediction": Estimate(state.value)}
    >>> state = LargestPrediction().new_state()
    >>> state.add(Rows(np.zeros(2), np.array([0.25, 0.75]), None, np.arange(2)))
    >>> LargestPrediction().estimates(state, seed=0)["largest_prediction"].value
    0.75
    """

    def new_state(self) -> State:
        """Return an empty state."""
        raise NotImplementedError

    def estimates(self, state: Any, seed: int) -> dict[str, Estimate]:
        """Compute each metric by name, with the source of its interval.

        Args:
            state: a state from `new_state`, with all rows added.
            seed: seed for resampling.
        """
        raise NotImplementedError


def divided(numerator: Any, denominator: Any) -> np.ndarray:
    """Return numerator / denominator as float64, NaN where the denominator is 0."""
    numerator, denominator = np.broadcast_arrays(np.asarray(numerator, np.float64), np.asarray(denominator, np.float64))
    result = np.full(numerator.shape, np.nan)
    np.divide(numerator, denominator, out=result, where=denominator != 0)
    return result
