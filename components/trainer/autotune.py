"""The number of steps per call of TensorFlow and the use of XLA, tuned during the first steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# Target duration of a call. A call has an overhead of some 0.3 ms; between calls there is progress to report, a
# checkpoint to write or a stop request to obey.
SECONDS_PER_CALL = 0.25
# Try XLA on a CPU only after 0.3 s of measurements and with 3 s of training left, since compilation takes a second or
# more, and only for steps below 20 ms: XLA helps where the overhead of many small operations dominates.
MEASURED_SECONDS = 0.3
SECONDS_LEFT = 3.0
SMALL_STEP_SECONDS = 0.02
# Keep XLA if it takes less than this share of the time.
KEPT_TIME_RATIO = 0.95


@dataclass
class Autotuner:
    """Decides the number of steps of each call and whether to compile with XLA.

    Args:
        steps_per_execution: steps per call, or `"auto"` to decide by measurement.
        jit_compile: whether to compile with XLA, or `"auto"` to decide by measurement.
        on_gpu: whether training runs on a GPU, where `"auto"` always compiles.

    Attributes:
        is_compiled: whether calls are compiled with XLA at present.
    """

    steps_per_execution: int | Literal["auto"]
    jit_compile: bool | Literal["auto"]
    on_gpu: bool = False

    def __post_init__(self) -> None:
        self.is_compiled = self.on_gpu if self.jit_compile == "auto" else self.jit_compile
        self._is_decided = self.jit_compile != "auto" or self.on_gpu
        self._measured: dict[bool, tuple[int, float]] = {}
        self._started: set[bool] = set()

    @property
    def step_seconds(self) -> float | None:
        """Seconds per step in the present mode, without its first call, which compiles. None before any measurement."""
        steps, seconds = self._measured.get(self.is_compiled, (0, 0.0))
        return seconds / steps if steps else None

    def next_steps(self, limit: int) -> int:
        """Return the number of steps of the next call, at most `limit`."""
        if self.steps_per_execution != "auto":
            return min(self.steps_per_execution, limit)
        known = self.step_seconds
        return 1 if known is None else max(1, min(limit, round(SECONDS_PER_CALL / max(known, 1e-9))))

    def record(self, steps: int, seconds: float, steps_left: int) -> bool:
        """Record the duration of a call.

        Args:
            steps: number of steps of the call.
            seconds: its duration.
            steps_left: number of steps until the end of training.

        Returns:
            Whether it was the first call of its mode, which mostly traces and compiles.
        """
        if self.is_compiled not in self._started:
            self._started.add(self.is_compiled)
            return True
        before = self._measured.get(self.is_compiled, (0, 0.0))
        self._measured[self.is_compiled] = before[0] + steps, before[1] + seconds
        if not self._is_decided and self._measured[self.is_compiled][1] >= MEASURED_SECONDS:
            self._decide(steps_left)
        return False

    def disable_xla(self) -> None:
        """Stop compiling, because XLA cannot compile this model."""
        self.is_compiled, self._is_decided = False, True

    def state(self) -> dict[str, bool]:
        """Return the decisions, for a checkpoint."""
        return {"is_compiled": self.is_compiled, "is_decided": self._is_decided}

    def restore(self, state: dict[str, bool]) -> None:
        """Restore the decisions. A trial of XLA that was interrupted starts again with new measurements."""
        self._is_decided = state["is_decided"]
        self.is_compiled = state["is_compiled"] and self._is_decided

    def _decide(self, steps_left: int) -> None:
        steps, seconds = self._measured[False]
        plain = seconds / steps
        if not self.is_compiled:
            self._is_decided = plain > SMALL_STEP_SECONDS
            self.is_compiled = not self._is_decided and plain * steps_left > SECONDS_LEFT
            return
        steps, seconds = self._measured[True]
        self.is_compiled, self._is_decided = seconds / steps < KEPT_TIME_RATIO * plain, True
