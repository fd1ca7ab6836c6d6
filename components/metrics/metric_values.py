"""Compute metric values with confidence intervals from the sums of a measurement."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from kerasline.components.metrics.base import CellMetrics, Metrics, StateMetrics, SumMetrics
from kerasline.components.metrics.cell_counts import CellCounts
from kerasline.components.metrics.estimates import Estimate
from kerasline.components.metrics.measuring import Measure, Measured, SumTally
from kerasline.components.metrics.resampling import Resampling

# With more cells than these, replicates are computed from coarser cells.
MOST_RESAMPLED = 512
MOST_RESAMPLED_OF_A_MODEL = 128


@dataclass(frozen=True)
class Figures:
    """One metric of one group.

    Attributes:
        estimate: value with its interval.
        difference: value minus the value of all other rows, or of a reference slice, with its standard error; None for
            all rows or if it was not requested.
        baseline: value of the baseline, or None.
        change: value minus the value of the baseline, resampled in pairs; or None.
    """

    estimate: Estimate
    difference: tuple[float, float] | None = None
    baseline: float | None = None
    change: Estimate | None = None


ALL_OTHERS = 0
"""The group to compare with that stands for all rows but those of the group itself."""


def estimate(
    measured: Measured, request: Measure, output: str, group: int, *, compared: int | None = None
) -> dict[str, Figures]:
    """Return the metrics of an output for a group of rows, by name. The first family with a name provides it.

    Args:
        compared: compute the difference from this group, which has no rows in common, or from `ALL_OTHERS`.
    """
    found: dict[str, Figures] = {}
    for family in request.families[output]:
        key = (output, family.key)
        models = request.models[:1] if family.compares_with_baseline else request.models
        ours, *others = (measured.tallies.get((*key, model)) for model in models)
        tallies = [ours, *(one for one in others if one is not None)]  # the baseline may lack the output
        if tallies[0] is None:  # no rows at all
            figures = _undefined(family)
        elif isinstance(family, SumMetrics):
            figures = _of_sums(family, tallies, request, group, compared)
        elif isinstance(family, CellMetrics):
            pairs = measured.pairs.get(key)
            figures = _of_cells(family, tallies, pairs, request, group, compared, "/".join(key))
        elif isinstance(family, StateMetrics):
            figures = _of_states(family, tallies, request, group)
        found = {**figures, **found}
    return {name: found[name] for family in request.families[output] for name in family.directions if name in found}


def weighted_sum(parts: Sequence[tuple[float, Figures]]) -> Figures:
    """Return the sum of metrics of the same rows, each times a weight. Their replicates are paired."""
    changes = [(weight, figures.change) for weight, figures in parts if figures.change is not None]
    baselines = [weight * figures.baseline for weight, figures in parts if figures.baseline is not None]
    complete = len(changes) == len(baselines) == len(parts)
    return Figures(
        _weighted_estimate([(weight, figures.estimate) for weight, figures in parts]),
        baseline=sum(baselines) if complete else None,
        change=_weighted_estimate(changes) if complete else None,
    )


def _weighted_estimate(parts: Sequence[tuple[float, Estimate]]) -> Estimate:
    replicates = [weight * one.replicates for weight, one in parts if one.replicates is not None]
    value = sum(weight * one.value for weight, one in parts)
    return Estimate(value, replicates=np.sum(replicates, axis=0) if len(replicates) == len(parts) else None)


def _of_sums(
    family: SumMetrics, tallies: list[Any], request: Measure, group: int, compared: int | None
) -> dict[str, Figures]:
    ours: SumTally = tallies[0]
    values = family.values(ours.sums[group])
    spread = family.values(ours.replicates[group])
    rest = family.values(_others(ours.sums, group, compared)) if compared is not None else {}
    rest_spread = family.values(_others(ours.replicates, group, compared)) if compared is not None else {}
    proportions = {} if request.weighted else family.proportions
    found = {}
    for name, value in values.items():
        share = tuple(ours.plain[group][k] for k in proportions[name]) if name in proportions else None
        figures = Figures(Estimate(float(value), share, replicates=spread[name]))
        if compared is not None:
            figures = replace(figures, difference=_difference(value, spread[name], rest[name], rest_spread[name]))
        found[name] = figures
    if len(tallies) > 1:
        theirs = family.values(tallies[1].sums[group])
        theirs_spread = family.values(tallies[1].replicates[group])
        for name, value in values.items():
            found[name] = _changed(found[name], value, theirs[name], spread[name] - theirs_spread[name])
    return found


def _of_cells(
    family: CellMetrics,
    tallies: list[Any],
    pairs: CellCounts | None,
    request: Measure,
    group: int,
    compared: int | None,
    key: str,
) -> dict[str, Figures]:
    cells, sums = tallies[0].of(group)
    values = family.values(cells, sums[1])
    proportions = {} if request.weighted else family.proportions(cells, sums[0])
    spread = cell_spread(family, cells, sums, request.resampling, f"{key}/{group}")
    found = {
        name: Figures(Estimate(float(value), proportions.get(name), replicates=spread[name]))
        for name, value in values.items()
    }
    if compared is not None:
        others = compared == ALL_OTHERS
        rest_cells, rest_sums = tallies[0].of_others(group) if others else tallies[0].of(compared)
        rest = family.values(rest_cells, rest_sums[1])
        rest_key = f"{key}/rest {group}" if others else f"{key}/{compared}"
        rest_spread = cell_spread(family, rest_cells, rest_sums, request.resampling, rest_key)
        for name, value in values.items():
            difference = _difference(value, spread[name], rest[name], rest_spread[name])
            found[name] = replace(found[name], difference=difference)
    if family.row_groups and len(tallies) > 1:  # the draws of both models are those of the same groups of rows
        their_cells, their_sums = tallies[1].of(group)
        theirs = family.values(their_cells, their_sums[1])
        their_spread = cell_spread(family, their_cells, their_sums, request.resampling, f"{key}/{group}")
        for name, value in values.items():
            found[name] = _changed(found[name], value, theirs[name], spread[name] - their_spread[name])
    elif pairs is not None:
        theirs = family.values(*_values_of(tallies[1], group))
        change = _paired_spread(family, pairs, group, request.resampling, f"{key}/pair {group}")
        for name, value in values.items():
            about = change[name][0]
            spread_of_change = change[name][1:] - about + (float(value) - float(theirs[name]))
            found[name] = _changed(found[name], value, theirs[name], spread_of_change)
    return found


def _of_states(family: StateMetrics, tallies: list[Any], request: Measure, group: int) -> dict[str, Figures]:
    states = tallies[0]
    if group not in states:
        return _undefined(family)
    estimates = family.estimates(states[group], request.resampling.seed)
    found = {name: Figures(one) for name, one in estimates.items()}
    if len(tallies) > 1 and group in (tallies[1] or {}):
        for name, other in family.estimates(tallies[1][group], request.resampling.seed).items():
            change = Estimate(found[name].estimate.value - other.value)
            found[name] = replace(found[name], baseline=other.value, change=change)
    return found


def _others(sums: np.ndarray, group: int, compared: int | None) -> np.ndarray:
    """Return the sums of the rows to compare with, from those of all groups, (groups, ...)."""
    return sums[0] - sums[group] if compared == ALL_OTHERS else sums[compared]


def _undefined(family: Metrics) -> dict[str, Figures]:
    return {name: Figures(Estimate(np.nan)) for name in family.directions}


def _changed(figures: Figures, value: Any, theirs: Any, spread: np.ndarray) -> Figures:
    change = Estimate(float(value) - float(theirs), replicates=spread)
    return replace(figures, baseline=float(theirs), change=change)


def _difference(value: Any, spread: np.ndarray, rest: Any, rest_spread: np.ndarray) -> tuple[float, float]:
    """Return the difference between a slice and other rows, which are independent, and its standard error."""
    error, rest_error = _deviation(spread), _deviation(rest_spread)
    return float(value) - float(rest), float(np.hypot(error, rest_error))


def _deviation(replicates: np.ndarray) -> float:
    known = replicates[~np.isnan(replicates)]
    return float(np.std(known, ddof=1)) if len(known) > 1 else np.nan


def _values_of(counts: CellCounts, group: int) -> tuple[np.ndarray, np.ndarray]:
    cells, sums = counts.of(group)
    return cells, sums[1]


def cell_spread(
    family: CellMetrics, cells: np.ndarray, sums: np.ndarray, resampling: Resampling, key: str
) -> dict[str, np.ndarray]:
    """Return the metrics of each replicate, float64 (replicates,), centred on the values of the exact cells."""
    exact = None
    if len(cells) > MOST_RESAMPLED:
        exact = family.values(cells, sums[1])
        cells, sums = _grouped(family.resampling_cells(cells, sums[1], MOST_RESAMPLED), sums)
    drawn = _drawn(family, cells, sums, resampling, key)
    spread = _replicates(functools.partial(family.values, cells), drawn)
    if exact is None:
        return spread
    rough = family.values(cells, sums[1])
    return {name: values + (exact[name] - rough[name]) for name, values in spread.items()}


def _paired_spread(
    family: CellMetrics, pairs: CellCounts, group: int, resampling: Resampling, key: str
) -> dict[str, np.ndarray]:
    """Return the change of each metric, float64 (1 + replicates,); the first entry is the observed change."""
    cells, sums = pairs.of(group)
    cells = cells.reshape(-1, 2)
    if len(cells) > MOST_RESAMPLED:
        cells, sums = _few_pairs(family, cells, sums)

    def change(drawn: np.ndarray) -> dict[str, np.ndarray]:
        ours, theirs = (family.values(*_grouped(cells[:, model], drawn)) for model in (0, 1))
        return {name: ours[name] - theirs[name] for name in ours}

    counted = change(sums[1:2])
    spread = _replicates(change, resampling.of_counts(sums[1], sums[2], key))
    return {name: np.concatenate([counted[name], spread[name]]) for name in counted}


def _drawn(
    family: CellMetrics, cells: np.ndarray, sums: np.ndarray, resampling: Resampling, key: str
) -> Iterator[np.ndarray]:
    """Yield the counts of cells in some replicates, (some replicates, n), from the sums of `CellCounts.of`."""
    if family.row_groups:
        return resampling.of_groups(sums[1], cells % family.row_groups, family.row_groups, key)
    return resampling.of_counts(sums[1], sums[2], key)


def _replicates(
    values: Callable[[np.ndarray], dict[str, np.ndarray]], drawn: Iterator[np.ndarray]
) -> dict[str, np.ndarray]:
    """Return the metrics of each replicate by name, float64 (replicates,), from counts (some replicates, n)."""
    parts = [values(counts) for counts in drawn]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _few_pairs(family: CellMetrics, cells: np.ndarray, sums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Merge pairs of cells (n, 2) into coarser pairs, and return them with their sums."""
    coarse = []
    for of_model in cells.T:
        own, places = np.unique(of_model, return_inverse=True)
        counts = np.bincount(places, sums[1])
        coarse.append(family.resampling_cells(own, counts, MOST_RESAMPLED_OF_A_MODEL)[places])
    pairs, places = np.unique(np.stack(coarse, axis=1), axis=0, return_inverse=True)
    return pairs, np.stack([np.bincount(places.ravel(), one) for one in sums])


def _grouped(cells: np.ndarray, sums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Merge equal cells: return ascending cells (m,) and sums (..., m)."""
    if not len(cells):
        return cells, sums
    order = np.argsort(cells, kind="stable")
    ordered = cells[order]
    starts = np.flatnonzero(np.append(True, np.diff(ordered) != 0))
    return ordered[starts], np.add.reduceat(sums[..., order], starts, axis=-1)
