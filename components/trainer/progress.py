"""The progress messages of a training."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

SECONDS_BETWEEN_MESSAGES = 0.5


class Progress:
    """Reports the progress of training and its remaining time, at most twice a second.

    Args:
        report: called with each message.
        epochs: total number of epochs.
        steps: total number of steps.
    """

    def __init__(self, report: Callable[[str], None], epochs: int, steps: int) -> None:
        self.say, self._epochs, self._steps = report, epochs, steps
        self._last_message = 0.0

    def steps_done(self, epoch: int, step: int, loss: float, step_seconds: float | None) -> None:
        """Report after a call of several steps.

        Args:
            epoch: number of the current epoch, from 1.
            step: number of steps done, over all epochs.
            loss: mean loss of the epoch so far.
            step_seconds: seconds per step, if known.
        """
        now = time.monotonic()
        if now - self._last_message < SECONDS_BETWEEN_MESSAGES or step_seconds is None:
            return
        self._last_message = now
        left = format_duration((self._steps - step) * step_seconds)
        self.say(
            f"epoch {epoch} of {self._epochs}, step {step:,} of {self._steps:,}: loss {loss:.4g}, "
            f"{1 / step_seconds:,.3g} steps/s, {left} left"
        )

    def epoch_done(self, epoch: int, metrics: Mapping[str, Any]) -> None:
        values = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items() if isinstance(value, float))
        self.say(f"epoch {epoch} of {self._epochs}: {values}")


def format_duration(seconds: float) -> str:
    """Return a duration as text: "8 s", "3 min", "2.5 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
