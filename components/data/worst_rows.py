"""The worst rows of a split. Only the current ones are kept in memory."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass
class Worst:
    """The rows with the highest loss. Among equal losses, the first ones.

    Attributes:
        most: number of rows to keep.
        losses: float64 (kept,), the highest first. NaN is higher than any number. For a metric where higher is
            better, its negative.
        places: int64 (kept,), the positions of the rows in the split.
    """

    most: int
    losses: np.ndarray = field(default_factory=lambda: np.zeros(0))
    places: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    def add(self, losses: np.ndarray, places: np.ndarray) -> Worst:
        """Add rows."""
        losses, places = np.concatenate([self.losses, losses]), np.concatenate([self.places, places])
        ranked = np.where(np.isnan(losses), np.inf, losses)
        kept = np.lexsort((places, -ranked))[: self.most]
        self.losses, self.places = losses[kept], places[kept]
        return self

    def merge(self, other: Worst) -> Worst:
        return self.add(other.losses, other.places)
