"""Splits of exact shares: rows are counted in a first pass, then assigned in units that stay whole.

A unit is a group of rows or, without groups, the rows with one hash. Because only counts by hash decide, the splits
depend neither on the order of the rows nor on how many workers read them. Above `MOST_UNITS` units, those whose hashes
have the same first bits are one unit, so that memory does not grow with the data.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import numpy as np

from kerasline.components.core.errors import DataError

MOST_UNITS = 1 << 16
MOST_STRATA = 1000
# Bounds the time of `_improved` to a few seconds for the largest numbers of groups and strata.
MOST_MOVES = 10_000
UNITS_AT_ONCE = 1024
EPSILON = 1e-9  # a smaller change is a rounding error


@dataclass
class UnitCounts:
    """The number of rows of each unit.

    Attributes:
        bits: number of leading bits of a hash that identify a unit.
        units: uint64 (units,), ascending.
        rows: int64 (units,).
    """

    bits: int = 64
    units: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint64))
    rows: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))

    def add(self, hashes: np.ndarray) -> None:
        """Count rows, given by the hashes of their units, uint64 (rows,)."""
        units, rows = np.unique(hashes >> np.uint64(64 - self.bits), return_counts=True)
        self._add(units, rows)

    def merge(self, other: UnitCounts) -> None:
        self.truncate(other.bits)
        other.truncate(self.bits)
        self._add(other.units, other.rows)

    def truncate(self, bits: int) -> None:
        """Identify units by fewer bits."""
        if bits < self.bits:
            self.units, self.rows = _summed(self.units >> np.uint64(self.bits - bits), self.rows)
            self.bits = bits

    def _add(self, units: np.ndarray, rows: np.ndarray) -> None:
        units, rows = np.concatenate([self.units, units]), np.concatenate([self.rows, rows])
        order = np.argsort(units, kind="stable")
        self.units, self.rows = _summed(units[order], rows[order])
        bits = self.bits
        while _distinct(self.units >> np.uint64(self.bits - bits)) > MOST_UNITS:
            bits -= 1
        self.truncate(bits)


@dataclass
class Counts:
    """The units' numbers of rows, by the hash of their stratum.

    Args:
        column: the column of strata, for the error message.
    """

    column: str | None
    strata: dict[int, UnitCounts] = field(default_factory=dict)

    def add(self, units: np.ndarray, strata: np.ndarray) -> None:
        """Count rows, given by the hashes of their units and strata, uint64 (rows,).

        Raises:
            DataError: there are too many strata.
        """
        order = np.argsort(strata, kind="stable")
        values, starts = np.unique(strata[order], return_index=True)
        for stratum, hashes in zip(values.tolist(), np.split(units[order], starts[1:])):
            self.strata.setdefault(stratum, UnitCounts()).add(hashes)
        self._check()

    def merge(self, other: Counts) -> Counts:
        for stratum, counts in other.strata.items():
            self.strata.setdefault(stratum, UnitCounts()).merge(counts)
        self._check()
        return self

    def _check(self) -> None:
        if len(self.strata) > MOST_STRATA:
            raise DataError(
                f"ExampleGen.stratify: expected a column of at most {MOST_STRATA:,} different values, received "
                f"{self.column!r}, which has more; stratify by a class"
            )


@dataclass(frozen=True)
class Assignment:
    """The split of each unit.

    Attributes:
        bits, units: see `UnitCounts`.
        splits: int64 (units,), the index of the split.
    """

    bits: int
    units: np.ndarray
    splits: np.ndarray

    def of(self, hashes: np.ndarray) -> np.ndarray:
        """Return the index of the split of rows, given by the hashes of their units."""
        places = np.searchsorted(self.units, hashes >> np.uint64(64 - self.bits))
        return self.splits[np.minimum(places, len(self.units) - 1)]


def assign_rows(counts: Counts, shares: np.ndarray) -> dict[int | None, Assignment]:
    """Return the assignment of each stratum, of units that are in one stratum alone.

    The numbers of rows are exact within each stratum, up to the size of a unit. What rounding takes from a split in one
    stratum it gets in the next, so they are as exact over all strata.

    Args:
        shares: float64 (splits,), with sum 1.
    """
    owed = np.zeros(len(shares))
    found: dict[int | None, Assignment] = {}
    for stratum in sorted(counts.strata):
        units = counts.strata[stratum]
        targets = shares * units.rows.sum() + owed
        splits = _assigned(units.rows[:, np.newaxis], targets[:, np.newaxis])
        owed = targets - np.bincount(splits, units.rows, len(shares))
        found[stratum] = Assignment(units.bits, units.units, splits)
    return found


def assign_groups(counts: Counts, shares: np.ndarray) -> Assignment:
    """Return the assignment of units that stay whole and may have rows of several strata.

    Args:
        shares: float64 (splits,), with sum 1.
    """
    bits = min(one.bits for one in counts.strata.values())
    for one in counts.strata.values():
        one.truncate(bits)
    strata = [counts.strata[stratum] for stratum in sorted(counts.strata)]
    units = np.unique(np.concatenate([one.units for one in strata]))
    rows = np.zeros((len(units), len(strata)))
    for column, one in enumerate(strata):
        rows[np.searchsorted(units, one.units), column] = one.rows
    targets = shares[:, np.newaxis] * rows.sum(axis=0)
    return Assignment(bits, units, _with_all_splits(_assigned(rows, targets), rows.sum(axis=1), len(shares)))


def _summed(units: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct units of ascending ones, and their sums of rows."""
    starts = np.flatnonzero(np.diff(units, prepend=units[:1] + np.uint64(1)))
    return units[starts], np.add.reduceat(rows, starts) if len(starts) else rows


