"""Statistics over all rows that workers accumulate separately and then merge in any order."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

Self = TypeVar("Self", bound="Accumulator")


class Accumulator(Protocol):
    """Adds batches and merges with other accumulators. Picklable, and small compared with the data.

    The result does not depend on how the rows are divided, nor on the order of merging, except for floating-point
    rounding.
    """

    def add(self, *values: Any) -> None:
        """Add one batch: an array (rows, ...) for each input tensor of a layer.

        Missing numbers are NaN. Strings are `bytes` in an array of objects.
        """

    def merge(self: Self, other: Self) -> None:
        """Add what another worker accumulated."""

    def readable(self) -> dict[str, Any] | list[tuple[str, int]]:
        """Return the result for people: numbers and lists by name, or values with their counts."""
