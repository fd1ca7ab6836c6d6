"""The batcher alone in an event loop: isolation of bad requests, deadlines and batch boundaries."""

import asyncio
import contextlib
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from kerasline.components.models.signatures import Signature, TensorSpec
from kerasline.components.serving.runtime.batching import MAX_GATHER_SECONDS, Batcher
from kerasline.components.serving.runtime.errors import RequestError
from kerasline.components.serving.runtime.settings import BatchSettings

FLOATS = TensorSpec("x", 1, np.dtype("float32"), (None,))
SIGNATURE = Signature("serving_default", "", {"x": FLOATS}, {"y": FLOATS})


class Row:
    """One row, converted to an array later."""

    rows = 1

    def __init__(self, number):
        self.number = number

    def arrays(self):
        if self.number is None:
            raise MemoryError
        return [np.array([self.number], np.float32)]

    def arrays_with(self, others):
        return [np.concatenate([one.arrays()[0] for one in (self, *others)])]


def batched(work, call, executors=2):
    """Return the result of a coroutine function that receives a batcher."""

    async def run():
        with ThreadPoolExecutor(2) as threads:
            settings = BatchSettings(executors=executors)
            batcher = Batcher(call, SIGNATURE, settings, threads=threads, observe=lambda *_: None, merges=True)
            return await asyncio.wait_for(work(batcher), 30)

    return asyncio.run(run())


def test_request_that_exhausts_memory_fails_alone():
    async def work(batcher):
        later = time.monotonic() + 60
        futures = [batcher.submit(Row(number), later) for number in (1, None, 2)]
        return await asyncio.gather(*futures, return_exceptions=True)

    first, bad, last = batched(work, lambda arrays: [arrays[0] * 2])
    assert (first[0].tolist(), last[0].tolist()) == ([2], [4])
    assert isinstance(bad, RequestError) and bad.code == "RESOURCE_EXHAUSTED"


def test_expired_requests_free_their_inputs_and_queue_places():
    proceed = threading.Event()

    def call(arrays):
        proceed.wait(20)
        return [arrays[0] * 2]

    async def work(batcher):
        first = batcher.submit([np.ones(1, np.float32)], time.monotonic() + 60)
        await asyncio.sleep(0.1)  # it is executing
        inputs = np.ones(1000, np.float32)
        held = weakref.ref(inputs)
        late = batcher.submit([inputs], time.monotonic() + 0.05)
        del inputs
        with pytest.raises(RequestError, match="deadline of the request was exceeded"):
            await late
        del late
        for _ in range(100):
            if held() is None:
                break
            await asyncio.sleep(0.02)
        proceed.set()
        return held(), await first

    still_held, outputs = batched(work, call, executors=1)
    assert still_held is None and outputs[0].tolist() == [2]


def sizes_of(turns):
    """Return the batch sizes for one-row requests submitted in these turns of the event loop."""
    sizes = []

    def call(arrays):
        sizes.append(len(arrays[0]))
        return [arrays[0] * 2]

    async def work(batcher):
        later, futures = time.monotonic() + 60, []
        for turn in range(max(turns) + 1):
            futures += [batcher.submit(Row(number), later) for number, at in enumerate(turns) if at == turn]
            await asyncio.sleep(0)
        return await asyncio.gather(*futures)

    answers = batched(work, call)
    assert [answer[0].tolist() for answer in answers] == [[2 * number] for number in range(len(turns))]
    return sizes


@pytest.mark.parametrize("turns", [[0], [0, 0, 0], [0, 1, 2, 3, 4, 5, 6], [0, 1, 1, 2, 4, 5]])
def test_requests_of_consecutive_turns_form_one_batch(turns):
    assert sizes_of(turns) == [len(turns)]


def test_batch_does_not_wait_for_later_requests():
    assert sizes_of([0, 1, 10, 11])[0] == 2


