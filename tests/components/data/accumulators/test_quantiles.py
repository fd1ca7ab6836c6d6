"""Quantiles in bounded memory, compared with sorting all values."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kerasline.components.data.accumulators.quantiles import Quantiles

RANKS = np.arange(1, 10) / 10
PARTS = st.lists(st.lists(st.floats(-1e6, 1e6), max_size=40), min_size=1, max_size=6)


def of(parts, level=1 << 16):
    """Accumulate each part separately, and merge from the left."""
    merged = Quantiles(level)
    for part in parts:
        one = Quantiles(level)
        one.add(np.array(part))
        merged.merge(one)
    return merged


@given(PARTS)
def test_few_values_are_exact_in_any_merge_order(parts):
    values = np.concatenate([np.array(part) for part in parts])
    expected = np.quantile(values, RANKS, method="inverted_cdf") if len(values) else []
    np.testing.assert_array_equal(of(parts).at(RANKS), expected)
    np.testing.assert_array_equal(of(parts[::-1]).at(RANKS), expected)


@settings(max_examples=50)
@given(PARTS, st.integers(0, 5))
def test_rank_error_is_within_the_bound(parts, turn):
    values = np.sort(np.concatenate([np.array(part) for part in parts]))
    level = 8
    ours = of(parts[turn:] + parts[:turn], level)
    assert ours.count == len(values)
    if not len(values):
        return
    bound = len(values) * max(0, np.ceil(np.log2(max(len(values) / level, 1)))) / level + 1
    for rank, value in zip(RANKS, ours.at(RANKS)):
        lowest, highest = np.searchsorted(values, value), np.searchsorted(values, value, "right")
        assert lowest - bound <= rank * len(values) <= highest + bound


@pytest.mark.parametrize("draw", ["normal", "lognormal", "standard_cauchy"])
def test_rank_error_of_a_million_values_is_below_0_01_per_cent(draw):
    values = getattr(np.random.default_rng(3), draw)(size=1_000_000)
    ours = Quantiles()
    for batch in np.array_split(values, 37):
        ours.add(batch)
    ranks = np.searchsorted(np.sort(values), ours.at(RANKS), "right") / len(values)
    np.testing.assert_allclose(ranks, RANKS, atol=1e-4)
    assert sum(len(held) for held in ours._levels) < 6 * (1 << 16)


def test_equal_values_give_equal_boundaries():
    values = np.random.default_rng(3).normal(size=300_000)
    first, second = Quantiles(), Quantiles()
    first.add(values)
    second.add(values)
    np.testing.assert_array_equal(first.at(RANKS), second.at(RANKS))


def test_missing_values_are_ignored():
    ours = Quantiles()
    ours.add(np.array([[1.0, np.nan], [3.0, np.nan]]))
    assert ours.count == 2 and ours.at(np.array([0.5, 1.0])).tolist() == [1.0, 3.0]
