"""When a batch is put together: once it has all that clients have sent by now."""

from __future__ import annotations

import time

# A batch has all of them once so many turns of the event loop brought no more: one reads, one takes up what was read.
QUIET_TURNS = 2
# grpc.aio takes requests up one by one, some turns apart. A wait for them pays where it brings so many on average.
PATIENT_TURNS, WORTHWHILE = 40, 2.0
TRIED_EVERY = 128
NEWEST = 0.125  # the newest batch's part in the average
MOST_SECONDS = 0.005


class Gathering:
    """Is asked once in each turn of the event loop, for one batch after the other.

    The fuller a batch, the less of an execution falls on a request. But a client that is alone must not wait for
    others: a long wait is only tried with one batch in `TRIED_EVERY`, and again as long as it fills batches.
    """

    def __init__(self) -> None:
        self._batches = 0
        self._late = 0.0
        self.begin()

    def begin(self) -> None:
        """A batch, whatever became of the one before."""
        self._queued = self._quiet_turns = self._prompt = 0

    def is_over(self, queued: int, since: float) -> bool:
        """Whether the batch is to be executed: `queued` requests wait, the first `since`, of `time.monotonic`."""
        self._quiet_turns = self._quiet_turns + 1 if queued == self._queued else 0
        self._queued = queued
        if self._quiet_turns >= QUIET_TURNS and not self._prompt:
            self._prompt = queued
        is_tried = self._batches % TRIED_EVERY == 0
        is_patient = is_tried or self._late >= WORTHWHILE
        turns = PATIENT_TURNS if is_patient else QUIET_TURNS
        if self._quiet_turns < turns and time.monotonic() - since < MOST_SECONDS:
            return False
        if is_patient:
            late = queued - (self._prompt or queued)
            self._late = float(late) if is_tried else self._late + NEWEST * (late - self._late)
        self._batches += 1
        return True