def _distinct(units: np.ndarray) -> int:
    """Return the number of distinct ones of ascending units."""
    return int(np.count_nonzero(np.diff(units))) + 1


def _assigned(rows: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the index of the split of each unit, int64 (units,).

    Units in the order of their hashes are cut at the shares, as splits by hash are. Then single units move, or two of
    them change places, while that reduces the chi-square distance from the targets.

    Args:
        rows: (units, strata).
        targets: float64 (splits, strata), the rows that each split should have.
    """
    sizes = rows.sum(axis=1)
    bounds = np.cumsum(np.maximum(targets.sum(axis=1), 0))
    middles = np.cumsum(sizes) - sizes / 2
    splits = np.searchsorted(bounds[:-1] / max(bounds[-1], 1) * sizes.sum(), middles, side="right")
    return _improved(splits, rows, targets, np.sqrt(np.maximum(rows.sum(axis=0), 1)))


def _improved(splits: np.ndarray, rows: np.ndarray, targets: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Move units until no split has half a row too many or few of a stratum, or nothing reduces the distance."""
    rows, targets = rows / scale, targets / scale
    excess = np.stack([rows[splits == split].sum(axis=0) for split in range(len(targets))]) - targets
    first, searched = 0, 0  # of the units whose moves are compared, and how many units have none that helps
    for _ in range(MOST_MOVES):
        if (np.abs(excess * scale) <= 0.5).all():
            break
        best = 0.0
        moves: list[tuple[int, int]] = []
        while best > -EPSILON and searched < len(rows):
            window = np.arange(first, min(first + UNITS_AT_ONCE, len(rows)))
            best, moves = _best_move(window, splits, rows, excess)
            if best > -EPSILON:
                first, searched = (first + len(window)) % len(rows), searched + len(window)
        if best > -EPSILON and rows.shape[1] == 1:
            best, moves = _best_exchange(splits, rows[:, 0], excess[:, 0])
        if best > -EPSILON:
            break
        searched = 0
        for unit, to in moves:
            excess[splits[unit]] -= rows[unit]
            excess[to] += rows[unit]
            splits[unit] = to
    return splits


def _best_move(
    window: np.ndarray, splits: np.ndarray, rows: np.ndarray, excess: np.ndarray
) -> tuple[float, list[tuple[int, int]]]:
    """Return half the change of the squared excess by the best move of a unit of the window, and the move."""
    # Moving a unit c from split k to m changes the squared excess by 2 (|c|² - c·excess[k] + c·excess[m]).
    along, own = rows[window] @ excess.T, (np.arange(len(window)), splits[window])
    change = (rows[window] ** 2).sum(axis=1)[:, np.newaxis] - along[own][:, np.newaxis] + along
    change[own] = np.inf
    place, to = np.unravel_index(np.argmin(change), change.shape)
    return float(change[place, to]), [(int(window[place]), int(to))]


def _best_exchange(splits: np.ndarray, sizes: np.ndarray, excess: np.ndarray) -> tuple[float, list[tuple[int, int]]]:
    """Return half the change of the squared excess by the best exchange of two units, and its two moves."""
    best: tuple[float, list[tuple[int, int]]] = (0.0, [])
    for full, other in itertools.permutations(range(len(excess)), 2):
        surplus = (excess[full] - excess[other]) / 2
        ours, theirs = (_one_of_each_size(np.flatnonzero(splits == split), sizes) for split in (full, other))
        if surplus <= 0 or not len(ours) or not len(theirs):
            continue
        places = np.searchsorted(sizes[theirs], sizes[ours] - surplus)
        for shift in (-1, 0):
            partners = theirs[np.clip(places + shift, 0, len(theirs) - 1)]
            moved = sizes[ours] - sizes[partners]
            change = moved * (moved - 2 * surplus)
            pair = int(np.argmin(change))
            if change[pair] < best[0]:
                best = (float(change[pair]), [(int(ours[pair]), other), (int(partners[pair]), full)])
    return best


def _one_of_each_size(units: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    return units[np.unique(sizes[units], return_index=True)[1]]


def _with_all_splits(splits: np.ndarray, sizes: np.ndarray, count: int) -> np.ndarray:
    """Give each empty split the smallest unit of the split that has most units, as long as that has several."""
    for empty in range(count):
        if not (splits == empty).any():
            numbers = np.bincount(splits, minlength=count)
            if numbers.max() < 2:
                break
            units = np.flatnonzero(splits == numbers.argmax())
            splits[units[np.argmin(sizes[units])]] = empty
    return splits
