"""Dividing what there is to read into pieces, each of which makes shards of its own on whatever worker."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

# A second or so of reading CSV. Large data make many pieces, and small data one.
PIECE_BYTES = 48 << 20

Item = TypeVar("Item")


def divided(items: Iterable[tuple[Item, int]]) -> list[list[Item]]:
    """Items in their order, neighbours together as long as they have no more than `PIECE_BYTES`.

    Args:
        items: each with its bytes.
    """
    found: list[list[Item]] = []
    size = PIECE_BYTES
    for item, its_size in items:
        if not found or size + its_size > PIECE_BYTES:
            found.append([])
            size = 0
        found[-1].append(item)
        size += its_size
    return found
