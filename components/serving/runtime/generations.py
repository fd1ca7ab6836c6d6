"""Answers that are generated token by token, several at once: continuous batching.

A version has a fixed number of slots. One step generates a token in each slot that is in use. A request whose prompt
has been read joins at the next step, and one that has ended, or whose client hung up, frees its slot at once. A step
always computes all slots, so that an answer is the same, to the last bit, alone or among others.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kerasline.components.models.session import SavedModelSession
from kerasline.components.models.signatures import (
    RAW_COLUMN,
    STATE,
    STREAM_ANSWERS,
    STREAM_START,
    STREAM_STEP,
    Signature,
)
from kerasline.components.serving.runtime.errors import RequestError, from_exception, invalid
from kerasline.components.serving.runtime.sampling import Sampling
from kerasline.components.serving.runtime.settings import BatchSettings

# SentencePiece and TensorFlow write it for bytes that are not UTF-8, such as the first ones of a character.
INCOMPLETE = "\ufffd"
Arrays = dict[str, np.ndarray]
# Receives the number of slots in use and the duration of a step, and the time to the first token, in seconds.
ObserveStep = Callable[[int, float], None]
ObserveFirst = Callable[[float], None]


@dataclass(frozen=True)
class Piece:
    """A part of a generated answer.

    Attributes:
        text: what follows the text of the pieces before. The first piece has the text of the prompt in `prompt`.
        prompt: the beginning of the answer that the prompt determines, in the first piece.
        finish_reason: "stop" or "length" in the last piece, otherwise None.
        outputs: all answers, arrays (1, ...) by name, in the last piece.
        prompt_tokens, tokens: numbers of tokens so far.
    """

    text: str
    prompt: str = ""
    finish_reason: str | None = None
    outputs: Mapping[str, np.ndarray] | None = None
    prompt_tokens: int = 0
    tokens: int = 0


class StreamedModel:
    """The signatures by which a model generates, called with arrays by name. Its methods are thread-safe.

    Args:
        facts: what the manifest states about them.
    """

    def __init__(self, session: SavedModelSession, facts: Mapping[str, Any]):
        self._session = session
        self.start_signature = session.streaming[STREAM_START]
        self.step_signature = session.streaming[STREAM_STEP]
        self._answers_signature = session.streaming[STREAM_ANSWERS]
        self.text: str = facts["text"]
        self.length, self.end, self.pad = facts["length"], facts["end"], facts["pad"]
        self.top_k, self.top_p = facts["top_k"], facts["top_p"]
        self.columns = tuple(
            name.removeprefix(RAW_COLUMN) for name in self.start_signature.inputs if name.startswith(RAW_COLUMN)
        )

    def start(self, columns: Mapping[str, np.ndarray], seed: int | None) -> Arrays:
        given = {f"{RAW_COLUMN}{name}": array for name, array in columns.items()}
        given["seed"] = np.array([seed or 0], np.int64)
        given["is_seeded"] = np.array([seed is not None])
        return self._call(self.start_signature, given)

    def step(self, arrays: Arrays) -> Arrays:
        return self._call(self.step_signature, arrays)

    def answers(self, ids: np.ndarray, lengths: np.ndarray, scores: np.ndarray) -> Arrays:
        return self._call(self._answers_signature, {"ids": ids, "lengths": lengths, "scores": scores})

    def empty_state(self, slots: int) -> Arrays:
        specs = {name: spec for name, spec in self.step_signature.inputs.items() if name.startswith(STATE)}
        sizes = {name: [size or 1 for size in (spec.shape or ())[1:]] for name, spec in specs.items()}
        return {name: np.zeros([slots, *sizes[name]], spec.dtype) for name, spec in specs.items()}

    def warm_up(self, slots: int) -> None:
        """Execute the signatures once, since the first execution of a graph is many times slower than later ones."""
        columns = {}
        for name in self.columns:
            spec = self.start_signature.inputs[f"{RAW_COLUMN}{name}"]
            shape = [1 if size is None else size for size in spec.shape or ()]
            columns[name] = np.full(shape, b"", object) if spec.is_string else np.zeros(shape, spec.dtype)
        self.start(columns, None)
        integers, floats = np.zeros(slots, np.int32), np.zeros(slots, np.float32)
        places = {"tokens": integers, "positions": integers, "chances": floats, "temperatures": floats}
        self.step({**places, **self.empty_state(slots)})
        self.answers(np.full((slots, self.length), max(self.pad, 0), np.int32), integers + 1, floats)

    def _call(self, signature: Signature, arrays: Arrays) -> Arrays:
        outputs = self._session.call(signature, [arrays[name] for name in signature.inputs])
        return dict(zip(signature.outputs, outputs))


@dataclass(eq=False)
class _Request:
    """A request, from its arrival to its last piece."""

    columns: Mapping[str, np.ndarray]
    sampling: Sampling
    deadline: float
    arrived: float = field(default_factory=time.monotonic)
    pieces: asyncio.Queue[Piece | RequestError] = field(default_factory=asyncio.Queue)
    is_over: bool = False
    ids: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))
    chances: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    state: Arrays = field(default_factory=dict)
    position: int = 0
    prompt_tokens: int = 0
    temperature: float = 0.0
    score: float = 0.0
    prompt: str = ""
    sent: str | None = None

    @property
    def tokens(self) -> int:
        return self.position + 1 - self.prompt_tokens

    def fail(self, error: RequestError) -> None:
        if not self.is_over:
            self.is_over = True
            self.pieces.put_nowait(error)


class Generations:
    """Generate the answers of a version. Use it in the event loop only.

    Args:
        model: the signatures by which the version generates.
        settings: the number of slots, of waiting requests, and the timeout.
        threads: executor for prompts and steps.
        observe_step: called after each step.
        observe_first: called when the first token of a request is sent.
    """

    def __init__(
        self,
        model: StreamedModel,
        settings: BatchSettings,
        *,
        threads: Executor,
        observe_step: ObserveStep,
        observe_first: ObserveFirst,
    ):
        self.model, self._settings, self._threads = model, settings, threads
        self._observe_step, self._observe_first = observe_step, observe_first
        self._waiting: deque[_Request] = deque()
        self._slots: list[_Request | None] = [None] * settings.slots
        self._ready: dict[int, _Request] = {}  # requests whose prompt was read, by the slot that they join
        self._state: Arrays = {}
        self._task: asyncio.Task[None] | None = None
        self._reading: set[asyncio.Task[None]] = set()

    async def generate(
        self, columns: Mapping[str, np.ndarray], sampling: Sampling, deadline: float
    ) -> AsyncGenerator[Piece, None]:
        """Yield the pieces of an answer. Closing the iterator frees the slot.

        Args:
            columns: raw columns of one row, in the shapes of the signature.
            deadline: in seconds of `time.monotonic`.

        Raises:
            RequestError: too many requests wait, the deadline passed, or the model failed.
        """
        if len(self._waiting) >= self._settings.queue:
            raise RequestError(
                "RESOURCE_EXHAUSTED", f"too many requests wait for a slot: {len(self._waiting)}; try again"
            )
        deadline = min(deadline, time.monotonic() + self._settings.timeout_seconds)
        request = _Request(columns, sampling, deadline)
        self._waiting.append(request)
        self._admit()
        try:
            while True:
                try:
                    async with asyncio.timeout_at(asyncio.get_running_loop().time() + deadline - time.monotonic()):
                        piece = await request.pieces.get()
                except TimeoutError:
                    raise RequestError("DEADLINE_EXCEEDED", "the deadline of the request was exceeded") from None
                if isinstance(piece, RequestError):
                    raise piece
                yield piece
                if piece.finish_reason is not None:
                    return
        finally:
            self._leave(request)

    def queued_requests(self) -> int:
        """Return the number of requests that wait for a slot."""
        return len(self._waiting)

    def slots_in_use(self) -> int:
        return sum(slot is not None for slot in self._slots)

    def _leave(self, request: _Request) -> None:
        request.is_over = True
        if request in self._waiting:
            self._waiting.remove(request)
        if request in self._slots:
            number = self._slots.index(request)
            self._slots[number] = None
            self._ready.pop(number, None)
        self._admit()

    def _admit(self) -> None:
        """Give free slots to the requests that wait, and read their prompts."""
        for number, slot in enumerate(self._slots):
            if slot is None and self._waiting:
                request = self._waiting.popleft()
                self._slots[number] = request
                task = asyncio.ensure_future(self._read_prompt(number, request))
                self._reading.add(task)
                task.add_done_callback(self._reading.discard)

    async def _read_prompt(self, number: int, request: _Request) -> None:
        loop = asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(self._threads, self._start, request)
        except Exception as raised:
            request.fail(from_exception(raised))
            return
        if self._slots[number] is not request:
            return
        request.chances, request.position = found["chances"][0], int(found["position"][0])
        request.prompt_tokens, request.prompt = request.position + 1, found["prompt"]
        temperature = request.sampling.temperature
        request.temperature = float(found["temperature"][0]) if temperature is None else temperature
        request.state = {name: array for name, array in found.items() if name.startswith(STATE)}
        self._ready[number], request.ids = request, found["ids"][0]
        if self._task is None:
            self._task = asyncio.ensure_future(self._run())

    def _start(self, request: _Request) -> dict[str, Any]:
        found: dict[str, Any] = self.model.start(request.columns, request.sampling.seed)
        ids, position = found["ids"], found["position"]
        # Outputs of TensorFlow may share memory that nobody may write to.
        found["ids"] = np.array(ids)
        answers = self.model.answers(ids, (position + 1).astype(np.int32), np.zeros(1, np.float32))
        (found["prompt"],) = self._texts(answers)
        return found

    def _texts(self, answers: Arrays) -> list[str]:
        return [value.decode("utf-8", "replace") for value in answers[self.model.text].reshape(-1)]

    async def _run(self) -> None:
        """Take steps as long as a slot is in use."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                self._join()
                live = {number: one for number, one in enumerate(self._slots) if one is not None and len(one.ids)}
                if not live:
                    break
                started = time.monotonic()
                pieces = await loop.run_in_executor(self._threads, self._step, live)
            except Exception as raised:  # the state of all slots is lost
                for one in filter(None, list(self._slots)):
                    one.fail(from_exception(raised))
                    self._leave(one)
                break
            self._observe_step(len(live), time.monotonic() - started)
            for number, piece in pieces.items():
                self._send(live[number], piece)
        self._task, self._state = None, {}

    def _join(self) -> None:
        """Copy the state of requests whose prompt was read into their slots."""
        if not self._ready:
            return
        if not self._state:
            self._state = self.model.empty_state(len(self._slots))
        for name, array in self._state.items():
            if not array.flags.writeable:
                array = self._state[name] = np.array(array)
            for number, request in self._ready.items():
                array[number] = request.state[name][0]
        for request in self._ready.values():
            request.state = {}
        self._ready.clear()

    def _step(self, live: Mapping[int, _Request]) -> dict[int, Piece]:
        """Generate a token in each slot in use, in a thread, and return what is to be sent."""
        slots, model = len(self._slots), self.model
        tokens, positions = np.full(slots, max(model.pad, 0), np.int32), np.zeros(slots, np.int32)
        chances, temperatures = np.zeros(slots, np.float32), np.zeros(slots, np.float32)
        may_generate = {number: one for number, one in live.items() if not self._is_full(one)}
        for number, one in may_generate.items():
            tokens[number], positions[number] = one.ids[one.position], one.position
            chances[number], temperatures[number] = one.chances[one.position], one.temperature
        if may_generate:
            places = {"tokens": tokens, "positions": positions, "chances": chances, "temperatures": temperatures}
            found = model.step({**places, **self._state})
            self._state |= {name: array for name, array in found.items() if name.startswith(STATE)}
            for number, one in may_generate.items():
                one.position += 1
                one.ids[one.position] = found["ids"][number]
                one.score += float(found["scores"][number])
        requests = list(live.values())
        ids = np.stack([one.ids for one in requests])
        lengths = np.array([one.position + 1 for one in requests], np.int32)
        answers = model.answers(ids, lengths, np.array([one.score for one in requests], np.float32))
        texts = self._texts(answers)
        rows = [{name: array[row : row + 1] for name, array in answers.items()} for row in range(len(requests))]
        return {number: self._piece(one, text, row) for (number, one), text, row in zip(live.items(), texts, rows)}

    def _is_full(self, request: _Request) -> bool:
        most = request.sampling.max_tokens
        return request.position + 1 >= self.model.length or (most is not None and request.tokens >= most)

    def _piece(self, request: _Request, text: str, outputs: Arrays) -> Piece:
        """Return what the text so far adds to what was sent."""
        first = request.sent is None
        if request.sent is None:
            request.prompt = request.sent = text[: _common_prefix(request.prompt, text)].rstrip(INCOMPLETE)
        generated = text.removeprefix(request.prompt)
        has_ended = (
            self.model.end is not None and request.tokens > 0 and request.ids[request.position] == self.model.end
        )
        reason = "stop" if has_ended else "length" if self._is_full(request) else None
        stops = [place for place in (generated.find(stop) for stop in request.sampling.stop) if place >= 0]
        if stops:
            text, reason = request.prompt + generated[: min(stops)], "stop"
            outputs = {**outputs, self.model.text: np.full(outputs[self.model.text].shape, text.encode(), object)}
        elif reason is None:  # wait for the rest of a character, and of a stop text
            text = text.rstrip(INCOMPLETE)
            text = text[: len(text) - _begun_stop(text, request.sampling.stop)]
        new = text.removeprefix(request.sent) if text.startswith(request.sent) else ""
        request.sent += new
        counts = {"prompt_tokens": request.prompt_tokens, "tokens": request.tokens}
        return Piece(new, request.prompt if first else "", reason, outputs if reason else None, **counts)

    def _send(self, request: _Request, piece: Piece) -> None:
        if request.is_over:
            return
        if piece.tokens == 1:
            self._observe_first(time.monotonic() - request.arrived)
        if piece.text or piece.prompt or piece.finish_reason:
            request.pieces.put_nowait(piece)
        if piece.finish_reason:
            self._leave(request)


def _common_prefix(first: str, second: str) -> int:
    for place, (a, b) in enumerate(zip(first, second)):
        if a != b:
            return place
    return min(len(first), len(second))


def _begun_stop(text: str, stops: Sequence[str]) -> int:
    """Return how many characters at the end of the text may be the beginning of a stop text."""
    for size in range(max(map(len, stops), default=1) - 1, 0, -1):
        if any(len(stop) > size and text.endswith(stop[:size]) for stop in stops):
            return size
    return 0


def one_row(columns: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    """Return the columns of a request. Raise INVALID_ARGUMENT unless they have one row."""
    for name, array in columns.items():
        if array.shape[:1] != (1,):
            received = len(array) if array.ndim else "none"
            raise invalid(f"input {name}: expected one row, because one answer is generated, received {received}")
    return columns
