"""Whether what was served is what the model answers in process."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kerasline.components.infra_validator.answer import Answer


@dataclass(frozen=True)
class Comparison:
    """Attributes:
    wrong: how they differ, in words; None where they agree.
    largest: difference of any number, of one greater than 1 as a part of it; 0 where none is compared.
    """

    wrong: str | None
    largest: float = 0.0


def compare(own: Answer, served: Answer, tolerance: float) -> Comparison:
    """Holds a served answer against that in process.

    Texts and whole numbers must be equal. Other numbers may differ by `tolerance`, or by that part of the number
    where it is greater than 1. Where one is infinite or not a number, the other must be either: to which of them a
    sum overflows depends on its order. A refusal must be answered by a refusal of the same class, 4xx or 5xx.
    """
    if own.is_refusal or served.is_refusal:
        return Comparison(_refusals_differ(own, served))
    if set(own.outputs) != set(served.outputs):
        return Comparison(
            f"outputs {', '.join(sorted(served.outputs))} served, {', '.join(sorted(own.outputs))} wanted"
        )
    largest = 0.0
    for name, ours in own.outputs.items():
        theirs = served.outputs[name]
        if ours.shape != theirs.shape:
            return Comparison(f"{name}: shape {list(theirs.shape)} served, {list(ours.shape)} in process", largest)
        wrong, difference = _values_differ(ours, theirs, tolerance)
        largest = max(largest, difference)
        if wrong is not None:
            return Comparison(f"{name}: {wrong}", largest)
    return Comparison(None, largest)


def differs_from_before(first: Answer, second: Answer, tolerance: float) -> str | None:
    """How a model's second answer to the same rows differs from its first, in words; None where it does not."""
    changed = compare(first, second, tolerance).wrong
    return changed and changed.replace("served", "the second time").replace("in process", "the first")


def _refusals_differ(own: Answer, served: Answer) -> str | None:
    if not own.is_refusal:
        return f"refused with {served.status} ({served.error}), in process it is answered"
    if not served.is_refusal:
        return f"answered, in process it is refused ({own.error})"
    if own.status // 100 != served.status // 100:
        return f"refused with {served.status} ({served.error}), where {own.status} is right ({own.error})"
    return None


def _values_differ(ours: np.ndarray, theirs: np.ndarray, tolerance: float) -> tuple[str | None, float]:
    if ours.dtype.kind in "OSUiub":
        unlike = np.asarray(ours != theirs).reshape(ours.shape)
        return _told(unlike, ours, theirs), 0.0
    wanted, got = ours.astype(np.float64), theirs.astype(np.float64)
    finite = np.isfinite(wanted)
    unlike = finite != np.isfinite(got)
    with np.errstate(invalid="ignore", over="ignore"):
        part = np.abs(wanted - got) / np.maximum(1.0, np.abs(wanted))
        difference = np.where(finite & ~unlike, part, 0.0)
        unlike |= difference > tolerance
    return _told(unlike, ours, theirs), float(difference.max(initial=0.0))


def _told(unlike: np.ndarray, ours: np.ndarray, theirs: np.ndarray) -> str | None:
    if not unlike.any():
        return None
    place = tuple(int(index) for index in np.argwhere(unlike)[0])
    where = f" at {list(place)}" if place else ""
    return f"{_shown(theirs[place])} served, {_shown(ours[place])} in process{where}"


def _shown(value: object) -> str:
    if isinstance(value, bytes):
        return repr(value.decode(errors="replace")[:60])
    return f"{value:.6g}" if isinstance(value, (float, np.floating)) else str(value)
