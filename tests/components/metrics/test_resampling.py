"""The Poisson bootstrap against the distributions that it should have."""

import numpy as np
import pytest
from scipy import stats

from kerasline.components.metrics.resampling import Resampling

NUMBERS = np.arange(20_000)
COUNTS = Resampling(7, 203).counts(NUMBERS)


def test_counts_are_poisson_with_mean_1():
    observed = np.bincount(COUNTS.ravel(), minlength=10)
    expected = stats.poisson(1).pmf(np.arange(10)) * COUNTS.size
    observed, expected = (np.append(x[:7], x[7:].sum()) for x in (observed, expected))
    assert COUNTS.shape == (20_000, 203) and COUNTS.dtype == np.uint8
    assert stats.chisquare(observed, expected * observed.sum() / expected.sum()).pvalue > 1e-3


@pytest.mark.parametrize("axis", ["rows", "replicates"])
def test_counts_are_independent(axis):
    """Correlations of neighbors and of all pairs of some rows are those of independent numbers."""
    table = COUNTS[:203].T if axis == "rows" else COUNTS
    correlation = np.corrcoef(table, rowvar=False)[np.triu_indices(203, 1)] * np.sqrt(len(table))
    assert stats.kstest(correlation, "norm").pvalue > 1e-3 or np.std(correlation) == pytest.approx(1, abs=0.03)
    assert abs(np.mean(correlation)) < 5 / np.sqrt(len(correlation))
    assert np.abs(correlation).max() < 5.5


@pytest.mark.parametrize("step", [2, 8, 65536, 2**32])
def test_rows_at_any_distance_are_independent(step):
    counts = Resampling(0, 200).counts(np.arange(500) * step).astype(float)
    joint = np.corrcoef(counts)[np.triu_indices(500, 1)] * np.sqrt(200)
    assert np.std(joint) == pytest.approx(1, abs=0.02)


def test_counts_depend_only_on_seed_and_row():
    places = np.array([5, 19_999, 0, 777])
    np.testing.assert_array_equal(Resampling(7, 203).counts(places), COUNTS[places])
    np.testing.assert_array_equal(Resampling(7, 50).counts(NUMBERS[:100]), COUNTS[:100, :50])
    other = Resampling(8, 203).counts(NUMBERS)
    assert abs(np.corrcoef(other.ravel(), COUNTS.ravel())[0, 1]) < 5 / np.sqrt(COUNTS.size)


@pytest.mark.parametrize("seed", [-1, 2**63, 2**64 - 1])
def test_any_integer_is_a_seed(seed):
    assert Resampling(seed, 4).counts(NUMBERS).mean() == pytest.approx(1, abs=0.02)
    (drawn,) = Resampling(seed, 4).of_counts(np.ones(3), np.ones(3), "a")
    assert drawn.shape == (4, 3)


def test_spread_of_a_mean_agrees_with_theory():
    """sigma / sqrt(n), to within the error of 400 replicates."""
    random = np.random.default_rng(1)
    values = random.gamma(2.0, 3.0, 5000)
    counts = Resampling(0, 400).counts(np.arange(5000)).astype(np.float64)
    means = counts.T @ values / counts.sum(axis=0)
    assert np.std(means, ddof=1) == pytest.approx(np.std(values) / np.sqrt(5000), rel=4 / np.sqrt(2 * 400))


@pytest.mark.parametrize("weighted", [False, True])
def test_counts_of_equal_rows_have_the_moments_of_single_rows(weighted):
    random = np.random.default_rng(2)
    kinds = [random.gamma(1.0, size=n) if weighted else np.ones(n) for n in (1, 3, 40, 1000)]
    counts, squares = (np.array([np.sum(w**p) for w in kinds]) for p in (1, 2))
    drawn = np.concatenate(list(Resampling(3, 20_000).of_counts(counts, squares, "key")))
    error = np.sqrt(squares / len(drawn))
    assert (np.abs(drawn.mean(axis=0) - counts) < 5 * error).all()
    np.testing.assert_allclose(drawn.var(axis=0), squares, rtol=0.12)
    assert np.abs(np.corrcoef(drawn, rowvar=False)[np.triu_indices(4, 1)]).max() < 5 / np.sqrt(len(drawn))


def test_draws_are_determined_by_their_keys():
    def drawn(key):
        return np.concatenate(list(Resampling(3, 9).of_counts(np.full(50, 9.0), np.full(50, 9.0), key)))

    np.testing.assert_array_equal(drawn("a"), drawn("a"))
    assert (drawn("a") != drawn("b")).any()


def test_many_cells_are_drawn_in_parts_of_bounded_size():
    parts = list(Resampling(0, 10).of_counts(np.ones(1_000_000), np.ones(1_000_000), "k"))
    assert [len(part) for part in parts] == [4, 4, 2]
    assert [len(part) for part in Resampling(0, 0).of_counts(np.ones(3), np.ones(3), "k")] == [0]


def test_rows_of_zero_weight_are_never_drawn():
    (drawn,) = Resampling(0, 5).of_counts(np.array([0.0, 2.0]), np.array([0.0, 4.0]), "k")
    assert (drawn[:, 0] == 0).all() and set(np.unique(drawn[:, 1] % 2)) == {0.0}
