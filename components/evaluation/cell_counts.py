"""How many rows of each group fall into each cell, however many cells there turn out to be."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

# What was added waits until there is so much of it, or as much as is settled.
WAITING = 1 << 17


class CellCounts:
    """Counts of (group, cell), as sorted arrays; a cell is a whole number, or several.

    Args:
        groups: how many groups there are.
        most: beyond so many cells of a group, they are made fewer; None for no bound.
        coarse: how: from cells to those that stand for them; what it gives it must give back.

    Whether a group is coarse depends on all of its rows alone, so any order of merging gives the same.
    """

    def __init__(
        self, groups: int, most: int | None = None, coarse: Callable[[np.ndarray], np.ndarray] | None = None
    ) -> None:
        self._most, self._make_coarse = most, coarse
        self._is_coarse = np.zeros(groups, bool)
        self._settled: _Part | None = None
        self._waiting: list[_Part] = []

    def add(self, group: np.ndarray, cell: np.ndarray, weight: np.ndarray | None) -> None:
        """Takes in rows.

        Args:
            group: int64 (rows,); rows of a negative one are left out.
            cell: int64 (rows,), or (rows, numbers).
            weight: float64 (rows,); None where all are 1.
        """
        inside = group >= 0
        weight = np.ones(len(group)) if weight is None else weight
        sums = np.stack([np.ones(len(group)), weight, np.square(weight)], axis=1)
        self._take(_together(group[inside], cell[inside].reshape(int(inside.sum()), -1), sums[inside]))

    def merge(self, other: CellCounts) -> None:
        self._is_coarse |= other._is_coarse
        for part in [*([other._settled] if other._settled else []), *other._waiting]:
            self._take(part)
        self._settle()

    def of(self, group: int) -> tuple[np.ndarray, np.ndarray]:
        """The cells of a group, ascending int64 (n,), or (n, numbers) where a cell is several; and the
        sums of 1, weight and weight² in each, float64 (3, n)."""
        part = self._settle()
        if part is None:
            return np.empty(0, np.int64), np.empty((3, 0))
        start, end = np.searchsorted(part.group, [group, group + 1])
        cells = part.cell[start:end]
        return cells[:, 0] if cells.shape[1] == 1 else cells, part.sums[start:end].T

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
        if self._most is None:
            return part
        self._is_coarse |= np.bincount(part.group, minlength=len(self._is_coarse)) > self._most
        rounded = self._is_coarse[part.group]
        if not rounded.any():
            return part
        cell = part.cell.copy()
        cell[rounded] = self._make_coarse(cell[rounded])
        return _together(part.group, cell, part.sums)


class _Part(NamedTuple):
    """Sorted by group and cell, each pair once: int64 (n,), int64 (n, numbers), float64 (n, 3)."""

    group: np.ndarray
    cell: np.ndarray
    sums: np.ndarray


def _together(group: np.ndarray, cell: np.ndarray, sums: np.ndarray) -> _Part:
    if not len(group):
        return _Part(group, cell, sums)
    order = np.lexsort((*cell.T[::-1], group))
    group, cell = group[order], cell[order]
    new = np.append(True, (np.diff(group) != 0) | (np.diff(cell, axis=0) != 0).any(axis=1))
    starts = np.flatnonzero(new)
    return _Part(group[starts], cell[starts], np.add.reduceat(sums[order], starts, axis=0))
