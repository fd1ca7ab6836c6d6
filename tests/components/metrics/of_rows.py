"""A family's metrics of rows in one go: what its tests compare with other libraries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from kerasline.components.metrics.base import Rows, SumMetrics


def rows(
    label: Any, prediction: Any, weight: Any = None, columns: Mapping[str, Any] | None = None, first: int = 0
) -> Rows:
    """`Rows` of arrays or lists; numbered from `first`."""
    label, prediction = np.asarray(label), np.asarray(prediction)
    held = {name: one if isinstance(one, pa.Array) else pa.array(one) for name, one in (columns or {}).items()}
    return Rows(
        label,
        prediction,
        None if weight is None else np.asarray(weight, np.float64),
        np.arange(first, first + len(label)),
        held,
    )


def total(family: SumMetrics, given: Rows) -> np.ndarray:
    """Return the weighted sums of rows, float64 (k,)."""
    sums, places = family.sums(given), family.unit_rows(given)
    if given.weight is None:
        return sums.sum(axis=0)
    return (given.weight if places is None else given.weight[places]) @ sums


def values(
    family: SumMetrics,
    label: Any,
    prediction: Any,
    weight: Any = None,
    columns: Mapping[str, Any] | None = None,
) -> dict[str, float]:
    """Return the metrics by name, computed from all rows at once."""
    found = family.values(total(family, rows(label, prediction, weight, columns)))
    assert list(found) == list(family.directions)
    return {name: float(value) for name, value in found.items()}
