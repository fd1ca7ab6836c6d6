"""Gaps between slices, by the usual definitions of fairness.

- Demographic parity: the rate of predicting a class (Dwork et al., "Fairness Through Awareness", 2012).
- Equal opportunity: the true positive rate. Equalised odds: the true or the false positive rate, whichever has the
  larger gap (Hardt, Price and Srebro, "Equality of Opportunity in Supervised Learning", 2016).

With several classes, the gap is that of the class where it is largest. Small slices are omitted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kerasline.components.metrics.base import divided
from kerasline.components.metrics.binary import BinaryThresholds
from kerasline.components.metrics.cell_counts import CellCounts
from kerasline.components.metrics.multi_class import Confusion
from kerasline.components.metrics.resampling import Resampling

DEMOGRAPHIC_PARITY, EQUAL_OPPORTUNITY, EQUALISED_ODDS = (
    "demographic parity",
    "equal opportunity",
    "equalised odds",
)


def gaps(
    counts: CellCounts,
    family: BinaryThresholds | Confusion,
    slices: Mapping[int, str],
    resampling: Resampling,
    confidence: float,
) -> list[dict[str, Any]]:
    """Return the gaps of one slicing.

    Args:
        counts: counts of the cells of `family` by group. With two classes, only the second is compared.
        slices: names of the groups to compare.

    Returns:
        A dict for each definition that has a gap: see `kerasline.components.core.artifacts.Evaluation`.
    """
    if len(slices) < 2:
        return []
    classes = family.classes
    rates = [_rates(*_class_counts(counts, group, family, resampling)) for group in slices]
    names, found = list(slices.values()), []
    for definition in (DEMOGRAPHIC_PARITY, EQUAL_OPPORTUNITY, EQUALISED_ODDS):
        # (slices, rates of the definition, 1 + replicates, classes)
        stacked = np.stack([np.stack([side[name] for name in _RATES[definition]]) for side in rates])
        if classes == 2:
            stacked = stacked[..., 1:]
        spans = _span(stacked)
        if np.isnan(spans[:, 0]).all():
            continue
        rate, kind = np.unravel_index(np.nanargmax(spans[:, 0]), spans[:, 0].shape)
        largest = np.where(np.isnan(spans).all(axis=(0, 2)), np.nan, np.nan_to_num(spans).max(axis=(0, 2)))
        tail = (1 - confidence) / 2
        spread = largest[1:][~np.isnan(largest[1:])]
        low, high = np.quantile(spread, [tail, 1 - tail]) if len(spread) > 1 else (np.nan, np.nan)
        values = stacked[:, rate, 0, kind]
        found.append(
            {
                "definition": definition,
                "gap": float(largest[0]),
                "low": float(low),
                "high": float(high),
                "most": names[int(np.nanargmax(values))],
                "least": names[int(np.nanargmin(values))],
                "slices": len(slices),
            }
        )
    return found


_RATES: Mapping[str, Sequence[str]] = {
    DEMOGRAPHIC_PARITY: ("selected",),
    EQUAL_OPPORTUNITY: ("true positive",),
    EQUALISED_ODDS: ("true positive", "false positive"),
}


def _span(values: np.ndarray) -> np.ndarray:
    """Return the range of each rate over the slices that have one."""
    none = np.isnan(values).all(axis=0)
    span = np.where(np.isnan(values), -np.inf, values).max(axis=0) - np.where(np.isnan(values), np.inf, values).min(
        axis=0
    )
    return np.where(none, np.nan, span)


def _class_counts(
    counts: CellCounts, group: int, family: BinaryThresholds | Confusion, resampling: Resampling
) -> tuple[np.ndarray, ...]:
    """Return the true positives, predicted positives and true rows of each class, each (1 + replicates, classes).

    The first row has the counts, and the others those of the replicates.
    """
    cells, sums = counts.of(group)
    true, predicted = family.pairs(cells)
    parts = []
    for drawn in (sums[1:2], *resampling.of_counts(sums[1], sums[2], f"fairness/{group}")):
        found = np.zeros((3, family.classes, len(drawn)))
        np.add.at(found[0], true[true == predicted], drawn.T[true == predicted])
        np.add.at(found[1], predicted, drawn.T)
        np.add.at(found[2], true, drawn.T)
        parts.append(found.swapaxes(1, 2))
    return tuple(np.concatenate(parts, axis=1))


def _rates(right: np.ndarray, predicted: np.ndarray, true: np.ndarray) -> dict[str, np.ndarray]:
    """Return the rates of each class, each (1 + replicates, classes)."""
    rows = true.sum(axis=1, keepdims=True)
    return {
        "selected": divided(predicted, rows),
        "true positive": divided(right, true),
        "false positive": divided(predicted - right, rows - true),
    }
