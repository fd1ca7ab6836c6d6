"""The metrics of cells of rows in one go, counted as the Evaluator counts them."""

from __future__ import annotations

from typing import Any

import numpy as np

from kerasline.components.metrics.base import CellMetrics
from kerasline.components.metrics.cell_counts import CellCounts
from tests.components.metrics.of_rows import rows


def counted(family: CellMetrics, label: Any, prediction: Any, weight: Any = None, at_once: int = 65536) -> CellCounts:
    """Count the cells of all rows as one group, some rows at a time."""
    counts = CellCounts(1, family.max_exact_cells, family.coarsen, family.coarsening_levels)
    for start in range(0, len(label), at_once):
        part = slice(start, start + at_once)
        given = rows(label[part], prediction[part], None if weight is None else weight[part])
        cells = family.cells(given).reshape(-1)
        each = len(cells) // max(len(given), 1)
        counts.add(np.zeros(len(cells), np.int64), cells, None if weight is None else np.repeat(given.weight, each))
    return counts


def cell_values(family: CellMetrics, label: Any, prediction: Any, weight: Any = None) -> dict[str, float]:
    """Return the metrics by name."""
    cells, sums = counted(family, label, prediction, weight).of(0)
    found = family.values(cells, sums[1])
    assert set(found) == set(family.directions)
    return {name: float(value) for name, value in found.items()}
