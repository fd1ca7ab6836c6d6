"""The line that tells how training goes on."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

SECONDS_BETWEEN = 0.5


class Progress:
    """Reports, not too often, where training stands and when it will end.

    Args:
        report: takes a line.
        epochs, steps: in all.
    """

    def __init__(self, report: Callable[[str], None], epochs: int, steps: int) -> None:
        self._report, self._epochs, self._steps = report, epochs, steps
        self._told = 0.0

    def within(self, epoch: int, step: int, loss: float, step_seconds: float | None) -> None:
        """After a call of steps; `epoch` from 1, `step` of all."""
        now = time.monotonic()
        if now - self._told < SECONDS_BETWEEN or step_seconds is None:
            return
        self._told = now
        left = duration((self._steps - step) * step_seconds)
        self._report(
            f"epoch {epoch} of {self._epochs}, step {step:,} of {self._steps:,}: loss {loss:.4g}, "
            f"{1 / step_seconds:,.3g} steps/s, {left} left"
        )

    def epoch_ended(self, epoch: int, figures: Mapping[str, Any]) -> None:
        told = ", ".join(f"{name} {value:.4g}" for name, value in figures.items() if isinstance(value, float))
        self._report(f"epoch {epoch} of {self._epochs}: {told}")

    def say(self, text: str) -> None:
        self._report(text)


def duration(seconds: float) -> str:
    """A time as people say it: "8 s", "3 min", "2.5 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
