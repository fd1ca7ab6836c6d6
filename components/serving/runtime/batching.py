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
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from kerasline.components.models.signatures import Signature
from kerasline.components.serving.runtime.errors import RequestError, from_exception
from kerasline.components.serving.runtime.execution_times import ExecutionTimes
from kerasline.components.serving.runtime.settings import BatchSettings

INLINE_SECONDS = 0.001
# Start a further execution beside those that have taken this long. Quick ones follow each other: larger batches are
# more efficient than several at once.
OVERLAP_SECONDS = 0.02
# Large requests are cut into pieces of about this duration, so that small requests are executed between them.
PIECE_SECONDS = 0.1
# Estimates may be this much too low.
MARGIN = 1.5
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

    def answer(self, outputs: list[np.ndarray]) -> None:
        """Answer the request, unless it was answered, its client hung up, or its deadline has passed."""
        if self.deadline <= time.monotonic():
            self.fail(_deadline_exceeded())
        elif not self.future.done():
            self.future.set_result(outputs)

    def fail(self, error: RequestError) -> None:
        if not self.future.done():
            self.future.set_exception(error)


@dataclass(eq=False)
class Execution:
    """Requests that are executed together, since when, and until when by estimate, in seconds of `time.monotonic`."""

    batch: list[PendingRequest]
    started: float
    expected_end: float


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
        self._times = ExecutionTimes(seconds)
        self._gathered = self._quiet_turns = 0
        self._queue: deque[PendingRequest] = deque()
        self._queued_rows = 0
        self._executing: list[Execution] = []
        self._is_scheduled = self._is_sweep_scheduled = False

    async def run(self, inputs: Inputs, deadline: float) -> list[np.ndarray]:
        """Return the outputs for a request. A request with many rows is executed in pieces.

        Args:
            inputs: a list of arrays, or inputs to convert later.
            deadline: in seconds of `time.monotonic`.

        Raises:
            RequestError: the queue is full, the wait would exceed the deadline, the deadline passed, the inputs are
                invalid, or the model failed.
        """
        deadline = min(deadline, time.monotonic() + self._settings.timeout_seconds)
        rows = count_rows(inputs)
        if not self._merges or rows is None or rows <= self._piece_rows():
            return await self.submit(inputs, deadline)
        self._check_wait(rows, deadline)
        if not isinstance(inputs, list):
            inputs = list(await self._loop.run_in_executor(None, inputs.arrays))
        if _common_rows(inputs) is None:
            return await self.submit(inputs, deadline)
        pieces, start = [], 0
        while start < rows:
            end = start + self._piece_rows()
            pieces.append(await self.submit([array[start:end] for array in inputs], deadline))
            start = end
        return [np.concatenate(parts) for parts in zip(*pieces)]

    def submit(self, inputs: Inputs, deadline: float) -> asyncio.Future[list[np.ndarray]]:
        """Queue a request and return a future of its outputs.

        Args:
            inputs: a list of arrays, or inputs to convert later.
            deadline: in seconds of `time.monotonic`.

        Raises:
            RequestError: RESOURCE_EXHAUSTED if the queue is full or the wait would exceed the deadline. The future
                may raise a RequestError too.
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
            shapes: object = None if self._same_shapes else [array.shape[1:] for array in inputs]
            if rows is None:  # the model decides whether it accepts inputs of different lengths
                rows, shapes = 1, object()
        else:
            rows, shapes = inputs.rows, None
        self._check_wait(rows, deadline)
        future = self._loop.create_future()
        self._queue.append(PendingRequest(inputs, rows, future, deadline, time.monotonic(), shapes))
        self._queued_rows += rows
        self._schedule()
        if not self._is_sweep_scheduled:
            self._is_sweep_scheduled = True
            self._loop.call_later(SWEEP_SECONDS, self._sweep)
        return future

    def queued_requests(self) -> int:
        """Return the number of requests that wait for an execution."""
        return len(self._queue)

    def _piece_rows(self) -> int:
        """Return the number of rows of a piece. It grows with every piece that was quicker than expected."""
        seconds = self._times.seconds_per_row()
        return max(1, int(PIECE_SECONDS / seconds)) if seconds else self._settings.rows

    def _check_wait(self, rows: int, deadline: float) -> None:
        """Raise RESOURCE_EXHAUSTED for a request that would wait beyond its deadline, before it costs anything."""
        if not self._queue and not self._executing:
            return
        now = time.monotonic()
        rows_ahead = self._queued_rows + max(0, rows - self._settings.rows)
        seconds = rows_ahead * self._times.seconds_per_row() / (1 if self._merges else self._settings.executors)
        seconds += self._times.estimate(min(rows, self._settings.rows))
        if len(self._executing) >= self._settings.executors:
            seconds += min(max(0.0, one.expected_end - now) for one in self._executing)
        elif self._merges:
            seconds += OVERLAP_SECONDS
        if now + MARGIN * seconds > deadline:
            raise RequestError(
                "RESOURCE_EXHAUSTED",
                f"the server is overloaded: an answer would take about {seconds:.2g} s, beyond the deadline of the "
                "request; try again",
            )

    def _may_execute(self) -> bool:
        """Return whether an execution may start now. If not yet, schedule the next check."""
        if not self._executing:
            return True
        if len(self._executing) >= self._settings.executors:
            return False
        if not self._merges:
            return True
        wait = OVERLAP_SECONDS - (time.monotonic() - max(one.started for one in self._executing))
        if wait > 0:
            self._loop.call_later(wait, self._schedule)
        return wait <= 0

    def _schedule(self) -> None:
        if self._is_scheduled or not self._queue or not self._may_execute():
            return
        self._is_scheduled = True
        delay = self._settings.delay_seconds
        if delay and self._merges:
            due = self._queue[0].since + delay - time.monotonic()
            if due > 0 and self._queued_rows < self._settings.rows:
                self._is_scheduled = False
                self._loop.call_later(due, self._schedule_now)
                return
        self._gathered = self._quiet_turns = 0
        self._loop.call_soon(self._gather)

    def _schedule_now(self) -> None:
        if not self._is_scheduled and self._queue and self._may_execute():
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
        rows = sum(one.rows for one in batch)
        now = time.monotonic()
        execution = Execution(batch, now, now + self._times.estimate(rows))
        self._executing.append(execution)
        seconds = self._times.measured(rows)
        if self._may_run_inline and seconds is not None and seconds < INLINE_SECONDS:
            self._finish(execution, *_execute(self._call, batch))
        else:
            self._threads.submit(self._execute_in_thread, execution)
            self._schedule()

    def _execute_in_thread(self, execution: Execution) -> None:
        result = _execute(self._call, execution.batch)
        try:
            self._loop.call_soon_threadsafe(self._finish, execution, *result)
        except RuntimeError:
            pass  # the event loop is closed: no client is waiting

    def _take(self) -> list[PendingRequest]:
        """Remove and return the next requests to execute together.

        Requests that were answered, or whose client hung up, are dropped, and so are those that cannot be answered in
        time. The batch ends before the first of its deadlines.
        """
        queue, now, rows, first_deadline = self._queue, time.monotonic(), 0, float("inf")
        batch: list[PendingRequest] = []
        while queue:
            one = queue[0]
            if one.future.done():
                self._pop()
                continue
            if one.deadline <= now or (len(queue) > 1 and now + self._times.estimate(one.rows) > one.deadline):
                self._pop().fail(_deadline_exceeded())
                continue
            first_deadline = min(first_deadline, one.deadline)
            if batch and (
                rows + one.rows > self._settings.rows
                or one.shapes != batch[0].shapes
                or now + MARGIN * self._times.estimate(rows + one.rows) > first_deadline
            ):
                break
            batch.append(self._pop())
            rows += one.rows
            if not self._merges or not one.rows:
                break
        return batch

    def _pop(self) -> PendingRequest:
        one = self._queue.popleft()
        self._queued_rows -= one.rows
        return one

    def _finish(
        self, execution: Execution, started: float, seconds: float, outputs: Any, error: RequestError | None
    ) -> None:
        batch = execution.batch
        rows = sum(one.rows for one in batch)
        self._executing.remove(execution)
        if error is None:
            self._times.record(rows, seconds)
        self._observe(len(batch), rows, max(0.0, started - batch[0].since), seconds)
        if error is None and len(batch) > 1 and any(len(output) != rows for output in outputs):
            self._merges, error = False, RequestError("INTERNAL", "expected one output for each row")
        if error is not None and len(batch) > 1:
            # One bad request must not fail the others. Malformed requests are answered with their error and the
            # rest is batched again. If the model itself rejected a row, each request executes alone.
            batch, before = _well_formed(batch), len(batch)
            if len(batch) < before:
                self._queue.extendleft(reversed(batch))
                self._queued_rows += sum(one.rows for one in batch)
                self._schedule()
                return
            again = Execution(batch, time.monotonic(), time.monotonic() + seconds)
            self._executing.append(again)
            self._threads.submit(self._execute_each, again)
            return
        if error is not None:
            batch[0].fail(error)
        elif len(batch) == 1:
            batch[0].answer(outputs)
        else:
            begin = 0
            for one in batch:
                end = begin + one.rows
                one.answer([output[begin:end] for output in outputs])
                begin = end
        self._schedule()

    def _execute_each(self, execution: Execution) -> None:
        results = [_execute(self._call, [one]) for one in execution.batch]
        try:
            self._loop.call_soon_threadsafe(self._finish_each, execution, results)
        except RuntimeError:
            pass

    def _finish_each(self, execution: Execution, results: list[Any]) -> None:
        self._executing.remove(execution)
        for one, (_started, _seconds, outputs, error) in zip(execution.batch, results):
            if error is None:
                one.answer(outputs)
            else:
                one.fail(error)
        self._schedule()

    def _sweep(self) -> None:
        """Answer requests whose deadline has passed, queued or executing, and drop answered ones from the queue."""
        self._is_sweep_scheduled = bool(self._queue or self._executing)
        if not self._is_sweep_scheduled:
            return
        now = time.monotonic()
        for one in (*self._queue, *(one for execution in self._executing for one in execution.batch)):
            if one.deadline <= now:
                one.fail(_deadline_exceeded())
        if any(one.future.done() for one in self._queue):  # free their inputs and their places
            self._queue = deque(one for one in self._queue if not one.future.done())
            self._queued_rows = sum(one.rows for one in self._queue)
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
            one.fail(from_exception(raised))
    return good


def _concatenated(batch: list[PendingRequest]) -> Arrays:
    first, *others = [one.inputs for one in batch]
    if isinstance(first, list) or any(isinstance(one, list) for one in others):
        return [np.concatenate(arrays) for arrays in zip(*[one.arrays() for one in batch])]
    return first.arrays_with(others)


def _common_rows(arrays: Arrays) -> int | None:
    """Return the number of rows of all arrays, or None if they differ or there are none."""
    lengths = {len(array) for array in arrays}
    return lengths.pop() if len(lengths) == 1 else None


def _deadline_exceeded() -> RequestError:
    return RequestError("DEADLINE_EXCEEDED", "the deadline of the request was exceeded")
