"""Merging along one fixed binary tree over the elements' numbers, in whatever order their accumulators come.

So a result is the same to the last bit on every runner and with any number of workers, though floating-point sums
depend on their order. Only whole subtrees are merged at once; those whose neighbours are still to come wait, a
logarithm of them where work is done in order.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

# An accumulator that stands for 2**level elements, from the place-th such run of them on.
Nodes = dict[tuple[int, int], Any]


def insert(nodes: Nodes, level: int, place: int, accumulator: Any, merge: Callable) -> None:
    """Adds a node and merges it with its neighbour, and so on up the tree, as far as they are there."""
    while (level, place ^ 1) in nodes:
        other = nodes.pop((level, place ^ 1))
        pair = (accumulator, other) if place % 2 == 0 else (other, accumulator)
        accumulator, level, place = merge(*pair), level + 1, place // 2
    nodes[level, place] = accumulator


def add(nodes: Nodes, more: Nodes, merge: Callable) -> None:
    """Adds the nodes of other elements."""
    for (level, place), accumulator in more.items():
        insert(nodes, level, place, accumulator, merge)


def whole(nodes: Nodes, merge: Callable) -> Any:
    """The accumulator of all elements: subtrees that are left over, where their number is no power of two, in order."""
    ordered = [nodes[key] for key in sorted(nodes, key=lambda key: key[1] << key[0])]
    return functools.reduce(merge, ordered)
