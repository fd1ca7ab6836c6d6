"""Compare metrics with their bounds, and decide whether the model is blessed."""

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
    """The outcome of one rule; see `kerasline.components.core.artifacts.Blessing`."""

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
    """Return the outcome of every rule. A rule for slices yields all violations or, without any, the closest slice.

    Raises:
        ParameterError: a threshold names an unknown metric or slicing, or a drop of a metric without a direction.
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
            f"Evaluator.thresholds: max_drop is set for {name!r}, a metric for which neither higher nor lower is better"
        )
    if not bounds.slices:
        (whole,) = [r for r in results if not r.slicing]
        return [_ruling(whole, name, kind, bounds, bounds.confidence)]
    known = {r.slicing for r in results if r.slicing}
    selected = known if bounds.slices is True else set(bounds.slices)
    if not known:
        raise ParameterError(f"Evaluator.thresholds: {name!r} has bounds for slices, but Evaluator.slices is empty")
    for slicing in sorted(selected - known):
        raise ParameterError(
            f"Evaluator.thresholds: {name!r} has bounds for slices by {slicing!r}; {nearest(slicing, known)}"
        )
    judged = [r for r in results if r.slicing in selected and r.rows >= bounds.min_rows and not _unknown(r, kind)]
    # Bonferroni correction: raise the level of each slice so that all hold jointly.
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
    summary = f"{nearest_one.rule} in each of {len(rulings)} slices of {bounds.min_rows} rows or more"
    return [replace(nearest_one, rule=summary)]


def _ruling(result: Result, name: str, kind: str, bounds: Bounds, confidence: float | None) -> Ruling:
    where = name_of_slice(result.slicing, result.slice)
    subject, bound = f"{name} in {where}" if where else name, getattr(bounds, kind)
    if kind == "max_drop":
        value, (low, high) = _drop(result, confidence)
        rule = f"{name} at most {bound:g} worse than the baseline's"
        why = f"{subject} went from {_as_text(result.baseline)} to {_as_text(result.value)}, "
        why += f"at most {bound:g} worse allowed"
    else:
        value, (low, high) = result.value, _one_sided(result.figures.estimate, confidence)
        limit = f"{'at least' if kind == 'min' else 'at most'} {bound:g}"
        rule, why = f"{name} {limit}", f"{subject} is {_as_text(value)}, {limit} required"
    held = value if confidence is None else low if kind == "min" else high
    # NaN violates every bound.
    kept = bool(held >= bound if kind == "min" else held <= bound)
    if confidence is not None:
        rule += f" with confidence {bounds.confidence:g}"
        why += f" with confidence {bounds.confidence:g} ({_as_text(held)} cannot be ruled out)"
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
    """Return how much worse than the baseline a metric is, and the limits of that difference."""
    if result.figures.change is None:
        return math.nan, (math.nan, math.nan)
    change = result.figures.change
    low, high = _one_sided(change, confidence)
    return (-change.value, (-high, -low)) if result.direction == "up" else (change.value, (low, high))


def _one_sided(estimate: Any, confidence: float | None) -> tuple[float, float]:
    """Return the one-sided lower and upper confidence limits."""
    return (math.nan, math.nan) if confidence is None else estimate.interval(2 * confidence - 1)


def _unknown(result: Result, kind: str) -> bool:
    """Return whether a slice lacks the metric: a slice of one class has no AUC, for example."""
    if kind == "max_drop" and result.figures.change is not None:
        return math.isnan(result.figures.change.value)
    return math.isnan(result.value)


def _room(ruling: Ruling, direction: str | None) -> float:
    """Return the distance of a value within its bound from the bound."""
    if math.isnan(ruling.value):
        return math.inf
    return ruling.value - ruling.bound if ruling.kind == "min" else ruling.bound - ruling.value


def _as_text(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4g}"


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def blessing(rulings: Sequence[Ruling]) -> Mapping[str, Any]:
    """Return the content of the Blessing artifact."""
    return {"blessed": all(r.kept for r in rulings), "rules": [r.as_json() for r in rulings]}
