"""The Poisson bootstrap: how often each row counts in each replicate, independently of where it is computed.

A replicate counts each row Poisson(1) times (Chamandy, Muralidharan, Najmi and Naidu, "Estimating
Uncertainty for Massive Data Streams", 2012). Rows need not be in memory together, so replicates merge like
sums. The counts depend only on seed, row and replicate.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
# Each 64-bit hash yields four 16-bit numbers.
_DRAWS_PER_HASH = 4
_LEVELS = 1 << 16
# Bounds the numbers drawn at a time.
_MOST_DRAWN = 1 << 22


@dataclass(frozen=True)
class Resampling:
    """The replicates.

    Attributes:
        seed: seed of all counts.
        replicates: number of replicates; 0 for none.
    """

    seed: int
    replicates: int

    def counts(self, numbers: np.ndarray) -> np.ndarray:
        """Return how often each row counts in each replicate.

        Args:
            numbers: int64 (rows,), unique number of each row.

        Returns:
            uint8 (rows, replicates), independent Poisson(1) to within 2e-5.
        """
        from kerasline.components.data.hashing import mix

        hashes = -(-self.replicates // _DRAWS_PER_HASH)
        with np.errstate(over="ignore"):
            rows = mix(numbers.astype(np.uint64) + _GOLDEN * np.uint64((self.seed + 1) % 2**64))
            steps = _GOLDEN * np.arange(1, hashes + 1, dtype=np.uint64)
            # Each row has a SplitMix64 stream that starts at its hash.
            drawn = mix(rows[:, np.newaxis] + steps)
        return _POISSON[drawn.view(np.uint16)[:, : self.replicates]]

    def of_counts(self, counts: np.ndarray, squares: np.ndarray, key: str) -> Iterator[np.ndarray]:
        """Yield replicates of sums over rows that are equal up to their weights.

        The sum of the Poisson(1) counts of n rows is Poisson(n), so equal rows can be drawn together. With weights,
        mean and variance are those of the bootstrap over rows: sum w and sum w².

        Args:
            counts: float64 (n,), sum of weights of each kind of row.
            squares: float64 (n,), sum of squared weights; equal to `counts` if all weights are 1.
            key: name of the draw; different keys give independent draws.

        Yields:
            float64 (some replicates, n), limited by memory; all replicates in total.
        """
        random = np.random.default_rng([self.seed % 2**64, *key.encode()])
        scale = np.divide(squares, counts, out=np.ones_like(counts), where=counts > 0)
        step = max(1, _MOST_DRAWN // max(1, len(counts)))
        for start in range(0, max(1, self.replicates), step):
            some = min(step, self.replicates - start)
            yield random.poisson(counts / scale, (some, len(counts))) * scale

    def of_groups(self, counts: np.ndarray, group: np.ndarray, groups: int, key: str) -> Iterator[np.ndarray]:
        """Yield replicates of counts that are drawn in groups: each group counts Poisson(1) times.

        Args:
            counts: float64 (n,), sum of weights of each kind of row.
            group: int64 (n,), the group of each, from 0.
            groups: number of groups.
            key: name of the draw; different keys give independent draws.

        Yields:
            float64 (some replicates, n), limited by memory; all replicates in total.
        """
        ones = np.ones(groups)
        step = max(1, _MOST_DRAWN // max(1, len(counts)))
        for drawn in self.of_counts(ones, ones, key):
            for start in range(0, max(1, len(drawn)), step):
                yield drawn[start : start + step][:, group] * counts


def _poisson_table() -> np.ndarray:
    """Return a lookup table from 16 random bits to Poisson(1) counts."""
    shares = np.exp(-1.0) / np.array([math.factorial(k) for k in range(10)])
    ends = np.round(np.cumsum(shares) * _LEVELS).astype(int)
    ends[-1] = _LEVELS
    return np.repeat(np.arange(10, dtype=np.uint8), np.diff(ends, prepend=0))


_POISSON = _poisson_table()
