"""How many steps go into one call of TensorFlow, and whether XLA compiles them; tuned in the first steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# A call should be long against what it costs to make it (some 0.3 ms), and short against the wish to
# see progress, to write a checkpoint and to stop.
SECONDS_A_CALL = 0.25
# Before XLA is tried on a CPU: so long were steps measured, and at least so long do they go on, since
# compiling takes a second or more; it helps where many small operations cost more than their arithmetic.
MEASURED_SECONDS = 0.3
WORTH_TRYING_SECONDS = 3.0
SMALL_STEP_SECONDS = 0.02
GAIN = 0.95


@dataclass
class Pace:
    """Counts, times and decides.

    Attributes:
        per_call: steps that go into a call; "auto" by their time.
        jit: whether XLA compiles; "auto" tries.
        on_gpu: where XLA is taken without a trial.
    """

    per_call: int | Literal["auto"]
    jit: bool | Literal["auto"]
    on_gpu: bool = False

    def __post_init__(self) -> None:
        self.compiled = self.on_gpu if self.jit == "auto" else self.jit
        self._decided = self.jit != "auto" or self.on_gpu
        self._measured: dict[bool, tuple[int, float]] = {}
        self._begun: set[bool] = set()
        self._last: float | None = None

    @property
    def step_seconds(self) -> float | None:
        """Of the present way, over all its calls but the first, which compiles."""
        steps, seconds = self._measured.get(self.compiled, (0, 0.0))
        return seconds / steps if steps else self._last

    def count(self, most: int) -> int:
        """Steps for the next call, of at most so many that are left in the chunk."""
        if self.per_call != "auto":
            return min(self.per_call, most)
        known = self.step_seconds
        return 1 if known is None else max(1, min(most, round(SECONDS_A_CALL / max(known, 1e-9))))

    def took(self, steps: int, seconds: float, steps_left: int) -> bool:
        """Learns from a call.

        Returns:
            Whether it was a way's first, whose time is mostly that of tracing and compiling.
        """
        if self.compiled not in self._begun:
            self._begun.add(self.compiled)
            self._last = None
            return True
        before = self._measured.get(self.compiled, (0, 0.0))
        self._measured[self.compiled] = before[0] + steps, before[1] + seconds
        if not self._decided and self._measured[self.compiled][1] >= MEASURED_SECONDS:
            self._decide(steps_left)
        return False

    def give_up_compiling(self) -> None:
        """XLA cannot compile this model."""
        self.compiled, self._decided = False, True

    def decision(self) -> dict[str, bool]:
        """What a checkpoint keeps, so that training goes on as it was."""
        return {"compiled": self.compiled, "decided": self._decided}

    def resume(self, decision: dict[str, bool]) -> None:
        self.compiled, self._decided = decision["compiled"], decision["decided"]

    def _decide(self, steps_left: int) -> None:
        plain = self._measured[False][0] and self._measured[False][1] / self._measured[False][0]
        if not self.compiled:
            if plain > SMALL_STEP_SECONDS:
                self._decided = True
            self.compiled = not self._decided and plain * steps_left > WORTH_TRYING_SECONDS
            return
        steps, seconds = self._measured[True]
        self.compiled, self._decided = seconds / steps < GAIN * plain, True
