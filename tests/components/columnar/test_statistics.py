import functools

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.columnar.statistics import DISTINCT_KEPT, ColumnSummary, ValueCounts

FLOATS = st.floats(-1e6, 1e6, allow_nan=False)


@given(st.lists(st.lists(st.one_of(st.none(), FLOATS), max_size=20), min_size=1, max_size=6), st.randoms())
def test_numbers_merged_in_any_order_equal_one_pass(parts, random):
    every = [v for part in parts for v in part]
    random.shuffle(parts)
    merged = functools.reduce(
        ColumnSummary.merge, [ColumnSummary.of(pa.array(part, pa.float64())) for part in parts]
    )
    known = np.array([v for v in every if v is not None])
    assert (merged.rows, merged.missing) == (len(every), len(every) - len(known))
    if len(known):
        numbers = merged.numbers
        assert numbers.moments.mean == pytest.approx(known.mean(), rel=1e-9, abs=1e-6)
        assert numbers.moments.std == pytest.approx(known.std(), rel=1e-6, abs=1e-5)
        assert (numbers.minimum, numbers.maximum) == (known.min(), known.max())
        assert numbers.zeros == (known == 0).sum()
        median = np.quantile(known, 0.5, method="inverted_cdf")
        assert numbers.quantiles([0.5])[0] == pytest.approx(median)


@given(st.lists(st.lists(st.text("abc", max_size=2), max_size=20), min_size=1, max_size=6))
def test_counts_merged_equal_one_pass(parts):
    merged = functools.reduce(ValueCounts.merge, [ValueCounts().add(pa.array(p, pa.string())) for p in parts])
    every = [v for part in parts for v in part]
    assert merged.counts == {v: every.count(v) for v in set(every)}
    assert merged.distinct == len(set(every))


def test_many_values_keep_the_frequent_within_the_stated_error():
    random = np.random.default_rng(0)
    rows = np.concatenate([np.repeat(np.arange(50), 2000), random.integers(50, 10**6, 200_000)])
    random.shuffle(rows)
    merged = functools.reduce(
        ValueCounts.merge,
        [ValueCounts().add(pa.array(p.astype(str))) for p in np.array_split(rows, 7)],
    )
    assert not merged.exact
    error = len(rows) / DISTINCT_KEPT
    true = {str(v): c for v, c in zip(*np.unique(rows, return_counts=True))}
    top = dict(merged.top(50))
    assert set(top) == {str(v) for v in range(50)}
    assert all(0 <= true[v] - count <= error for v, count in top.items())
    assert merged.distinct == pytest.approx(len(true), rel=0.07)  # 4 standard errors
