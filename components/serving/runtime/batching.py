"""Dynamic batching: one execution takes all requests that have arrived, without waiting for more by default.

Requests queue while a batch executes, so batches grow with the load. A batch that is expected to take less than
`INLINE_SECONDS` executes in the event loop, because handing it to a thread and back costs more. All others, and all
whose time the shapes of their inputs do not bound, execute in a thread while the event loop continues.
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
from kerasline.components.serving.runtime.settings import BatchSettings

INLINE_SECONDS = 0.001
# Weight of the latest execution in the moving average of execution times. A slower execution may only have been
# interrupted and counts little, unless it was much slower.
FASTER_WEIGHT, SLOWER_WEIGHT, MUCH_SLOWER_WEIGHT = 0.5, 0.02, 0.5
MUCH_SLOWER_SECONDS = 20 * INLINE_SECONDS
# Interval between checks for expired deadlines.
SWEEP_SECONDS = 0.02
# Execute a batch after this many turns of the event loop without new requests: one turn reads the sockets, the next
# submits what was read.
QUIET_TURNS = 2
# Execute a batch after this time even if every turn brings new requests.
MAX_GATHER_SECONDS = 0.005

Arrays = Sequence[np.ndarray]
# Receives the number of requests and rows, the waiting time and the execution time of an execution, in seconds.
Observe = Callable[[int, int, float, float], None]


class DeferredInputs(Protocol):
    """Inputs that are converted to arrays when a batch is assembled."""

    rows: int

    def arrays(self) -> Arrays: ...
    def arrays_with(self, others: Sequence[Any]) -> Arrays: ...


Inputs = list[np.ndarray] | DeferredInputs


def count_rows(inputs: Inputs) -> int | None:
    """Return the number of rows in a request, or None if its inputs are scalars."""
    if isinstance(inputs, list):
        return len(inputs[0]) if inputs and inputs[0].ndim else None
    return inputs.rows


class PendingRequest:
    """A request that waits for its outputs."""

    __slots__ = ("inputs", "rows", "future", "deadline", "since", "shapes")

    def __init__(self, inputs: Inputs, rows: int, future: Any, deadline: float, since: float, shapes: Any):
        self.inputs, self.rows, self.future = inputs, rows, future
        self.deadline, self.since, self.shapes = deadline, since, shapes

    def arrays(self) -> Arrays:
        return self.inputs if isinstance(self.inputs, list) else self.inputs.arrays()


class Batcher:
    """Execute the requests for one signature of one version. Use it in the event loop only.

    Args:
        call: executes the signature.
        signature: the signature.
        settings: the batching settings.
        threads: executor for batches that are too slow for the event loop.
        observe: called after each execution.
        merges: whether to execute requests together.
        seconds: expected execution time of one row if shapes bound it, or None, which keeps executions out of the
            event loop.
    """

    def __init__(
        self,
        call: Callable[[Arrays], list[np.ndarray]],
        signature: Signature,
        settings: BatchSettings,
        *,
        threads: Executor,
        observe: Observe,
        merges: bool,
        seconds: float | None = None,
    ):
        self._call, self._settings, self._threads, self._observe = call, settings, threads, observe
        self._loop = asyncio.get_running_loop()
        self._merges = merges
        self._batched_inputs = all(spec.is_batched for spec in signature.inputs.values())
        self._same_shapes = all(
            spec.shape is not None and None not in spec.shape[1:] for spec in signature.inputs.values()
        )
        self._may_run_inline = seconds is not None and self._same_shapes
        # Estimated execution time by the bit length of the number of rows.
        self._seconds: dict[int, float] = {} if seconds is None else {(1).bit_length(): seconds}
        self._gathered = self._quiet_turns = 0
        self._queue: deque[PendingRequest] = deque()
        self._executing: list[PendingRequest] = []
        self._is_scheduled = self._is_sweep_scheduled = False

    def submit(self, inputs: Inputs, deadline: float) -> asyncio.Future[list[np.ndarray]]:
        """Queue a request and return a future of its outputs.

        Args:
            inputs: a list of arrays, or inputs to convert later.
            deadline: in seconds of `time.monotonic`.

        Raises:
            RequestError: RESOURCE_EXHAUSTED if the queue is full. The future may raise a RequestError too.
        """
        if len(self._queue) >= self._settings.queue:
            raise RequestError(
                "RESOURCE_EXHAUSTED",
                f"The batch scheduling queue to which this task was submitted is full; "
                f"{len(self._queue)} requests are waiting",
            )
        if not isinstance(inputs, list) and not (self._merges and self._same_shapes):
            inputs = list(inputs.arrays())
        if isinstance(inputs, list):
            rows = _common_rows(inputs) if self._batched_inputs else 1
            shapes = None if self._same_shapes else [array.shape[1:] for array in inputs]
        else:
            rows, shapes = inputs.rows, None
        future = self._loop.create_future()
        self._queue.append(PendingRequest(inputs, rows, future, deadline, time.monotonic(), shapes))
        self._schedule()
        if not self._is_sweep_scheduled:
            self._is_sweep_scheduled = True
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
        """Check again each turn of the event loop until the batch is full or no more requests arrive."""
        queue = self._queue
        self._quiet_turns = self._quiet_turns + 1 if len(queue) == self._gathered else 0
        self._gathered = len(queue)
        is_full = not self._merges or not queue or len(queue) >= self._settings.rows
        if is_full or self._quiet_turns >= QUIET_TURNS or time.monotonic() - queue[0].since > MAX_GATHER_SECONDS:
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
        if self._may_run_inline and self._seconds.get(rows.bit_length(), INLINE_SECONDS) < INLINE_SECONDS:
            self._finish(batch, *_execute(self._call, batch))
        else:
            self._threads.submit(self._execute_in_thread, batch)

    def _execute_in_thread(self, batch: list[PendingRequest]) -> None:
        result = _execute(self._call, batch)
        try:
            self._loop.call_soon_threadsafe(self._finish, batch, *result)
        except RuntimeError:
            pass  # the event loop is closed: no client is waiting

    def _take(self) -> list[PendingRequest]:
        """Remove and return the next requests to execute together. Drop requests that were answered or expired."""
        queue, now, rows = self._queue, time.monotonic(), 0
        batch: list[PendingRequest] = []
        while queue:
            one = queue[0]
            if one.future.done():
                queue.popleft()
                continue
            if one.deadline <= now:
                queue.popleft()
                one.future.set_exception(_deadline_exceeded())
                continue
            if batch and (rows + one.rows > self._settings.rows or one.shapes != batch[0].shapes):
                break
            batch.append(queue.popleft())
            rows += one.rows
            if not self._merges or not one.rows:
                break
        return batch

    def _finish(
        self, batch: list[PendingRequest], started: float, seconds: float, outputs: Any, error: RequestError | None
    ) -> None:
        rows = sum(one.rows for one in batch)
        self._executing = []
        self._estimate(rows, seconds)
        self._observe(len(batch), rows, max(0.0, started - batch[0].since), seconds)
        if error is None and len(batch) > 1 and any(len(output) != rows for output in outputs):
            self._merges, error = False, RequestError("INTERNAL", "expected one output for each row")
        if error is not None and len(batch) > 1:
            # One bad request must not fail the others. Malformed requests are answered with their error and the
            # rest is batched again. If the model itself rejected a row, each request executes alone.
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
        slower_weight = MUCH_SLOWER_WEIGHT if seconds > MUCH_SLOWER_SECONDS else SLOWER_WEIGHT
        weight = FASTER_WEIGHT if seconds < before else slower_weight
        self._seconds[rows.bit_length()] = before + weight * (seconds - before)

    def _execute_each(self, batch: list[PendingRequest]) -> None:
        results = [_execute(self._call, [one]) for one in batch]
        try:
            self._loop.call_soon_threadsafe(self._finish_each, batch, results)
        except RuntimeError:
            pass

    def _finish_each(self, batch: list[PendingRequest], results: list[Any]) -> None:
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
        """Answer requests whose deadline has passed, queued or executing, and drop answered ones from the queue."""
        self._is_sweep_scheduled = bool(self._queue or self._executing)
        if not self._is_sweep_scheduled:
            return
        now = time.monotonic()
        for one in (*self._queue, *self._executing):
            if one.deadline <= now and not one.future.done():
                one.future.set_exception(_deadline_exceeded())
        if any(one.future.done() for one in self._queue):  # free their inputs and their places
            self._queue = deque(one for one in self._queue if not one.future.done())
        self._loop.call_later(SWEEP_SECONDS, self._sweep)


def _execute(
    call: Callable[[Arrays], list[np.ndarray]], batch: list[PendingRequest]
) -> tuple[float, float, list[np.ndarray] | None, RequestError | None]:
    """Return the start time, the duration, the outputs, and the error; either of the last two is None."""
    started = time.monotonic()
    try:
        arrays = batch[0].arrays() if len(batch) == 1 else _concatenated(batch)
        outputs = call(arrays)
    except Exception as raised:
        return started, time.monotonic() - started, None, from_exception(raised)
    return started, time.monotonic() - started, outputs, None


def _well_formed(batch: list[PendingRequest]) -> list[PendingRequest]:
    """Convert the inputs of each request to arrays. Answer those that fail with the error, and return the others."""
    good = []
    for one in batch:
        try:
            one.inputs = list(one.arrays())
            good.append(one)
        except Exception as raised:
            if not one.future.done():
                one.future.set_exception(from_exception(raised))
    return good


def _concatenated(batch: list[PendingRequest]) -> Arrays:
    first, *others = [one.inputs for one in batch]
    if isinstance(first, list) or any(isinstance(one, list) for one in others):
        return [np.concatenate(arrays) for arrays in zip(*[one.arrays() for one in batch])]
    return first.arrays_with(others)


def _common_rows(arrays: Arrays) -> int:
    rows = len(arrays[0])
    for array in arrays:
        if len(array) != rows:
            raise invalid("Batching Run() input tensors must have equal 0th-dimension size")
    return rows


def _deadline_exceeded() -> RequestError:
    return RequestError("DEADLINE_EXCEEDED", "the deadline of the request was exceeded")