def test_batch_starts_although_every_turn_brings_a_request():
    sizes = []

    def call(arrays):
        sizes.append(len(arrays[0]))
        return [arrays[0]]

    async def work(batcher):
        futures, end = [batcher.submit(Row(0), time.monotonic() + 60)], time.monotonic() + 20
        while not futures[0].done() and time.monotonic() < end:
            time.sleep(10 * MAX_GATHER_SECONDS / BatchSettings().rows)  # so that time ends the batch before it is full
            futures.append(batcher.submit(Row(0), time.monotonic() + 60))
            await asyncio.sleep(0)
        await asyncio.gather(*futures)

    batched(work, call)
    assert sizes[0] < BatchSettings().rows


@contextlib.asynccontextmanager
async def slow_batcher(row_seconds, *, merges):
    """A batcher of two executors whose rows take this long."""

    def call(arrays):
        time.sleep(row_seconds * len(arrays[0]))
        return [arrays[0] * 2]

    with ThreadPoolExecutor(2) as threads:
        settings = BatchSettings(executors=2)
        yield Batcher(call, SIGNATURE, settings, threads=threads, observe=lambda *_: None, merges=merges)


async def goodput(rate, *, merges, seconds=2.0, deadline=0.8):
    """Return the requests per second that are answered in time, and the longest time of an answer."""
    latencies = []
    async with slow_batcher(0.04, merges=merges) as batcher:

        async def ask():
            started = time.monotonic()
            with contextlib.suppress(RequestError):
                await batcher.run([np.ones(1, np.float32)], started + deadline)
                latencies.append(time.monotonic() - started)

        started, tasks = time.monotonic(), []
        while (elapsed := time.monotonic() - started) < seconds:
            tasks += [asyncio.ensure_future(ask()) for _ in range(int(elapsed * rate) - len(tasks))]
            await asyncio.sleep(0.005)
        await asyncio.gather(*tasks)
    return len(latencies) / seconds, max(latencies)


@pytest.mark.parametrize("merges", [True, False])
def test_overload_leaves_goodput_and_latency(merges):
    capacity = 50  # two executors, 40 ms per row
    peak, _ = asyncio.run(goodput(2 * capacity, merges=merges))
    at_ten_times, slowest = asyncio.run(goodput(10 * capacity, merges=merges))
    assert at_ten_times >= 0.8 * peak
    assert slowest < 1.0


@pytest.mark.parametrize("merges", [True, False])
def test_large_request_lets_small_ones_through(merges):
    async def work():
        async with slow_batcher(0.005, merges=merges) as batcher:
            later = time.monotonic() + 60
            await batcher.run([np.ones(1, np.float32)], later)
            large = asyncio.ensure_future(batcher.run([np.arange(300, dtype=np.float32)], later))
            await asyncio.sleep(0.05)
            waits = []
            for _ in range(5):
                started = time.monotonic()
                await batcher.run([np.ones(1, np.float32)], later)
                waits.append(time.monotonic() - started)
            is_early = not large.done()
            return await large, max(waits), is_early

    (outputs,), slowest, is_early = asyncio.run(work())
    assert outputs.tolist() == [2 * number for number in range(300)]
    assert slowest < 0.5 and is_early


def test_requests_of_clients_that_hung_up_are_not_executed():
    executed = []

    def call(arrays):
        executed.extend(arrays[0].tolist())
        time.sleep(0.2)
        return [arrays[0]]

    async def work(batcher):
        later = time.monotonic() + 60
        first = batcher.submit([np.zeros(1, np.float32)], later)
        await asyncio.sleep(0.1)
        others = [asyncio.ensure_future(batcher.run([np.full(1, n, np.float32)], later)) for n in (1, 2, 3)]
        await asyncio.sleep(0)
        others[1].cancel()
        await asyncio.gather(first, others[0], others[2])

    batched(work, call, executors=1)
    assert executed == [0, 1, 3]
