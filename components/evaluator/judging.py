"""Whether a model keeps its bounds: each rule with the figure that it was held against."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from kerasline.components.core.errors import ParameterError, nearest
from kerasline.components.evaluator.results import Result, name_of_slice
from kerasline.components.evaluator.settings import Bounds, Thresholds

KINDS = ("min", "max", "max_drop")


@dataclass(frozen=True)
class Ruling:
    """One rule, and how it went; see `kerasline.components.core.artifacts.Blessing`."""

    rule: str
    output: str
    metric: str
    slicing: str
    slice: str
    kind: str
    bound: float
    confidence: float | None
    value: float
    low: float
    high: float
    kept: bool
    why: str

    def as_json(self) -> dict[str, Any]:
        return {name: None if _is_nan(value) else value for name, value in asdict(self).items()}


def judge(results: Sequence[Result], thresholds: Thresholds) -> list[Ruling]:
    """Every rule; of one for several slices each that broke it, or else the one that came nearest to it.

    Raises:
        ParameterError: a threshold names a metric or slicing that there is not, or a drop of a metric
            of which neither more nor less is better.
    """
    rulings = []
    for name, given in thresholds.items():
        mine = [r for r in results if name in (r.metric, r.full_name)]
        if not any(not r.slicing for r in mine):
            known = {r.full_name for r in results if not r.slicing}
            raise ParameterError(f"Evaluator.thresholds: the model has no metric {name!r}; {nearest(name, known)}")
        outputs = dict.fromkeys(r.output for r in mine)
        for bounds in given if isinstance(given, list) else [given]:
            for kind in KINDS:
                if getattr(bounds, kind) is not None:
                    for output in outputs:
                        rulings += _of_rule([r for r in mine if r.output == output], name, kind, bounds)
    return rulings


def _of_rule(results: Sequence[Result], name: str, kind: str, bounds: Bounds) -> list[Ruling]:
    if kind == "max_drop" and results[0].direction is None:
        raise ParameterError(
            f"Evaluator.thresholds: {name!r} is neither better nor worse for being more: it cannot drop"
        )
    if not bounds.slices:
        (whole,) = [r for r in results if not r.slicing]
        return [_ruling(whole, name, kind, bounds, bounds.confidence)]
    known = {r.slicing for r in results if r.slicing}
    asked = known if bounds.slices is True else set(bounds.slices)
    if not known:
        raise ParameterError(f"Evaluator.thresholds: {name!r} is bound in slices, but Evaluator.slices has none")
    for slicing in sorted(asked - known):
        raise ParameterError(
            f"Evaluator.thresholds: {name!r} is bound in slices by {slicing!r}; {nearest(slicing, known)}"
        )
    judged = [r for r in results if r.slicing in asked and r.rows >= bounds.min_rows and not _unknown(r, kind)]
    # Several at once: the level of each is so much higher that all hold together (Bonferroni).
    confidence = bounds.confidence and 1 - (1 - bounds.confidence) / max(len(judged), 1)
    rulings = [_ruling(r, name, kind, bounds, confidence) for r in judged]
    broken = [ruling for ruling in rulings if not ruling.kept]
    if broken:
        return broken
    if not rulings:
        (whole,) = [r for r in results if not r.slicing]
        why = f"no slice of {bounds.min_rows} rows or more has this metric"
        return [replace(_ruling(whole, name, kind, bounds, None), kept=True, why=why)]
    nearest_one = min(rulings, key=lambda ruling: _room(ruling, results[0].direction))
    told = f"{nearest_one.rule} in each of {len(rulings)} slices of {bounds.min_rows} rows or more"
    return [replace(nearest_one, rule=told)]


def _ruling(result: Result, name: str, kind: str, bounds: Bounds, confidence: float | None) -> Ruling:
    where = name_of_slice(result.slicing, result.slice)
    told, bound = f"{name} in {where}" if where else name, getattr(bounds, kind)
    if kind == "max_drop":
        value, (low, high) = _drop(result, confidence)
        rule = f"{name} at most {bound:g} worse than the baseline's"
        why = f"{told} went from {_told(result.baseline)} to {_told(result.value)}, at most {bound:g} worse allowed"
    else:
        value, (low, high) = result.value, _one_sided(result.figures.estimate, confidence)
        wanted = f"{'at least' if kind == 'min' else 'at most'} {bound:g}"
        rule, why = f"{name} {wanted}", f"{told} is {_told(value)}, {wanted} wanted"
    held = value if confidence is None else low if kind == "min" else high
    # A figure that is not a number keeps no bound.
    kept = bool(held >= bound if kind == "min" else held <= bound)
    if confidence is not None:
        rule += f" with confidence {bounds.confidence:g}"
        why += f" with confidence {bounds.confidence:g} ({_told(held)} cannot be ruled out)"
    if kind == "max_drop" and result.baseline is None:
        kept, why = True, "there is no baseline to compare with yet"
    return Ruling(
        rule,
        result.output,
        result.metric,
        result.slicing,
        result.slice,
        kind,
        bound,
        bounds.confidence,
        value,
        low,
        high,
        kept,
        why,
    )


def _drop(result: Result, confidence: float | None) -> tuple[float, tuple[float, float]]:
    """By how much it is worse than the baseline, and the limits of that."""
    if result.figures.change is None:
        return math.nan, (math.nan, math.nan)
    change = result.figures.change
    low, high = _one_sided(change, confidence)
    return (-change.value, (-high, -low)) if result.direction == "up" else (change.value, (low, high))


def _one_sided(estimate: Any, confidence: float | None) -> tuple[float, float]:
    """The limits below and above, each of which holds with the confidence."""
    return (math.nan, math.nan) if confidence is None else estimate.interval(2 * confidence - 1)


def _unknown(result: Result, kind: str) -> bool:
    """Whether a slice has no such figure: of one class alone there is no AUC."""
    if kind == "max_drop" and result.figures.change is not None:
        return math.isnan(result.figures.change.value)
    return math.isnan(result.value)


def _room(ruling: Ruling, direction: str | None) -> float:
    """How far a ruling that was kept is from its bound."""
    if math.isnan(ruling.value):
        return math.inf
    return ruling.value - ruling.bound if ruling.kind == "min" else ruling.bound - ruling.value


def _told(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4g}"


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def blessing(rulings: Sequence[Ruling]) -> Mapping[str, Any]:
    """What the artifact holds."""
    return {"blessed": all(r.kept for r in rulings), "rules": [r.as_json() for r in rulings]}
