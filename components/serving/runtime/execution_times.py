"""Estimates of how long an execution takes, by its number of rows, from the executions before."""

from __future__ import annotations

from dataclasses import dataclass

# Weight of the latest execution in the moving average of execution times. A slower execution may only have been
# interrupted and counts little, unless it was much slower.
FASTER_WEIGHT, SLOWER_WEIGHT, MUCH_SLOWER_WEIGHT = 0.5, 0.02, 0.5
MUCH_SLOWER_SECONDS = 0.02


@dataclass
class _Average:
    rows: float
    seconds: float


class ExecutionTimes:
    """Moving averages, one for the executions whose numbers of rows have the same bit length.

    An execution of more rows takes at least as long as one of fewer, and at most in proportion. Each measurement
    therefore also bounds the averages of other numbers of rows, which may date from a time when the machine was busier.

    Args:
        seconds: time of one row, or None if unknown.
    """

    def __init__(self, seconds: float | None):
        self._averages = {} if seconds is None else {(1).bit_length(): _Average(1.0, seconds)}

    def record(self, rows: int, seconds: float) -> None:
        average = self._averages.setdefault(rows.bit_length(), _Average(rows, seconds))
        slower_weight = MUCH_SLOWER_WEIGHT if seconds > MUCH_SLOWER_SECONDS else SLOWER_WEIGHT
        average.seconds += (FASTER_WEIGHT if seconds < average.seconds else slower_weight) * (seconds - average.seconds)
        average.rows += FASTER_WEIGHT * (rows - average.rows)
        for other in self._averages.values():
            ratio = other.rows / average.rows if average.rows else 1.0
            least, most = average.seconds * min(1.0, ratio), average.seconds * max(1.0, ratio)
            other.seconds = min(max(other.seconds, least), most)

    def measured(self, rows: int) -> float | None:
        """Return the time of executions of about as many rows, or None if there were none."""
        average = self._averages.get(rows.bit_length())
        return None if average is None else average.seconds

    def estimate(self, rows: int) -> float:
        """Return the time of an execution, extrapolated from the nearest number of rows; 0 if nothing is known."""
        if not self._averages or not rows:
            return 0.0
        nearest = min(self._averages, key=lambda bits: abs(bits - rows.bit_length()))
        average = self._averages[nearest]
        return average.seconds * max(1.0, rows / max(average.rows, 1.0))

    def seconds_per_row(self) -> float:
        """Return the time of a row in the most efficient batches, or 0 if nothing is known."""
        return min((one.seconds / max(one.rows, 1.0) for one in self._averages.values()), default=0.0)
