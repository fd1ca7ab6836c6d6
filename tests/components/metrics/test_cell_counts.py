"""Counts of cells do not depend on how the rows are divided."""

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kerasline.components.metrics.binary import BinaryScores
from kerasline.components.metrics.cell_counts import CellCounts
from tests.components.metrics.of_rows import rows

GROUPS = 3


def halved(cells, level):
    return cells >> level << level


def expected(group, cell, weight):
    """Compute the sums in plain Python."""
    found = {}
    for g, c, w in zip(group.tolist(), cell.tolist(), weight.tolist()):
        one = found.setdefault(g, {}).setdefault(tuple(c) if isinstance(c, list) else c, [0, 0.0, 0.0])
        one[0], one[1], one[2] = one[0] + 1, one[1] + w, one[2] + w * w
    return found


@st.composite
def rows_in_parts(draw):
    rows = draw(st.integers(0, 200))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    group, cell = random.integers(-1, GROUPS, rows), random.integers(0, draw(st.sampled_from([4, 60, 5000])), rows)
    ends = np.sort(random.integers(0, rows + 1, draw(st.integers(0, 6))))
    return group, cell, random.gamma(1.0, size=rows), ends, draw(st.randoms(use_true_random=False))


def same(found, whole, group):
    (cells, sums), (their_cells, their_sums) = found.of(group), whole.of(group)
    np.testing.assert_array_equal(cells, their_cells)
    np.testing.assert_array_equal(sums[0], their_sums[0])
    np.testing.assert_allclose(sums, their_sums, rtol=1e-12)


@settings(max_examples=80)
@given(rows_in_parts(), st.sampled_from([sys.maxsize, 1, 7, 30]), st.booleans())
def test_any_parts_merged_in_any_order_equal_one_pass(drawn, most, settle_between):
    group, cell, weight, ends, random = drawn
    whole = CellCounts(GROUPS, most, halved, 13)
    whole.add(group, cell, weight)
    parts = []
    for places in np.split(np.arange(len(group)), ends):
        part = CellCounts(GROUPS, most, halved, 13)
        part.add(group[places], cell[places], weight[places])
        if settle_between:
            part.of(0)
        parts.append(part)
    while len(parts) > 1:
        one, other = (parts.pop(random.randrange(len(parts))) for _ in range(2))
        one.merge(other)
        parts.append(one)
    for k in range(GROUPS):
        same(parts[0], whole, k)
        cells, sums = whole.of(k)
        assert sums[0].sum() == (group == k).sum()
        assert sums[1].sum() == pytest.approx(weight[group == k].sum())
        if most == sys.maxsize:
            by_hand = expected(group, cell, weight).get(k, {})
            assert dict(zip(cells.tolist(), sums[1].tolist())) == pytest.approx({c: s[1] for c, s in by_hand.items()})
        else:
            # The lowest level that leaves few enough, and no more.
            mine = np.unique(cell[group == k])
            level = next(n for n in range(14) if n == 13 or len(np.unique(halved(mine, n))) <= most)
            np.testing.assert_array_equal(cells, np.unique(halved(mine, level)))


@settings(max_examples=30)
@given(rows_in_parts(), st.sampled_from([sys.maxsize, 7]))
def test_rows_outside_a_group_are_all_rows_minus_the_group(drawn, most):
    group, cell, weight, _, _ = drawn
    counts = CellCounts(GROUPS, most, halved, 13)
    counts.add(np.zeros(len(group), np.int64), cell, weight)
    counts.add(np.where(group > 0, group, -1), cell, weight)
    for k in (1, 2):
        others = group != k
        rest = CellCounts(1, most, halved, 13)
        rest.add(np.zeros(len(group), np.int64), cell, weight)  # the level of all rows
        level_cells = rest.of(0)[0]
        found, sums = counts.of_others(k)
        assert set(found.tolist()) <= set(level_cells.tolist())
        assert sums[0].sum() == others.sum()
        assert sums[1].sum() == pytest.approx(weight[others].sum(), abs=1e-9)


def test_pairs_of_cells_are_counted_as_pairs():
    counts = CellCounts(1)
    cells = np.array([[1, 2], [2, 1], [1, 2]])
    counts.add(np.zeros(3, np.int64), cells, None)
    found, sums = counts.of(0)
    np.testing.assert_array_equal(found, [[1, 2], [2, 1]])
    np.testing.assert_array_equal(sums, [[2, 1]] * 3)


def test_rows_without_group_and_empty_batches_are_accepted():
    counts = CellCounts(2)
    for group in (np.full(4, -1), np.empty(0, np.int64)):
        counts.add(group, np.zeros((len(group), 1), np.int64), None)
        counts.add(group, np.zeros(len(group), np.int64), None)
    assert counts.of(0)[1].sum() == counts.of(1)[1].sum() == 0


def test_pairs_of_scores_are_bounded_in_number():
    family, random = BinaryScores(), np.random.default_rng(0)
    counts = CellCounts(1, 4096, family.coarsen, family.coarsening_levels, most_values=128)
    for _ in range(4):
        label = random.integers(0, 2, 50_000)
        scores = random.random(50_000), 0.3 + 1e-5 * random.random(50_000)  # wide apart, and crowded
        sides = [family.cells(rows(label, score)) for score in scores]
        counts.add(np.zeros(50_000, np.int64), np.stack(sides, 1), None)
    cells, sums = counts.of(0)
    assert all(32 < len(np.unique(side)) <= 128 for side in cells.T) and sums[0].sum() == 200_000


@settings(max_examples=40)
@given(rows_in_parts(), st.booleans())
def test_pairs_in_any_parts_equal_one_pass(drawn, wide):
    group, cell, weight, ends, _ = drawn
    cells = np.stack([cell, (cell * 7919) % (3000 if wide else 20)], axis=1)
    whole, merged = (CellCounts(GROUPS, 30, halved, 13, most_values=8) for _ in range(2))
    whole.add(group, cells, weight)
    for places in np.split(np.arange(len(group)), ends)[::-1]:
        part = CellCounts(GROUPS, 30, halved, 13, most_values=8)
        part.add(group[places], cells[places], weight[places])
        merged.merge(part)
    for k in range(GROUPS):
        same(merged, whole, k)
        if len(np.unique(cells[group == k], axis=0)) > 30:
            assert all(len(np.unique(side)) <= 8 for side in whole.of(k)[0].T)
