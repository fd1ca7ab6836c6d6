"""What is computed over all rows, as values that add up: in any order, wherever Beam has room."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

Self = TypeVar("Self", bound="Accumulator")


class Accumulator(Protocol):
    """Takes in batches and merges with others; picklable, and small beside the data.

    Any partition of the rows, merged in any order, gives the same figures (floating-point sums to
    within rounding).
    """

    def add(self, *values: Any) -> None:
        """Takes in one batch: for each tensor that a layer is called on, an array (rows, ...).

        Numbers come as they are, NaN where one is missing; texts as `bytes` in an array of objects.
        """

    def merge(self: Self, other: Self) -> None:
        """Takes in what another worker accumulated."""

    def readable(self) -> dict[str, Any] | list[tuple[str, int]]:
        """The figures for people: numbers and lists by name, or values with their counts."""
