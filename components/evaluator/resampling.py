"""The Poisson bootstrap: how often each row counts in each replicate, the same wherever it is computed.

A replicate counts each row Poisson(1) times (Chamandy, Muralidharan, Najmi and Naidu, "Estimating
Uncertainty for Massive Data Streams", 2012): rows need not be at hand together, so it merges like
any sum. The counts are a function of seed, row and replicate alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
# Four 16-bit numbers are taken of each 64-bit hash.
_DRAWS_A_HASH = 4
_LEVELS = 1 << 16
# Numbers drawn at a time.
_MOST_DRAWN = 1 << 22


@dataclass(frozen=True)
class Resampling:
    """The replicates.

    Attributes:
        seed: decides all counts.
        replicates: how many there are; 0 for none.
    """

    seed: int
    replicates: int

    def counts(self, numbers: np.ndarray) -> np.ndarray:
        """How often rows count.

        Args:
            numbers: int64 (rows,): tells each row from all others.

        Returns:
            uint8 (rows, replicates), independent Poisson(1) to within 2e-5.
        """
        from kerasline.components.data.hashing import mix

        hashes = -(-self.replicates // _DRAWS_A_HASH)
        with np.errstate(over="ignore"):
            rows = mix(numbers.astype(np.uint64) + _GOLDEN * np.uint64((self.seed + 1) % 2**64))
            steps = _GOLDEN * np.arange(1, hashes + 1, dtype=np.uint64)
            # Of each row a stream of SplitMix64 that begins at its own hash.
            drawn = mix(rows[:, np.newaxis] + steps)
        return _POISSON[drawn.view(np.uint16)[:, : self.replicates]]

    def of_counts(self, counts: np.ndarray, squares: np.ndarray, key: str) -> Iterator[np.ndarray]:
        """Replicates of sums over rows that are alike but for their weights.

        The sum of n rows' Poisson(1) counts is Poisson(n), so rows of one kind need not be told apart. With
        weights, mean and variance are those of the row by row bootstrap: sum w and sum w².

        Args:
            counts: float64 (n,): the sum of weights of each kind.
            squares: float64 (n,): that of their squares; the same as counts where all weights are 1.
            key: tells independent draws apart.

        Yields:
            float64 (some replicates, n), as many at a time as memory allows; all replicates in all.
        """
        random = np.random.default_rng([self.seed % 2**64, *key.encode()])
        scale = np.divide(squares, counts, out=np.ones_like(counts), where=counts > 0)
        step = max(1, _MOST_DRAWN // max(1, len(counts)))
        for start in range(0, max(1, self.replicates), step):
            some = min(step, self.replicates - start)
            yield random.poisson(counts / scale, (some, len(counts))) * scale


def _poisson_table() -> np.ndarray:
    """Poisson(1) by 16 random bits: how often each number is given, rounded so that all are."""
    shares = np.exp(-1.0) / np.array([math.factorial(k) for k in range(10)])
    ends = np.round(np.cumsum(shares) * _LEVELS).astype(int)
    ends[-1] = _LEVELS
    return np.repeat(np.arange(10, dtype=np.uint8), np.diff(ends, prepend=0))


_POISSON = _poisson_table()
