"""Splits of exact shares: groups stay whole, classes have equal shares, and the order of rows does not matter."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kerasline import CsvExampleGen, InMemoryExampleGen
from kerasline.components.core.errors import DataError, ParameterError
from kerasline.components.data.hashing import mix
from kerasline.components.example_gen import exact_shares
from kerasline.components.example_gen.exact_shares import Counts, UnitCounts, assign_groups, assign_rows

SIZES = {"train": 8, "eval": 1, "test": 1}
SHARES = np.array([0.8, 0.1, 0.1])
RANDOM = np.random.default_rng(0)
VISITS = pd.DataFrame(
    {
        "row": np.arange(1500),
        "patient": RANDOM.zipf(1.7, 1500) % 90,
        "ill": np.where(RANDOM.random(1500) < 0.03, "yes", "no"),
    }
)


def hashes(values):
    return mix(np.asarray(values).astype(np.uint64) + np.uint64(1))


def counted(units, strata):
    counts = Counts("y")
    counts.add(hashes(units), hashes(strata))
    return counts


def split(frame, folder, **parameters):
    """Return the split of each row, by `row`."""
    examples = InMemoryExampleGen(frame, splits=SIZES, **parameters).execute(folder).examples
    parts = [examples.read(name).to_pandas().assign(split=name) for name in SIZES]
    return pd.concat(parts).set_index("row").sort_index()


@settings(max_examples=60)
@given(st.lists(st.integers(0, 12), min_size=20, max_size=300))
def test_groups_stay_whole_and_no_move_of_a_group_is_nearer(groups):
    groups = np.array(groups)
    assignment = assign_groups(counted(groups, np.zeros(len(groups))), SHARES)
    splits = assignment.of(hashes(groups))
    sizes = pd.Series(groups).value_counts()
    assert pd.DataFrame({"group": groups, "split": splits}).groupby("group").split.nunique().max() == 1
    rows = np.bincount(splits, minlength=3)
    assert (rows > 0).sum() == min(3, len(sizes))
    if len(sizes) > 6:  # otherwise a split may have a group so as not to be empty
        excess = rows - SHARES * len(groups)
        for group, size in sizes.items():
            source = splits[groups == group][0]
            for target in range(3):
                moved = excess + size * ((np.arange(3) == target).astype(int) - (np.arange(3) == source))
                assert (rows > 0).all() and ((excess**2).sum() <= (moved**2).sum() + 1e-6 or rows[source] == size)


@settings(max_examples=60)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=400))
def test_classes_have_exact_shares_and_so_have_all_rows(classes):
    classes = np.array(classes)
    rows = hashes(np.arange(len(classes)))
    assigned = assign_rows(counted(np.arange(len(classes)), classes), SHARES)
    totals = np.zeros(3)
    for label in np.unique(classes):
        found = np.bincount(assigned[int(hashes([label])[0])].of(rows[classes == label]), minlength=3)
        totals += found
        assert (np.abs(found - SHARES * (classes == label).sum()) < 2).all()
    assert (np.abs(totals - SHARES * len(classes)) <= 1).all()


@settings(max_examples=40)
@given(st.lists(st.integers(0, 3000), max_size=600), st.lists(st.integers(0, 600), max_size=5))
def test_counts_do_not_depend_on_how_rows_are_divided(values, cuts):
    def count(parts):
        whole = UnitCounts()
        for part in parts:
            one = UnitCounts()
            one.add(hashes(part))
            whole.merge(one)
        return whole

    before, exact_shares.MOST_UNITS = exact_shares.MOST_UNITS, 64
    try:
        whole, parts = count([values]), count(reversed(np.split(np.array(values, np.int64), sorted(cuts))))
    finally:
        exact_shares.MOST_UNITS = before
    assert len(whole.units) <= 64 and whole.bits == parts.bits
    np.testing.assert_array_equal(whole.units, parts.units)
    np.testing.assert_array_equal(whole.rows, parts.rows)
    assert whole.rows.sum() == len(values)


def test_stratified_shares_differ_by_less_than_two_rows(tmp_path):
    found = split(VISITS, tmp_path / "out", stratify="ill")
    counts = found.groupby(["ill", "split"]).size().unstack()[list(SIZES)]
    for label, row in counts.iterrows():
        np.testing.assert_allclose(row, SHARES * (VISITS.ill == label).sum(), atol=1.99)
    np.testing.assert_allclose(counts.sum(), SHARES * len(VISITS), atol=1)


def test_groups_have_near_exact_shares(tmp_path):
    found = split(VISITS, tmp_path / "out", split_by="group", split_key=["patient"])
    assert (found.groupby("patient").split.nunique() == 1).all()
    np.testing.assert_allclose(found.split.value_counts()[list(SIZES)], SHARES * len(VISITS), atol=1)


@pytest.mark.parametrize("split_by", ["group", "hash"])
def test_stratified_groups_stay_whole(tmp_path, split_by):
    found = split(VISITS, tmp_path / "out", split_by=split_by, split_key=["patient"], stratify="ill")
    assert (found.groupby("patient").split.nunique() == 1).all()
    ill = found[found.ill == "yes"].split.value_counts()[list(SIZES)]
    np.testing.assert_allclose(ill, SHARES * (VISITS.ill == "yes").sum(), atol=3)
    np.testing.assert_allclose(found.split.value_counts()[list(SIZES)], SHARES * len(VISITS), atol=0.02 * len(VISITS))


def test_order_of_rows_does_not_change_the_splits(tmp_path):
    shuffled = VISITS.sample(frac=1, random_state=1).reset_index(drop=True)
    for name, parameters in (
        ("group", {"split_by": "group", "split_key": ["patient"]}),
        ("stratify", {"stratify": "ill"}),
    ):
        first, second = (
            split(frame, tmp_path / f"{name} {number}", **parameters) for number, frame in enumerate((VISITS, shuffled))
        )
        pd.testing.assert_series_equal(first.split, second.split)


def test_missing_classes_are_a_class_of_their_own(tmp_path):
    holes = VISITS.assign(ill=VISITS.ill.where(VISITS.row % 10 > 0))
    found = split(holes, tmp_path / "out", stratify="ill")
    np.testing.assert_allclose(found[found.ill.isna()].split.value_counts()[list(SIZES)], SHARES * 150, atol=1.99)


def test_quarantined_rows_are_counted_once(tmp_path):
    lines = [f"{row},{row % 3}" for row in range(300)]
    (tmp_path / "a.csv").write_text("\n".join(["row,y", *lines, "300,1,2", "301"]) + "\n")
    stage = CsvExampleGen(str(tmp_path / "a.csv"), stratify="y", splits={"train": 2, "test": 1}, bad_rows="quarantine")
    done = stage.execute(tmp_path / "out")
    assert done.metrics == {"train": 200, "test": 100, "columns": 2, "quarantined": 2}
    assert done.examples.read("test")["y"].to_pandas().value_counts().tolist() in ([34, 33, 33], [33, 33, 34])


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"split_by": "group"}, ParameterError, "split_by=group needs the columns that identify a group"),
        ({"split_by": "ratio", "stratify": "ill"}, ParameterError, "stratify cannot be combined with split_by=ratio"),
        ({"stratify": "il"}, DataError, "no column 'il', which ExampleGen.stratify names; did you mean 'ill'"),
        ({"split_by": "group", "split_key": ["x"]}, DataError, "no column 'x', which ExampleGen.split_key names"),
        ({"stratify": "row"}, DataError, "at most 1,000 different values, received 'row'"),
        ({"stratify": "list"}, DataError, "takes a column with one value per row, and 'list' is .*list"),
    ],
)
def test_impossible_splits_are_errors_in_one_line(tmp_path, parameters, error, message):
    frame = VISITS.assign(list=[[1]] * len(VISITS))
    with pytest.raises(error, match=message):
        InMemoryExampleGen(frame, splits=SIZES, **parameters).execute(tmp_path / "out")


def test_stratify_needs_sizes_instead_of_locations(tmp_path):
    with pytest.raises(ParameterError, match="stratify cannot be combined with splits with locations"):
        InMemoryExampleGen({"a": VISITS}, splits={"train": "a"}, stratify="ill").execute(tmp_path / "out")
