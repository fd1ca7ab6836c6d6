"""Axes: map values to positions, with round ticks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from kerasline.components.charts.numbers import finite, number_text

TINY = 1e-290  # below it, ratios overflow


@dataclass(frozen=True)
class Axis:
    """An axis of a plot.

    Attributes:
        low, high: the values at its ends.
        ticks: pairs of a value and its label.
        label: the label of the axis.
        log: whether the axis is logarithmic.
        names: the categories. Category `i` is at `i + 0.5`.
    """

    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    label: str = ""
    log: bool = False
    names: tuple[str, ...] = ()

    def share(self, value: float) -> float:
        """Return the position of a value, from 0 at the low end to 1 at the high end. Values outside are clipped."""
        low, high = self.low, self.high
        if self.log:
            low, high, value = math.log(low), math.log(high), math.log(max(value, self.low))
        return min(max((value - low) / (high - low), 0.0), 1.0)


def number_axis(
    values: Iterable[Any],
    label: str = "",
    *,
    log: bool = False,
    zero: bool = False,
    within: tuple[float, float] | None = None,
    about: int = 5,
) -> Axis:
    """Return an axis with round ends that contains all values. If all are integers, so are the ticks.

    Args:
        values: the values; other than finite numbers are ignored.
        label: the label of the axis.
        log: use a logarithmic axis if all values are positive.
        zero: include zero.
        within: the ends. Derived from the values by default.
        about: approximate number of ticks.
    """
    numbers = [value for value in values if finite(value)]
    known = [float(value) for value in numbers] + [0.0] * zero
    low, high = within or (min(known, default=0.0), max(known, default=1.0))
    if log and low > TINY:
        return _logarithmic(low, high, label)
    if high - low <= max(1e-9 * max(abs(low), abs(high)), TINY):  # one value, up to rounding
        low, high = (low - abs(low) / 2, high + abs(high) / 2) if abs(low) > TINY else (low, low + 1.0)
    step = round_step((high - low) / about)
    if numbers and all(isinstance(value, int) for value in numbers):
        step = max(step, 1.0)
    if within is None:
        low, high = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    ticks = [number * step for number in range(first, last + 1)]
    return Axis(low, high, tuple(zip(ticks, _texts(ticks, step))), label)


def category_axis(names: Sequence[Any], label: str = "", most: int = 22) -> Axis:
    """Return an axis of categories, the first at the low end. Longer names than `most` characters are truncated."""
    texts = tuple(str(name) for name in names)
    labels = (text if len(text) <= most else text[: most - 1] + "…" for text in texts)
    ticks = tuple((number + 0.5, text) for number, text in enumerate(labels))
    return Axis(0.0, float(max(len(texts), 1)), ticks, label, names=texts)


def round_step(rough: float) -> float:
    """Return the nearest step of 1, 2 or 5 times a power of ten (Heckbert, Graphics Gems, 1990)."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if rough <= factor * power * 1.4142 or factor == 10)


def _logarithmic(low: float, high: float, label: str) -> Axis:
    if high <= low * (1 + 1e-9):
        low, high = low / 2, high * 2
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    factors = (1, 2, 5) if last - first <= 2 else (1,)
    every = -(-(last - first) // 6) if len(factors) == 1 else 1
    ticks = [f * 10.0**power for power in range(first, last + 1, every) for f in factors]
    inside = [tick for tick in ticks if low * 0.999 <= tick <= high * 1.001]
    labelled = inside if len(inside) > 1 else [low, high]
    return Axis(low, high, tuple((tick, number_text(tick, 3)) for tick in labelled), label, log=True)


def _texts(ticks: Sequence[float], step: float) -> list[str]:
    """Format ticks with the decimals of the step; very large and very small ones with a power of ten."""
    largest = max(map(abs, ticks), default=0.0)
    if largest >= 1e6 or (largest and step < 1e-4):
        digits = max(math.ceil(math.log10(largest / step)) + 1, 2)
        return [number_text(float(tick), digits) if abs(tick) > step / 2 else "0" for tick in ticks]
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return [f"{tick:,.{decimals}f}" if abs(tick) > step / 2 else "0" for tick in ticks]
