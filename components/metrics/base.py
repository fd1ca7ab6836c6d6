"""What a metric is: something that adds up over rows, and what is computed of it.

There are three kinds, by what has to be kept of the rows until all have been seen:

- `SumMetrics`: sums of some numbers a row. Loss, accuracy, errors, words and their matches.
- `CellMetrics`: how many rows fall into each of many cells. Confusion matrices; scores by label.
- `StateMetrics`: anything else that merges, and that tells its own intervals.

None of them weighs, slices or resamples: `kerasline.components.evaluator.measuring` does so for all alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Optional, Protocol

import numpy as np
import pyarrow as pa

from kerasline.components.evaluator.estimates import Estimate

# Whether more is better, less is, or neither.
Direction = Optional[Literal["up", "down"]]


@dataclass(frozen=True)
class Rows:
    """Some rows of predictions, as a metric takes them.

    Attributes:
        label: what is true, (rows, ...); texts and lists as arrays of objects.
        prediction: what the model says, (rows, ...); of a classifier probabilities.
        weight: float64 (rows,); None where all count the same.
        number: int64 (rows,): tells each row of the split from all others.
        columns: further columns by name, such as the query of a ranking.
    """

    label: np.ndarray
    prediction: np.ndarray
    weight: np.ndarray | None
    number: np.ndarray
    columns: Mapping[str, pa.Array] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.number)

    def taken(self, places: np.ndarray) -> Rows:
        """The rows at these places, int64 (n,) or bool (rows,)."""
        mask = pa.array(np.arange(len(self))[places]) if self.columns else None
        return Rows(
            self.label[places],
            self.prediction[places],
            None if self.weight is None else self.weight[places],
            self.number[places],
            {name: column.take(mask) for name, column in self.columns.items()},
        )


class Metrics:
    """Base of all kinds.

    Attributes:
        directions: the metrics' names, the main ones first, and whether more of each is better.
    """

    directions: Mapping[str, Direction]

    @property
    def key(self) -> str:
        """Tells the family from the others of one output."""
        return type(self).__name__


class SumMetrics(Metrics):
    """Metrics that are functions of sums over units: rows, or groups of rows such as queries.

    Attributes:
        shares: metrics that are one column of sums divided by another, a count of successes by one of
            trials: without weights their intervals are Wilson's.
    """

    shares: Mapping[str, tuple[int, int]] = {}

    def sums(self, rows: Rows) -> np.ndarray:
        """What is added up, without weights: float64 (units, k). The first column is 1 for each."""
        raise NotImplementedError

    def places(self, rows: Rows) -> np.ndarray | None:
        """The row that stands for each unit, with its slice, weight and number: int64 (units,); None
        where units are rows."""
        return None

    def values(self, sums: np.ndarray) -> dict[str, np.ndarray]:
        """The metrics of weighted sums.

        Args:
            sums: float64 (..., k).

        Returns:
            By name, float64 (...); NaN where a metric has no value.
        """
        raise NotImplementedError


class CellMetrics(Metrics):
    """Metrics that are functions of how many rows are in each cell; a cell is a whole number.

    `most_exact`: beyond so many cells in a slice, `coarse` makes fewer of them, level by level up to `levels`.
    """

    most_exact: int = 1 << 62
    levels: int = 0

    def cells(self, rows: Rows) -> np.ndarray:
        """The cell or cells of each row: int64 (rows,) or (rows, m)."""
        raise NotImplementedError

    def values(self, cells: np.ndarray, counts: np.ndarray) -> dict[str, np.ndarray]:
        """The metrics of weighted counts.

        Args:
            cells: int64 (n,), ascending.
            counts: float64 (..., n).

        Returns:
            By name, float64 (...); NaN where a metric has no value.
        """
        raise NotImplementedError

    def shares(self, cells: np.ndarray, counts: np.ndarray) -> dict[str, tuple[float, float]]:
        """Metrics that are successes by trials, both as numbers of rows; for Wilson's intervals."""
        return {}

    def coarse(self, cells: np.ndarray, level: int) -> np.ndarray:
        """The cells that stand for these where there are too many: int64, of the shape of `cells`.

        The higher the level, the fewer. What a level gives, that level gives back; and of what a lower
        one gave, a level makes what it makes of the cells themselves.
        """
        return cells

    def few(self, cells: np.ndarray, counts: np.ndarray, most: int) -> np.ndarray:
        """Not many more than `most` cells that stand for all, by which spreads are told.

        Args:
            cells: int64 (n,), ascending.
            counts: float64 (n,), weighted.

        Returns:
            int64 (n,): for each cell the one that stands for it.
        """
        return cells


class State(Protocol):
    """What `StateMetrics` keep of rows."""

    def add(self, rows: Rows) -> None: ...

    def merge(self, other: Any) -> None:
        """Takes in what another worker kept."""


class StateMetrics(Metrics):
    """Metrics of a state that merges in any order."""

    def new_state(self) -> State:
        raise NotImplementedError

    def estimates(self, state: State, seed: int) -> dict[str, Estimate]:
        """The metrics by name, each with what its interval is told by."""
        raise NotImplementedError


def divided(numerator: Any, denominator: Any) -> np.ndarray:
    """numerator / denominator, float64; NaN where the denominator is 0."""
    numerator, denominator = np.broadcast_arrays(np.asarray(numerator, np.float64), np.asarray(denominator, np.float64))
    result = np.full(numerator.shape, np.nan)
    np.divide(numerator, denominator, out=result, where=denominator != 0)
    return result
