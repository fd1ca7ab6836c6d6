"""Micro-batching: one execution takes all that clients have sent by now, and waits for no more unless told to.

While a batch is executed others queue, so that batches grow with the load by themselves. A batch of a
size that takes less than `INLINE_SECONDS` is executed in the event loop: handing it to a thread and back
costs more than it does. Everything else runs in a thread, and the loop goes on.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Any, Protocol

import numpy as np

from kerasline.components.models.signatures import Signature
from kerasline.components.serving.runtime.errors import RequestError, from_exception, invalid
from kerasline.components.serving.settings import BatchSettings

INLINE_SECONDS = 0.001
# How much the newest execution counts in the estimate of an execution's time: one that was quicker
# counts at once, one that was slower may only have been interrupted, unless it was much slower.
QUICKER, SLOWER, MUCH_SLOWER = 0.5, 0.02, 0.5
MUCH = 20 * INLINE_SECONDS
SWEEP_SECONDS = 0.02
# A batch has all that was sent by now once so many turns of the event loop brought no more: one reads what has
# come, one takes it up. Where each turn brings some, it is executed after a while all the same.
QUIET_TURNS = 2
MOST_SECONDS = 0.005

Arrays = Sequence[np.ndarray]


class Deferred(Protocol):
    """Inputs that are made arrays when a batch is put together."""

    rows: int

    def arrays(self) -> Arrays: ...
    def arrays_with(self, others: Sequence[Any]) -> Arrays: ...


def rows_of(inputs: Arrays | Deferred) -> int | None:
    """How many rows a request asks about; None where its inputs have none."""
    if isinstance(inputs, list):
        return len(inputs[0]) if inputs and inputs[0].ndim else None
    return inputs.rows


class Waiting:
    """A request that waits for its outputs."""

    __slots__ = ("inputs", "rows", "future", "deadline", "since", "shapes")

    def __init__(self, inputs: Arrays | Deferred, rows: int, future: Any, deadline: float, since: float, shapes: Any):
        self.inputs, self.rows, self.future = inputs, rows, future
        self.deadline, self.since, self.shapes = deadline, since, shapes

    def arrays(self) -> Arrays:
        return self.inputs if isinstance(self.inputs, list) else self.inputs.arrays()


class Batcher:
    """Executes the requests for one signature of one version. To be used in the event loop only.

    `observe(requests, rows, waited_seconds, seconds)` is told of each execution.
    """

    def __init__(
        self,
        call: Callable[[Arrays], list[np.ndarray]],
        signature: Signature,
        settings: BatchSettings,
        *,
        threads: Executor,
        observe: Callable[[int, int, float, float], None],
        seconds: float | None = None,
    ):
        self._call, self._settings, self._threads, self._observe = call, settings, threads, observe
        self._loop = asyncio.get_running_loop()
        self._merges = settings.enabled and signature.is_batchable
        self._batched_inputs = all(spec.is_batched for spec in signature.inputs.values())
        self._same_shapes = all(
            spec.shape is not None and None not in spec.shape[1:] for spec in signature.inputs.values()
        )
        # The estimated time of an execution, by the number of binary digits of its rows.
        self._seconds: dict[int, float] = {} if seconds is None else {(1).bit_length(): seconds}
        self._gathered = self._quiet_turns = 0
        self._queue: deque[Waiting] = deque()
        self._executing: list[Waiting] = []
        self._is_scheduled = self._is_swept = False

    def submit(self, inputs: Arrays | Deferred, deadline: float) -> asyncio.Future[list[np.ndarray]]:
        """The outputs to come. `deadline` is in seconds of `time.monotonic`; arrays come as a list.

        Raises RESOURCE_EXHAUSTED where the queue is full. The future may raise what `RequestError` has.
        """
        if len(self._queue) >= self._settings.queue:
            raise RequestError(
                "RESOURCE_EXHAUSTED",
                f"The batch scheduling queue to which this task was submitted is full; "
                f"{len(self._queue)} requests wait",
            )
        if not isinstance(inputs, list) and not (self._merges and self._same_shapes):
            inputs = inputs.arrays()
        if isinstance(inputs, list):
            rows = _rows(inputs) if self._batched_inputs else 1
            shapes = None if self._same_shapes else [array.shape[1:] for array in inputs]
        else:
            rows, shapes = inputs.rows, None
        future = self._loop.create_future()
        self._queue.append(Waiting(inputs, rows, future, deadline, time.monotonic(), shapes))
        self._schedule()
        if not self._is_swept:
            self._is_swept = True
            self._loop.call_later(SWEEP_SECONDS, self._sweep)
        return future

    def _schedule(self) -> None:
        if self._is_scheduled or self._executing or not self._queue:
            return
        self._is_scheduled = True
        delay = self._settings.delay_seconds
        if delay and self._merges:
            due = self._queue[0].since + delay - time.monotonic()
            if due > 0 and sum(one.rows for one in self._queue) < self._settings.rows:
                self._is_scheduled = False
                self._loop.call_later(due, self._schedule_now)
                return
        self._gathered = self._quiet_turns = 0
        self._loop.call_soon(self._gather)

    def _schedule_now(self) -> None:
        if not self._is_scheduled and not self._executing and self._queue:
            self._is_scheduled = True
            self._loop.call_soon(self._execute_next)

    def _gather(self) -> None:
        """Looks again with each turn of the loop until the batch is full or no more comes."""
        queue = self._queue
        self._quiet_turns = self._quiet_turns + 1 if len(queue) == self._gathered else 0
        self._gathered = len(queue)
        is_full = not self._merges or not queue or len(queue) >= self._settings.rows
        if is_full or self._quiet_turns >= QUIET_TURNS or time.monotonic() - queue[0].since > MOST_SECONDS:
            self._execute_next()
        else:
            self._loop.call_soon(self._gather)

    def _execute_next(self) -> None:
        self._is_scheduled = False
        batch = self._take()
        if not batch:
            return
        self._executing = batch
        rows = sum(one.rows for one in batch)
        if self._seconds.get(rows.bit_length(), INLINE_SECONDS) < INLINE_SECONDS:
            self._finish(batch, *_execute(self._call, batch))
        else:
            self._threads.submit(self._execute_in_thread, batch)

    def _execute_in_thread(self, batch: list[Waiting]) -> None:
        result = _execute(self._call, batch)
        try:
            self._loop.call_soon_threadsafe(self._finish, batch, *result)
        except RuntimeError:
            pass  # the loop is closed: nobody waits any more

    def _take(self) -> list[Waiting]:
        """The next requests to execute together; those that nobody waits for any more are dropped."""
        queue, now, batch, rows = self._queue, time.monotonic(), [], 0
        while queue:
            one = queue[0]
            if one.future.done():
                queue.popleft()
                continue
            if one.deadline <= now:
                queue.popleft()
                one.future.set_exception(_too_late())
                continue
            if batch and (rows + one.rows > self._settings.rows or one.shapes != batch[0].shapes):
                break
            batch.append(queue.popleft())
            rows += one.rows
            if not self._merges or not one.rows:
                break
        return batch

    def _finish(self, batch: list[Waiting], started: float, seconds: float, outputs: list[Any], error: Any) -> None:
        rows = sum(one.rows for one in batch)
        self._executing = []
        self._estimate(rows, seconds)
        self._observe(len(batch), rows, max(0.0, started - batch[0].since), seconds)
        if error is None and len(batch) > 1 and any(len(output) != rows for output in outputs):
            self._merges, error = False, RequestError("INTERNAL", "outputs are not one a row")
        if error is not None and len(batch) > 1:
            # One bad request must not fail the others. Those that are malformed are told so; the rest is
            # put together again; and if it is the model that refuses a row, each is executed alone.
            batch, before = _well_formed(batch), len(batch)
            if len(batch) < before:
                self._queue.extendleft(reversed(batch))
                self._schedule()
                return
            self._threads.submit(self._execute_each, batch)
            self._executing = batch
            return
        if error is not None:
            if not batch[0].future.done():
                batch[0].future.set_exception(error)
        elif len(batch) == 1:
            if not batch[0].future.done():
                batch[0].future.set_result(outputs)
        else:
            begin = 0
            for one in batch:
                end = begin + one.rows
                if not one.future.done():
                    one.future.set_result([output[begin:end] for output in outputs])
                begin = end
        self._schedule()

    def _estimate(self, rows: int, seconds: float) -> None:
        before = self._seconds.get(rows.bit_length(), seconds)
        weight = QUICKER if seconds < before else MUCH_SLOWER if seconds > MUCH else SLOWER
        self._seconds[rows.bit_length()] = before + weight * (seconds - before)

    def _execute_each(self, batch: list[Waiting]) -> None:
        results = [_execute(self._call, [one]) for one in batch]
        try:
            self._loop.call_soon_threadsafe(self._finish_each, batch, results)
        except RuntimeError:
            pass

    def _finish_each(self, batch: list[Waiting], results: list[Any]) -> None:
        self._executing = []
        for one, (_started, _seconds, outputs, error) in zip(batch, results):
            if one.future.done():
                continue
            if error is None:
                one.future.set_result(outputs)
            else:
                one.future.set_exception(error)
        self._schedule()

    def _sweep(self) -> None:
        """Answers those whose time is up, whether they wait or are being executed; drops those that are answered."""
        self._is_swept = bool(self._queue or self._executing)
        if not self._is_swept:
            return
        now = time.monotonic()
        for one in (*self._queue, *self._executing):
            if one.deadline <= now and not one.future.done():
                one.future.set_exception(_too_late())
        if any(one.future.done() for one in self._queue):  # they need not hold their inputs, nor others off
            self._queue = deque(one for one in self._queue if not one.future.done())
        self._loop.call_later(SWEEP_SECONDS, self._sweep)


def _execute(
    call: Callable[[Arrays], list[np.ndarray]], batch: list[Waiting]
) -> tuple[float, float, list[np.ndarray] | None, RequestError | None]:
    """When it began, how long it took, the outputs, or the error."""
    started = time.monotonic()
    try:
        arrays = batch[0].arrays() if len(batch) == 1 else _together(batch)
        outputs, error = call(arrays), None
    except Exception as raised:
        outputs, error = None, from_exception(raised)
    return started, time.monotonic() - started, outputs, error


def _well_formed(batch: list[Waiting]) -> list[Waiting]:
    """Makes each request's arrays; those that cannot be made are answered with the reason."""
    good = []
    for one in batch:
        try:
            one.inputs = one.arrays()
            good.append(one)
        except Exception as raised:
            if not one.future.done():
                one.future.set_exception(from_exception(raised))
    return good


def _together(batch: list[Waiting]) -> Arrays:
    inputs = [one.inputs for one in batch]
    if any(isinstance(one, list) for one in inputs):
        return [np.concatenate(arrays) for arrays in zip(*[one.arrays() for one in batch])]
    return inputs[0].arrays_with(inputs[1:])


def _rows(arrays: Arrays) -> int:
    rows = len(arrays[0])
    for array in arrays:
        if len(array) != rows:
            raise invalid("Batching Run() input tensors must have equal 0th-dimension size")
    return rows


def _too_late() -> RequestError:
    return RequestError("DEADLINE_EXCEEDED", "the request's time is up")
