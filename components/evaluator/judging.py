"""Compare metrics with their bounds, and decide whether the model is blessed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from kerasline.components.core.errors import ParameterError, nearest
from kerasline.components.core.json_files import finite
from kerasline.components.evaluator.checks import check_bounds, check_direction
from kerasline.components.evaluator.results import Result, name_of_slice
from kerasline.components.evaluator.settings import DROPS, Bounds, Thresholds
from kerasline.components.metrics.baseline_comparison import NAMES as COMPARISONS
from kerasline.components.metrics.estimates import Estimate


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
    measured: bool
    kept: bool
    why: str

    def as_json(self) -> dict[str, Any]:
        return finite(asdict(self))


def judge(
    results: Sequence[Result],
    thresholds: Thresholds,
    slicings: Mapping[str, int],
    *,
    awaits_baseline: bool = False,
) -> list[Ruling]:
    """Return the outcome of every rule. A rule for slices yields all violations or, without any, the closest slice.

    Args:
        slicings: number of slices that are not measured because others are more frequent, by name of the slicing.
        awaits_baseline: whether the baseline is the model blessed last, and none has been blessed. Nothing can have
            dropped then.

    Raises:
        ParameterError: a threshold names an unknown metric or slicing, or a bound cannot apply to its metric.
    """
    rulings = []
    for name, given in thresholds.items():
        mine = [r for r in results if name == r.full_name] or [r for r in results if name == r.metric]
        if not any(not r.slicing for r in mine):
            known = {r.full_name for r in results if not r.slicing}
            raise ParameterError(f"Evaluator.thresholds: the model has no metric {name!r}; {nearest(name, known)}")
        for bounds in given if isinstance(given, list) else [given]:
            check_bounds(name, bounds, slicings)
            for kind in bounds.kinds:
                for output in dict.fromkeys(r.output for r in mine):
                    of_output = [r for r in mine if r.output == output]
                    rulings += _of_rule(
                        _Rule(of_output[0].full_name, kind, bounds), of_output, slicings, awaits_baseline
                    )
    return rulings


def blessing(rulings: Sequence[Ruling]) -> Mapping[str, Any]:
    """Return the content of the Blessing artifact."""
    return {"blessed": all(r.kept for r in rulings), "rules": [r.as_json() for r in rulings]}


def _of_rule(
    rule: _Rule, results: Sequence[Result], slicings: Mapping[str, int], awaits_baseline: bool
) -> list[Ruling]:
    (whole,) = (r for r in results if not r.slicing)
    check_direction(rule.name, rule.bounds, whole.direction)
    if awaits_baseline and (rule.kind in DROPS or whole.metric in COMPARISONS):
        return [replace(rule.unmeasured(whole, "there is no baseline to compare with yet"), kept=True)]
    return rule.on_slices(results, whole, slicings) if rule.bounds.slices else [rule.on(whole, rule.bounds.confidence)]


@dataclass(frozen=True)
class _Rule:
    """One bound of a metric.

    Attributes:
        name: name of the metric.
        kind: one of `settings.BOUNDS`.
    """

    name: str
    kind: str
    bounds: Bounds

    @property
    def bound(self) -> float:
        return getattr(self.bounds, self.kind)

    @property
    def text(self) -> str:
        return f"{self.name} {self.limit}{self.at_confidence}"

    @property
    def limit(self) -> str:
        """The bound in words."""
        if self.kind == "max_gap":
            return f"at most {self.bound:g} from the rows it is compared with"
        if self.kind in DROPS:
            return f"at most {self._amount} worse than the baseline's"
        return f"{'at least' if self.kind == 'min' else 'at most'} {self.bound:g}"

    @property
    def _amount(self) -> str:
        return f"{100 * self.bound:g}%" if self.kind == "max_relative_drop" else f"{self.bound:g}"

    @property
    def at_confidence(self) -> str:
        return "" if self.bounds.confidence is None else f" with confidence {self.bounds.confidence:g}"

    def on_slices(self, results: Sequence[Result], whole: Result, slicings: Mapping[str, int]) -> list[Ruling]:
        """Return the outcome for slices: all violations or, without any, the closest slice.

        Slices without the metric, such as the AUC of a single class, are left out. It must be measured in one slice at
        least: of all slicings, of each slicing that the bounds name, or in each slice that they name.
        """
        size = f"of {self.bounds.min_rows} rows or more"
        groups = self._groups(results, slicings)
        selected = set().union(*groups.values())
        large = [r for r in results if (r.slicing, r.slice) in selected and r.rows >= self.bounds.min_rows]
        judged = [r for r in large if self._why_undefined(r) is None]
        found = {(r.slicing, r.slice) for r in judged}
        needed = self.name
        if self.kind in DROPS:
            needed += " and a baseline's"
        elif self.kind == "max_gap":
            needed += " and other rows to compare it with"
        unmeasured = [
            replace(
                self.unmeasured(whole, f"no slice {size} {text} has {needed}"),
                rule=f"{self.text} in each slice {size} {text}",
            )
            for text, group in groups.items()
            if found.isdisjoint(group)
        ]
        confidence = self.bounds.confidence
        if confidence is not None and judged:  # Bonferroni correction, so that all slices hold jointly
            confidence = 1 - (1 - confidence) / len(judged)
        rulings = [self.on(r, confidence) for r in judged]
        if violations := [ruling for ruling in rulings if not ruling.kept]:
            return violations + unmeasured
        if not rulings:
            return unmeasured
        closest = min(rulings, key=lambda ruling: abs(ruling.value - self.bound))
        named = self.bounds.slices
        left_out = (
            0 if isinstance(named, dict) else sum(slicings[slicing] for slicing in self.bounds.slicings or slicings)
        )
        notes = [f"{len(large) - len(judged)} more have no {needed}"] if len(large) > len(judged) else []
        notes += [f"{left_out} less frequent ones are not measured"] if left_out else []
        rule = f"{closest.rule} in each of {len(rulings)} slices {size}"
        return [replace(closest, rule=f"{rule} ({', '.join(notes)})" if notes else rule), *unmeasured]

    def _groups(self, results: Sequence[Result], slicings: Iterable[str]) -> dict[str, set[tuple[str, str]]]:
        """Return the sets of slices, by words for them, in each of which the metric must be measured at least once."""
        slices = {(r.slicing, r.slice) for r in results if r.slicing}
        named = self.bounds.slices
        if isinstance(named, dict):
            each = [(slicing, label) for slicing, labels in named.items() for label in labels]
            return {f"named {slicing}={label}": slices & {(slicing, label)} for slicing, label in each}
        if isinstance(named, list):
            return {f"by {slicing}": {one for one in slices if one[0] == slicing} for slicing in named}
        return {f"by {', '.join(slicings)}": slices}

    def on(self, result: Result, confidence: float | None) -> Ruling:
        """Return the outcome for all rows or for a slice.

        Args:
            confidence: level of the one-sided limit that is compared instead of the value, or None.
        """
        where = name_of_slice(result.slicing, result.slice)
        subject = f"{self.name} in {where}" if where else self.name
        if result.rows < self.bounds.min_rows:
            return self.unmeasured(
                result, f"{subject} has {result.rows} rows, at least {self.bounds.min_rows} required"
            )
        if undefined := self._why_undefined(result):
            return self.unmeasured(result, f"{subject} {undefined}, {self.limit} required")
        value, (low, high) = self._compared(result, confidence)
        if self.kind in DROPS:
            why = (
                f"{subject} went from {result.baseline:.4g} to {result.value:.4g}, at most {self._amount} worse allowed"
            )
        elif self.kind == "max_gap":
            why = f"{subject} is {result.value:.4g}, {value:.4g} from {result.compared}, at most {self.bound:g} allowed"
        else:
            why = f"{subject} is {value:.4g}, {self.limit} required"
        limit = value if confidence is None else low if self.kind == "min" else high
        if math.isnan(limit) and self._holds(value):
            return self.unmeasured(
                result, f"{subject} has no confidence limit, {self.limit}{self.at_confidence} required"
            )
        if confidence is not None:
            why += f"{self.at_confidence} ({limit:.4g} cannot be ruled out)"
        return self._ruling(result, why, value=value, low=low, high=high, kept=self._holds(limit))

    def unmeasured(self, result: Result, why: str) -> Ruling:
        """Return the outcome where nothing was measured: not kept, unless the bounds let it pass."""
        return self._ruling(result, why, measured=False, kept=self.bounds.if_unmeasured == "pass")

    def _ruling(
        self,
        result: Result,
        why: str,
        *,
        kept: bool,
        measured: bool = True,
        value: float = math.nan,
        low: float = math.nan,
        high: float = math.nan,
    ) -> Ruling:
        return Ruling(
            self.text,
            result.output,
            result.metric,
            result.slicing,
            result.slice,
            self.kind,
            self.bound,
            self.bounds.confidence,
            value,
            low,
            high,
            measured,
            kept,
            why,
        )

    def _holds(self, value: float) -> bool:
        return value >= self.bound if self.kind == "min" else value <= self.bound

    def _why_undefined(self, result: Result) -> str | None:
        """Return why a result cannot be compared with the bound, or None if it can."""
        if math.isnan(result.value):
            return "is undefined for these rows"
        if self.kind == "max_gap":
            return "is not compared with other rows" if math.isnan(result.gap) else None
        if self.kind not in DROPS:
            return None
        change = result.figures.change
        if change is None or math.isnan(change.value):
            return "has no baseline to compare with"
        return "is 0 in the baseline" if self.kind == "max_relative_drop" and result.baseline == 0 else None

    def _compared(self, result: Result, confidence: float | None) -> tuple[float, tuple[float, float]]:
        """Return the number that is compared with the bound, and its one-sided confidence limits."""
        if self.kind == "max_gap":
            return result.gap, result.gap_limits(confidence)
        if self.kind not in DROPS:
            return result.value, _one_sided(result.figures.estimate, confidence)
        assert result.figures.change is not None and result.baseline is not None
        drop, limits = result.figures.change.value, _one_sided(result.figures.change, confidence)
        if result.direction == "up":
            drop, limits = -drop, (-limits[1], -limits[0])
        scale = abs(result.baseline) if self.kind == "max_relative_drop" else 1.0
        return drop / scale, (limits[0] / scale, limits[1] / scale)


def _one_sided(estimate: Estimate, confidence: float | None) -> tuple[float, float]:
    """Return the one-sided lower and upper confidence limits."""
    return (math.nan, math.nan) if confidence is None else estimate.interval(2 * confidence - 1)
