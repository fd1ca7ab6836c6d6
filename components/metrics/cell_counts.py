"""Count the rows of each group in each cell. The number of cells need not be known in advance."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

# Added cells are merged when there are this many, or as many as are merged already.
WAITING = 1 << 17


def _keep_exact(cells: np.ndarray, level: int) -> np.ndarray:
    return cells


class CellCounts:
    """Counts by group and cell, as sorted arrays. A cell is an integer or a tuple of integers.

    If a group has too many cells, they are coarsened. Each element of its cells gets the lowest level that leaves few
    enough distinct values. The level depends only on the rows of the group, so any order of merging gives the same
    result.

    Args:
        groups: number of groups.
        most: maximum number of cells of a group before they are coarsened.
        coarse: `coarse(cells, level)` returns the coarser cells, see `CellMetrics.coarsen`.
        levels: the last level. Its cells are never coarsened further.
        most_values: maximum number of distinct values of each element of a cell after coarsening. Defaults to `most`.
    """

    def __init__(
        self,
        groups: int,
        most: int = sys.maxsize,
        coarse: Callable[[np.ndarray, int], np.ndarray] = _keep_exact,
        levels: int = 0,
        *,
        most_values: int | None = None,
    ) -> None:
        self._most, self._coarse, self._last, self._most_values = most, coarse, levels, most_values or most
        self._level = np.zeros((groups, 1), np.int64)  # of each element of the cells
        self._is_coarse = np.zeros(groups, bool)
        self._settled: _Part | None = None
        self._waiting: list[_Part] = []

    def add(self, group: np.ndarray, cell: np.ndarray, weight: np.ndarray | None) -> None:
        """Add rows.

        Args:
            group: int64 (rows,). Rows with a negative group are ignored.
            cell: int64 (rows,), or (rows, elements).
            weight: float64 (rows,), or None if all weights are 1.
        """
        inside = group >= 0
        weight = np.ones(len(group)) if weight is None else weight
        sums = np.stack([np.ones(len(group)), weight, np.square(weight)], axis=1)
        cell = cell[:, np.newaxis] if cell.ndim == 1 else cell
        self._take(_together(group[inside], cell[inside], sums[inside]))

    def merge(self, other: CellCounts) -> None:
        self._level = np.maximum(self._level, other._level)  # (groups, 1) where none has cells
        self._is_coarse |= other._is_coarse
        for part in [*([other._settled] if other._settled else []), *other._waiting]:
            self._take(part)
        self._settle()

    def of(self, group: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the cells of a group, and the sums of 1, weight and weight² in each.

        Returns:
            Cells in ascending order, int64 (n,) or (n, elements), and sums, float64 (3, n).
        """
        part = self._settle()
        if part is None:
            return np.empty(0, np.int64), np.empty((3, 0))
        start, end = np.searchsorted(part.group, [group, group + 1])
        cells = part.cell[start:end]
        return cells[:, 0] if cells.shape[1] == 1 else cells, part.sums[start:end].T

    def of_others(self, group: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the cells and sums, as `of` does, of the rows of group 0 that are not in this subset of it."""
        cells, sums = self.of(0)
        mine, my_sums = self.of(group)
        if self._is_coarse[0]:
            mine = self._coarse(mine, int(self._level[0, 0]))
        left = sums.copy()
        np.subtract.at(left.T, np.searchsorted(cells, mine), my_sums.T)
        kept = left[0] > 0.5
        return cells[kept], np.maximum(left[:, kept], 0)

    def _take(self, part: _Part) -> None:
        self._waiting.append(part)
        settled = len(self._settled.group) if self._settled else 0
        if sum(len(waiting.group) for waiting in self._waiting) > max(WAITING, settled):
            self._settle()

    def _settle(self) -> _Part | None:
        if self._waiting:
            parts = [*([self._settled] if self._settled else []), *self._waiting]
            self._waiting = []
            self._settled = self._few(_together(*map(np.concatenate, zip(*parts))))
        return self._settled

    def _few(self, part: _Part) -> _Part:
        if not self._last:
            return part
        part = self._rounded(part)
        self._is_coarse |= np.bincount(part.group, minlength=len(self._level)) > self._most
        if not self._is_coarse.any():
            return part
        self._level = np.array(np.broadcast_to(self._level, (len(self._level), part.cell.shape[1])))
        before = self._level.copy()
        for group in np.flatnonzero(self._is_coarse).tolist():
            start, end = np.searchsorted(part.group, [group, group + 1])
            for place, numbers in enumerate(part.cell[start:end].T):
                self._level[group, place] = self._level_for(_distinct(numbers), int(self._level[group, place]))
        return self._rounded(part) if (self._level != before).any() else part

    def _rounded(self, part: _Part) -> _Part:
        if not self._is_coarse.any():
            return part
        levels = np.broadcast_to(self._level[part.group], part.cell.shape)
        cell = part.cell.copy()
        for level in np.flatnonzero(np.bincount(levels.ravel())).tolist():
            if level:
                cell[levels == level] = self._coarse(cell[levels == level], level)
        return _together(part.group, cell, part.sums)

    def _level_for(self, numbers: np.ndarray, level: int) -> int:
        """Return the lowest level, at least this one, that leaves few enough of these distinct values, (n,)."""

        def few(level: int) -> bool:
            return len(_distinct(self._coarse(numbers, level))) <= self._most_values

        if len(numbers) <= self._most_values:
            return level
        too_low, enough = level, self._last
        while enough - too_low > 1:
            middle = (enough + too_low) // 2
            too_low, enough = (too_low, middle) if few(middle) else (middle, enough)
        return enough


class _Part(NamedTuple):
    """Unique pairs, sorted by group and cell: int64 (n,), int64 (n, elements), float64 (n, 3)."""

    group: np.ndarray
    cell: np.ndarray
    sums: np.ndarray


def _distinct(numbers: np.ndarray) -> np.ndarray:
    """Return the distinct numbers, ascending. `np.unique` hashes them, which is slower where many are in order."""
    ordered = np.sort(numbers, kind="stable")
    return ordered[np.append(True, ordered[1:] != ordered[:-1])] if len(ordered) else ordered


def _together(group: np.ndarray, cell: np.ndarray, sums: np.ndarray) -> _Part:
    if not len(group):
        return _Part(group, cell, sums)
    keys = (*cell.T[::-1], *([group] if group[0] != group[-1] or np.ptp(group) else []))
    order = np.lexsort(keys) if len(keys) > 1 else np.argsort(keys[0], kind="stable")
    group, cell = group[order], cell[order]
    new = np.append(True, (np.diff(group) != 0) | (np.diff(cell, axis=0) != 0).any(axis=1))
    starts = np.flatnonzero(new)
    return _Part(group[starts], cell[starts], np.add.reduceat(sums[order], starts, axis=0))
