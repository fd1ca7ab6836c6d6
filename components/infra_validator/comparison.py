"""Comparison of a served answer with the model's own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kerasline.components.infra_validator.cases import Answer
from kerasline.components.models.media_answers import answers_agree


@dataclass(frozen=True)
class Comparison:
    """The result of a comparison.

    Attributes:
        mismatch: the first difference, in words; None if the answers agree.
        largest: largest difference of a number, relative for numbers above 1; 0 if there are none.
    """

    mismatch: str | None
    largest: float = 0.0


def compare(own: Answer, served: Answer, tolerance: float) -> Comparison:
    """Compare a served answer with the model's own.

    Texts and integers must be equal, and files of sound and images but for rounding. Other numbers may differ by
    `tolerance`, relative for numbers above 1. If one of two numbers is infinite or NaN, the other must be infinite or
    NaN as well: which of them an overflowing sum gives depends on the order of its terms. A refusal must be answered by
    a refusal of the same class, 4xx or 5xx.
    """
    if own.outputs is None or served.outputs is None:
        return Comparison(_compare_refusals(own, served))
    if set(own.outputs) != set(served.outputs):
        expected, received = (", ".join(sorted(outputs)) for outputs in (own.outputs, served.outputs))
        return Comparison(f"served outputs {received}, expected {expected}")
    largest = 0.0
    for name, ours in own.outputs.items():
        theirs = served.outputs[name]
        if ours.shape != theirs.shape:
            return Comparison(f"{name}: served shape {list(theirs.shape)}, in process {list(ours.shape)}", largest)
        mismatch, difference = _compare_values(ours, theirs, tolerance)
        largest = max(largest, difference)
        if mismatch is not None:
            return Comparison(f"{name}: {mismatch}", largest)
    return Comparison(None, largest)


def compare_repeated(first: Answer, second: Answer, tolerance: float) -> str | None:
    """Return how a model's second answer to the same rows differs from its first, in words, or None."""
    mismatch = compare(first, second, tolerance).mismatch
    return mismatch and mismatch.replace("served", "the second time").replace("in process", "the first time")


def _compare_refusals(own: Answer, served: Answer) -> str | None:
    if not own.is_refusal:
        return f"refused with {served.status} ({served.error}), but answered in process"
    if not served.is_refusal:
        return f"answered, but refused in process ({own.error})"
    if own.status // 100 != served.status // 100:
        return f"refused with {served.status} ({served.error}), expected {own.status} ({own.error})"
    return None


def _compare_values(ours: np.ndarray, theirs: np.ndarray, tolerance: float) -> tuple[str | None, float]:
    if ours.dtype.kind in "OSU":
        agree = [answers_agree(*pair, tolerance) for pair in zip(ours.flat, theirs.flat)]
        return _first_difference(~np.array(agree, bool).reshape(ours.shape), ours, theirs), 0.0
    if ours.dtype.kind in "iub":
        return _first_difference(np.asarray(ours != theirs).reshape(ours.shape), ours, theirs), 0.0
    expected, received = ours.astype(np.float64), theirs.astype(np.float64)
    finite = np.isfinite(expected)
    differs = finite != np.isfinite(received)
    with np.errstate(invalid="ignore", over="ignore"):
        relative = np.abs(expected - received) / np.maximum(1.0, np.abs(expected))
        difference = np.where(finite & ~differs, relative, 0.0)
        differs |= difference > tolerance
    return _first_difference(differs, ours, theirs), float(difference.max(initial=0.0))


def _first_difference(differs: np.ndarray, ours: np.ndarray, theirs: np.ndarray) -> str | None:
    if not differs.any():
        return None
    index = tuple(int(number) for number in np.argwhere(differs)[0])
    where = f" at {list(index)}" if index else ""
    return f"served {_format(theirs[index])}, in process {_format(ours[index])}{where}"


def _format(value: object) -> str:
    if isinstance(value, bytes):
        return repr(value.decode(errors="replace")[:60])
    return f"{value:.6g}" if isinstance(value, (float, np.floating)) else str(value)
