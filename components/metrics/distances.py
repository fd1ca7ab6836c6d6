"""Distances between the features of generated and of real pictures or sounds, as a judge sees them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from kerasline.components.core.errors import DataError
from kerasline.components.data.accumulators.moments import Covariance
from kerasline.components.data.hashing import mix
from kerasline.components.metrics.base import Direction, Rows, StateMetrics, divided
from kerasline.components.metrics.estimates import Estimate, jackknife_groups, jackknifed

# The kernel distance compares this many rows, those whose numbers have the smallest hashes.
MOST_COMPARED = 2048
# With more features than this, the Fréchet distance has no interval: each group of rows needs two covariances.
MOST_FEATURES_WITH_INTERVAL = 256


class FeatureDistances(StateMetrics):
    """Fréchet and kernel distance between the distributions of two sets of features, 0 for equal ones.

    - `frechet_distance`: |m - m'|² + tr(S + S' - 2 (S S')^½), with means m and sample covariances S (Heusel et al.,
      "GANs Trained by a Two Time-Scale Update Rule", NeurIPS 2017). It is biased upwards, most with few rows, so only
      values of equal numbers of rows can be compared.
    - `kernel_distance`: the unbiased estimate of the squared maximum mean discrepancy with the kernel
      k(x, y) = (x·y / features + 1)³ (Binkowski et al., "Demystifying MMD GANs", ICLR 2018). It may be below 0. Of more
      than `MOST_COMPARED` rows, that many are compared, the same ones in whatever order rows come.

    With Inception's features these are FID and KID. Labels are the features of the real rows, (rows, features),
    predictions those of the generated ones. Weights count as numbers of rows. Intervals are those of the
    delete-a-group jackknife.

    Raises:
        DataError: when rows are added: the features are no vectors of equal length, or not finite.
    """

    directions: Mapping[str, Direction] = {"frechet_distance": "down", "kernel_distance": "down"}

    def new_state(self) -> FeatureState:
        return FeatureState()

    def estimates(self, state: FeatureState, seed: int) -> dict[str, Estimate]:
        return {"frechet_distance": state.frechet_distance(), "kernel_distance": state.kernel_distance()}


class _Sides(NamedTuple):
    """Means and covariances of both sets of features."""

    real: Covariance
    generated: Covariance

    def merge(self, other: _Sides) -> None:
        self.real.merge(other.real)
        self.generated.merge(other.generated)

    @classmethod
    def joined(cls, parts: Sequence[_Sides], features: int) -> _Sides:
        whole = cls(Covariance(features), Covariance(features))
        for part in parts:
            whole.merge(part)
        return whole


class FeatureState:
    """Means and covariances by jackknife group, and a bounded sample of rows. States merge in any order."""

    def __init__(self) -> None:
        self._moments: dict[int, _Sides] = {}
        self._number = np.zeros(0, np.uint64)
        self._weight = np.zeros(0)
        self._features: np.ndarray | None = None  # float64 (2, sampled rows, features), real and generated

    def add(self, rows: Rows) -> None:
        if not len(rows):
            return
        both = np.stack([_vectors(side) for side in (rows.label, rows.prediction)])
        count = both.shape[2]
        group = jackknife_groups(rows.number) if count <= MOST_FEATURES_WITH_INTERVAL else np.zeros(len(rows), int)
        for one in np.unique(group).tolist():
            mine = group == one
            if one not in self._moments:
                self._moments[one] = _Sides(Covariance(count), Covariance(count))
            for moments, features in zip(self._moments[one], both):
                moments.add(features[mine], None if rows.weight is None else rows.weight[mine])
        weight = np.ones(len(rows)) if rows.weight is None else rows.weight
        self._keep(rows.number.astype(np.uint64), weight, both)

    def merge(self, other: FeatureState) -> None:
        for group, sides in other._moments.items():
            if group in self._moments:
                self._moments[group].merge(sides)
            else:
                self._moments[group] = sides
        if other._features is not None:
            self._keep(other._number, other._weight, other._features)

    def frechet_distance(self) -> Estimate:
        if self._features is None:
            return Estimate(np.nan)
        groups, count = sorted(self._moments), self._features.shape[2]
        parts = [[self._moments[one] for one in groups if one != left_out] for left_out in (None, *groups)]
        parts = parts if len(groups) > 1 else parts[:1]
        return jackknifed(np.array([_frechet(_Sides.joined(part, count)) for part in parts]))

    def kernel_distance(self) -> Estimate:
        if self._features is None:
            return Estimate(np.nan)
        groups, group = np.unique(jackknife_groups(self._number), return_inverse=True)
        share = self._weight[:, np.newaxis] * (group[:, np.newaxis] == np.arange(len(groups)))  # (rows, groups)
        real, generated = self._features
        within = _pair_sums(_kernel(real, real) + _kernel(generated, generated), share, distinct=True)
        across = _pair_sums(_kernel(real, generated), share)
        ones = np.ones((len(share), len(share)))
        pairs, distinct = _pair_sums(ones, share), _pair_sums(ones, share, distinct=True)
        return jackknifed(divided(within, distinct) - 2 * divided(across, pairs))

    def _keep(self, number: np.ndarray, weight: np.ndarray, features: np.ndarray) -> None:
        """Keep the rows with the smallest hashes, in the order of these, which does not depend on the batches."""
        if self._features is not None:
            number = np.concatenate([self._number, number])
            weight = np.concatenate([self._weight, weight])
            features = np.concatenate([self._features, features], axis=1)
        kept = np.argsort(mix(number), kind="stable")[:MOST_COMPARED]
        self._number, self._weight, self._features = number[kept], weight[kept], features[:, kept]


def _vectors(values: np.ndarray) -> np.ndarray:
    """Return features as float64 (rows, features)."""
    if values.dtype == object or values.ndim < 2:
        raise DataError(f"features: expected numbers of shape (rows, features), received {values.dtype} {values.shape}")
    vectors = values.reshape(len(values), -1).astype(np.float64)
    if not np.isfinite(vectors).all():
        raise DataError("features: the judge answers with numbers that are not finite")
    return vectors


def _frechet(sides: _Sides) -> float:
    """Return the Fréchet distance of two normal distributions; NaN if one has fewer than two rows."""
    if min(side.count for side in sides) <= 1:
        return np.nan
    real, generated = (side.covariance for side in sides)
    # tr (S S')^½ is the sum of the square roots of the eigenvalues of S^½ S' S^½, which is symmetric.
    values, vectors = np.linalg.eigh(real)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    roots = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ generated @ root), 0))
    apart = sides.real.mean - sides.generated.mean
    return float(apart @ apart + np.trace(real) + np.trace(generated) - 2 * roots.sum())


def _kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the polynomial kernel of each pair of rows, float64 (rows, rows)."""
    return (a @ b.T / a.shape[1] + 1) ** 3


def _pair_sums(values: np.ndarray, share: np.ndarray, *, distinct: bool = False) -> np.ndarray:
    """Return the weighted sum over pairs of rows, and that without each group of rows, float64 (1 + groups,).

    Args:
        values: float64 (rows, rows).
        share: float64 (rows, groups), the weight of each row in its group, and 0 in the others.
        distinct: whether a row is no pair with itself.
    """
    block = share.T @ values @ share
    if distinct:
        block -= np.diag(np.square(share).T @ np.diagonal(values))
    without = block.sum() - block.sum(axis=0) - block.sum(axis=1) + np.diagonal(block)
    return np.append(block.sum(), without)
