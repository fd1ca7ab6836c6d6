"""A metric value with its confidence interval."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

# Fewest replicates beyond each end of a percentile interval.
LEAST_BEYOND = 5
JACKKNIFE_GROUPS = 20


@dataclass(frozen=True)
class Estimate:
    """The value of a metric and the source of its interval; the first source that is not None is used.

    Attributes:
        value: the value; NaN if undefined.
        share: (successes, trials) of independent rows: Wilson's score interval.
        bounds: the ends of exact two-sided intervals by confidence, a function of it.
        replicates: the value of each bootstrap replicate, float64 (n,): their quantiles; where the confidence
            leaves fewer than `LEAST_BEYOND` of them outside each end, not inside the normal quantile of their spread.
        error: (standard error, degrees of freedom): Student's t.
    """

    value: float
    share: tuple[float, float] | None = None
    bounds: Any = None
    replicates: np.ndarray | None = None
    error: tuple[float, float] | None = None

    @property
    def method(self) -> str | None:
        """Name of the method of the interval, or None."""
        if math.isnan(self.value):
            return None
        if self.share is not None:
            return "wilson"
        if self.bounds is not None:
            return "order statistics"
        if self.replicates is not None and len(_known(self.replicates)) > 1:
            return "bootstrap"
        return "jackknife" if self.error is not None else None

    def interval(self, confidence: float) -> tuple[float, float]:
        """Return the two-sided interval; (NaN, NaN) if there is none."""
        method = self.method
        if method == "wilson" and self.share is not None:
            successes, trials = self.share
            return wilson(successes, trials, confidence)
        if method == "order statistics":
            return self.bounds(confidence)
        if method == "bootstrap" and self.replicates is not None:
            nominal, known = (1 - confidence) / 2, _known(self.replicates)
            tail = min(0.5, max(nominal, LEAST_BEYOND / (len(known) + 1)))
            # The (n + 1)p-th of n replicates: of 199, the 5th and the 195th (Davison and Hinkley, 1997, 5.2.3).
            low, high = np.quantile(known, [tail, 1 - tail], method="weibull")
            reach = NormalDist().inv_cdf(1 - nominal) * self.standard_error if tail > nominal else 0.0
            return min(float(low), self.value - reach), max(float(high), self.value + reach)
        if method == "jackknife" and self.error is not None:
            error, freedom = self.error
            reach = _student(1 - (1 - confidence) / 2, freedom) * error
            return self.value - reach, self.value + reach
        return math.nan, math.nan

    @property
    def standard_error(self) -> float:
        """Standard error; NaN if unknown."""
        if self.replicates is not None and len(_known(self.replicates)) > 1:
            return float(np.std(_known(self.replicates), ddof=1))
        if self.share is not None and self.share[1]:
            return math.sqrt(self.value * (1 - self.value) / self.share[1])
        return self.error[0] if self.error is not None else math.nan


def wilson(successes: float, trials: float, confidence: float) -> tuple[float, float]:
    """Return Wilson's score interval of a share (Journal of the American Statistical Association 22, 1927)."""
    if not trials:
        return math.nan, math.nan
    z = NormalDist().inv_cdf(1 - (1 - confidence) / 2)
    share, spread = successes / trials, z * z / trials
    middle = (share + spread / 2) / (1 + spread)
    reach = z / (1 + spread) * math.sqrt(share * (1 - share) / trials + spread / (4 * trials))
    low = 0.0 if successes == 0 else middle - reach
    return low, 1.0 if successes == trials else middle + reach


def jackknife_groups(numbers: np.ndarray) -> np.ndarray:
    """Return the jackknife group of each row, int64 (rows,), given their unique numbers, int64 (rows,)."""
    from kerasline.components.data.hashing import mix

    return (mix(numbers.astype(np.uint64)) % np.uint64(JACKKNIFE_GROUPS)).astype(np.int64)


def jackknifed(results: np.ndarray) -> Estimate:
    """Return the delete-a-group jackknife estimate, given the value and those without each non-empty group of rows.

    Kott, "The Delete-a-Group Jackknife", Journal of Official Statistics 17, 2001. Rows fall into groups at random.
    """
    value, without = float(results[0]), results[1:]
    n = len(without)
    if n < 2:
        return Estimate(value)
    error = math.sqrt((n - 1) / n * float(np.sum((without - without.mean()) ** 2)))
    return Estimate(value, error=(error, n - 1))


def _known(replicates: np.ndarray) -> np.ndarray:
    """Drop NaN: a replicate may contain no row of a class."""
    return replicates[~np.isnan(replicates)]


def _student(probability: float, freedom: float) -> float:
    """Return a quantile of Student's t by Hill's expansion about the normal (Communications of the ACM 13, 1970)."""
    z = NormalDist().inv_cdf(probability)
    g = [
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    ]
    return z + sum(term / freedom ** (power + 1) for power, term in enumerate(g))
