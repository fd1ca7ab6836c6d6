"""The statistics of a feature when rows have weights, such as how many rows of the population each stands for."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kerasline.components.data.accumulators.moments import Moments
from kerasline.components.data.accumulators.value_counts import ValueCounts
from kerasline.components.data.accumulators.weighted_quantiles import WeightedQuantiles
from kerasline.components.data.arrow_types import is_list


@dataclass
class WeightedSummary:
    """Weighted statistics of one feature. A value has the weight of its row.

    Attributes:
        missing, present: sums of the weights of the rows without and with a value.
        values: sum of the weights of all values.
        moments: those of the finite numbers.
        quantiles: the finite numbers.
        counts: sums of the weights of each distinct text or integer.
    """

    missing: float = 0.0
    present: float = 0.0
    values: float = 0.0
    moments: Moments = field(default_factory=Moments)
    quantiles: WeightedQuantiles = field(default_factory=WeightedQuantiles)
    counts: ValueCounts = field(default_factory=lambda: ValueCounts(estimate_distinct=False))

    @classmethod
    def of(cls, column: pa.Array, weights: np.ndarray) -> WeightedSummary:
        """Return the statistics of a column of one batch.

        Args:
            weights: float64 (rows,).
        """
        column = column.storage if isinstance(column, pa.ExtensionArray) else column
        absent = column.is_null(nan_is_null=pa.types.is_floating(column.type)).to_numpy(zero_copy_only=False)
        summary = cls(float(weights[absent].sum()), float(weights[~absent].sum()))
        weights = np.where(absent, 0, weights) if not is_list(column.type) else weights
        while is_list(column.type):
            weights, column = weights[pc.list_parent_indices(column).to_numpy()], column.flatten()
        present = column.is_valid().to_numpy(zero_copy_only=False)
        weights, values = weights[present], column.drop_null()
        summary.values = float(weights.sum())
        kind = values.type
        if pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind):
            numbers = values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
            counted = np.isfinite(numbers) & (weights > 0)
            summary.moments.add(numbers[counted], weights[counted])
            summary.quantiles.add(numbers[counted], weights[counted])
        if not pa.types.is_floating(kind) and not pa.types.is_binary(kind) and len(values):
            found = values.dictionary_encode()
            sums = np.bincount(found.indices.to_numpy(), weights, len(found.dictionary))
            summary.counts.add_counted(found.dictionary, pa.array(sums))
        return summary

    def merge(self, other: WeightedSummary) -> WeightedSummary:
        for name in ("missing", "present", "values"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.moments.merge(other.moments)
        self.quantiles.merge(other.quantiles)
        self.counts.merge(other.counts)
        return self
