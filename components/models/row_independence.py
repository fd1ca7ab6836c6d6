"""Find out whether a signature answers each row of a batch by itself.

A server may join the rows of several clients for one execution only if no answer depends on the other rows. A batch
statistic, a sort over the rows or padding to the longest row makes it depend. The signature is therefore executed with
single rows, and then with the same rows together, in another order, among extreme rows, and in a large batch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from kerasline.components.models.graph_operations import GraphOperations
from kerasline.components.models.media_answers import answers_agree
from kerasline.components.models.signatures import Signature, TensorSpec

Arrays = Sequence[np.ndarray]
Call = Callable[[Arrays], Sequence[np.ndarray]]

# Largest difference that rounding explains, relative to the largest value of an output, or of a sound or image file.
# Half precision is coarser.
TOLERANCE, HALF_TOLERANCE = 2e-3, 5e-2
# Sizes to try for dimensions of any size.
LENGTHS = (4, 1, 16, 32)
MAX_REAL_ROWS = 8
# Seconds for all executions. Beyond half of them, further rows are left out. A batch is left out if its rows, one after
# another, would take longer than the rest.
BUDGET_SECONDS = 10.0
WORDS = (b"a", b"some words", b"0.5", b"A longer text with some more words.")
LONG_TEXT = b"a considerably longer text of many words, which pads the others " * 8


def row_dependence(
    call: Call,
    signature: Signature,
    operations: GraphOperations,
    real_rows: Sequence[Arrays] = (),
    *,
    batch_rows: int = 128,
) -> str | None:
    """Return how a signature keeps a server from joining the rows of several clients, or None.

    It may change a state, and is not executed then, or it is as `find_row_dependence` returns.

    Args:
        operations: the graph of the model.
    """
    if changes := operations.state_changes(signature):
        return f"it may change a state: {', '.join(changes)}"
    half_precision = operations.half_precision
    return find_row_dependence(call, signature, real_rows, batch_rows=batch_rows, half_precision=half_precision)


def find_row_dependence(
    call: Call,
    signature: Signature,
    real_rows: Sequence[Arrays] = (),
    *,
    batch_rows: int = 128,
    half_precision: bool = False,
) -> str | None:
    """Return how an answer depends on the other rows of its batch, or why that is unknown; None if it does not.

    The model is executed with invented rows, so that it must not have stateful operations.

    Args:
        call: executes the signature with arrays in the order of its inputs.
        signature: the signature.
        real_rows: requests that the model answers, arrays of any number of rows. Invented rows are added.
        batch_rows: number of rows in the largest batch.
        half_precision: whether the model computes in float16 or bfloat16.
    """
    if not signature.is_batchable:
        return "an input or output has no first dimension of any size"
    return _Check(call, signature, batch_rows, HALF_TOLERANCE if half_precision else TOLERANCE).run(real_rows)


class _Check:
    def __init__(self, call: Call, signature: Signature, batch_rows: int, tolerance: float):
        self._call, self._specs, self._batch_rows = call, list(signature.inputs.values()), batch_rows
        self._output_names, self._tolerance = list(signature.outputs), tolerance
        self._ends = time.monotonic() + BUDGET_SECONDS
        self._row_seconds = 0.0  # the shortest execution of a single row

    def run(self, real_rows: Sequence[Arrays]) -> str | None:
        """Check rows of each shape, because a batch has rows of one shape. Return the first dependence."""
        groups = _by_shape(_single_rows(real_rows))
        checked = False
        for length in LENGTHS if any(None in spec.shape[1:] for spec in self._specs if spec.shape) else LENGTHS[:1]:
            for row in _invented_rows(self._specs, length):
                groups.setdefault(_shapes(row), []).append(row)
        for shapes, rows in groups.items():
            extremes = list(_extreme_rows(self._specs, shapes))
            known = self._alone(rows[: max(2, self._batch_rows)])
            if len(known) < 2:
                continue
            checked = True
            if found := self._dependence(known, [row for row, _ in self._alone(extremes)]):
                return found
            if self._remaining() < 0:
                break
        return None if checked else "unknown: it rejects every invented row, and no warm-up requests are recorded"

    def _alone(self, rows: Sequence[Arrays]) -> list[tuple[Arrays, Arrays]]:
        """Return the rows that the model accepts, each with its answer."""
        known: list[tuple[Arrays, Arrays]] = []
        for row in rows:
            if len(known) >= 2 and self._remaining() < BUDGET_SECONDS / 2:
                break
            start = time.monotonic()
            try:
                known.append((row, self._call(row)))
            except Exception:  # the model may reject an invented row
                continue
            seconds = time.monotonic() - start
            self._row_seconds = min(self._row_seconds or seconds, seconds)
        return known

    def _dependence(self, known: list[tuple[Arrays, Arrays]], extremes: list[Arrays]) -> str | None:
        row, answer = known[0]
        if found := self._difference("in a second execution", [row], [(0, answer)], known):
            return found
        answers = [answer for _, answer in known]
        rows = [row for row, _ in known]
        every = list(enumerate(answers))
        count = len(rows)
        cases: list[tuple[str, list[Arrays], list[tuple[int, Arrays]]]] = [
            ("beside another row", rows[:2], every[:2]),
            ("in a batch", rows, every),
            ("in a batch in reverse order", rows[::-1], [(count - 1 - at, answer) for at, answer in every]),
        ]
        cases += [
            ("beside extreme rows", [extreme, *rows, extreme], [(at + 1, answer) for at, answer in every])
            for extreme in extremes
        ]
        for size in sorted({size for size in (16, 64, self._batch_rows) if count < size <= self._batch_rows}):
            places = [at % count for at in range(size)]
            case = [rows[at] for at in places]
            cases.append((f"in a batch of {size}", case, [(at, answers[place]) for at, place in enumerate(places)]))
        for name, batch, expected in cases:
            if name != "beside another row" and len(batch) * self._row_seconds > self._remaining():
                continue
            if found := self._difference(name, batch, expected, known):
                return found
        return None

    def _difference(
        self, name: str, batch: list[Arrays], expected: list[tuple[int, Arrays]], known: list[tuple[Arrays, Arrays]]
    ) -> str | None:
        """Execute a batch and compare its answers at some places with those of the same rows alone."""
        try:
            outputs = self._call([np.concatenate(arrays) for arrays in zip(*batch)])
        except Exception as error:
            return f"it rejects rows {name} that it accepts alone: {' '.join(str(error).split())[:200]}"
        for number, (output_name, output) in enumerate(zip(self._output_names, outputs)):
            if len(output) != len(batch):
                return f"output {output_name} has {len(output)} entries for {len(batch)} rows"
            scale = _scale([answer[number] for _, answer in known])
            for at, answer in expected:
                if not _agree(answer[number][:1], output[at : at + 1], self._tolerance, scale):
                    return f"output {output_name} of a row differs {name}"
        return None

    def _remaining(self) -> float:
        return self._ends - time.monotonic()


def _single_rows(requests: Sequence[Arrays]) -> list[Arrays]:
    """Return distinct rows of the requests, at most `MAX_REAL_ROWS`."""
    rows: dict[tuple[object, ...], Arrays] = {}
    for arrays in requests:
        for at in range(min(len(array) for array in arrays)):
            row = [array[at : at + 1] for array in arrays]
            rows.setdefault(tuple(repr(a.tolist()) if a.dtype == object else a.tobytes() for a in row), row)
            if len(rows) == MAX_REAL_ROWS:
                return list(rows.values())
    return list(rows.values())


def _by_shape(rows: Sequence[Arrays]) -> dict[tuple[tuple[int, ...], ...], list[Arrays]]:
    groups: dict[tuple[tuple[int, ...], ...], list[Arrays]] = {}
    for row in rows:
        groups.setdefault(_shapes(row), []).append(row)
    return groups


def _shapes(row: Arrays) -> tuple[tuple[int, ...], ...]:
    return tuple(array.shape[1:] for array in row)


def _invented_rows(specs: Sequence[TensorSpec], length: int) -> Iterator[Arrays]:
    """Yield rows of small numbers and words, and a row of zeros and empty texts."""
    random = np.random.default_rng(0)
    shapes = [[1, *(length if size is None else size for size in (spec.shape or (None,))[1:])] for spec in specs]
    for number, bound in enumerate((2, 2, 10, 100)):
        yield [_drawn(spec, shape, random, bound, number) for spec, shape in zip(specs, shapes)]
    yield [_full(spec, shape, 0, b"") for spec, shape in zip(specs, shapes)]


def _drawn(spec: TensorSpec, shape: list[int], random: np.random.Generator, bound: int, number: int) -> np.ndarray:
    if spec.is_string:
        return _full(spec, shape, 0, WORDS[number % len(WORDS)])
    if spec.dtype.kind in "iub":
        return random.integers(0, 2 if spec.dtype.kind == "b" else bound, shape).astype(spec.dtype)
    return random.normal(size=shape).astype(spec.dtype)


def _extreme_rows(specs: Sequence[TensorSpec], shapes: Sequence[Sequence[int]]) -> Iterator[Arrays]:
    """Yield rows of large, negative, infinite and missing numbers, with long and empty texts.

    Larger numbers might be counts of a loop, or sizes of a tensor, that never ends or fits.
    """
    for number, text in ((1e4, LONG_TEXT), (-1e4, b""), (np.inf, LONG_TEXT), (np.nan, b"")):
        yield [_full(spec, (1, *shape), _as_count(number, spec), text) for spec, shape in zip(specs, shapes)]


def _as_count(number: float, spec: TensorSpec) -> float:
    """Return an integer that the dtype holds and that a vocabulary or a loop may accept."""
    if spec.dtype.kind not in "iub":
        return number
    return {1e4: 100.0, -1e4: -1.0 if spec.dtype.kind == "i" else 0.0, np.inf: 9.0}.get(number, 1.0)


def _full(spec: TensorSpec, shape: Sequence[int], number: object, text: bytes) -> np.ndarray:
    if spec.is_string:
        return np.full(shape, text, object)
    with np.errstate(over="ignore", invalid="ignore"):  # for float8
        return np.full(shape, number).astype(spec.dtype)


def _scale(answers: Sequence[np.ndarray]) -> float:
    """Return the largest finite magnitude among answers."""
    largest = 0.0
    for answer in answers:
        if answer.dtype.kind in "fc" or answer.dtype.name == "bfloat16":
            values = np.abs(answer).astype(np.float64)
            largest = max(largest, float(values[np.isfinite(values)].max(initial=0.0)))
    return largest


def _agree(alone: np.ndarray, together: np.ndarray, relative_tolerance: float, scale: float) -> bool:
    if alone.shape != together.shape:
        return False
    if alone.dtype.kind in "OSU":
        return all(answers_agree(*pair, relative_tolerance) for pair in zip(alone.flat, together.flat))
    if alone.dtype.kind in "iub":
        return bool(np.array_equal(alone, together))
    tolerance = relative_tolerance * scale
    complex_type = np.complex128 if alone.dtype.kind == "c" else np.float64
    return bool(
        np.allclose(alone.astype(complex_type), together.astype(complex_type), rtol=0, atol=tolerance, equal_nan=True)
    )
