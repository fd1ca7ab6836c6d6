"""Which slice each row is in."""

import numpy as np
import pyarrow as pa
import pytest

from kerasline.components.core.component import Context
from kerasline.components.core.errors import ParameterError, UserCodeError
from kerasline.components.evaluator.settings import Buckets
from kerasline.components.evaluator.slicing import slice_table, slicers
from kerasline.components.metrics.slices import MISSING

COLUMNS = {
    "town": ["a", "b", None, "a", "nan", "a", "b", ""],
    "fare": [1.0, 5.0, np.nan, 20.0, None, 7.5, 20.5, -3.0],
    "count": [3, 1, 2, None, 10, 3, 2, 3],
    "paid": [True, False, None, True, True, True, False, True],
    "code": [b"x", b"\xff", None, b"x", b"y", b"x", b"x", b"y"],
    "words": [["a"], ["b", "a", "b"], [], ["a", None], None, ["c"], ["a"], [""]],
    "pairs": [[[1, 2]]] * 8,
}


def by_size(batch):
    fare = batch.column("fare").to_numpy(zero_copy_only=False)
    return [None if np.isnan(f) else "large" if f > 10 else "small" for f in fare]


def gives_too_few(batch):
    return ["x"]


def gives_numbers(batch):
    return [[1]] * 8 + [{}]


def by_words_and_size(batch):
    return [[*(words or []), size, size] if size else None for words, size in zip(COLUMNS["words"], by_size(batch))]


def raises(batch):
    return batch.column("fares")


def cut(examples, tmp_path, *slicings, most=100):
    """Return the slicers, their slices, and the label of each row."""
    context = Context(tmp_path)
    made = slicers(list(slicings), examples, "test", context, where="Evaluator.slices")
    table = slice_table(made, examples, "test", context, most=most)
    batch = examples.read("test").combine_chunks().to_batches()[0]
    labels = {one.name: one.labels(batch) for one in made}
    return made, table, {name: label.to_pylist() for name, label in labels.items()}, batch, labels


@pytest.fixture
def examples(make_examples):
    return make_examples({"test": pa.RecordBatch.from_pydict(COLUMNS)})


@pytest.mark.parametrize(
    ("column", "slices"),
    [
        ("town", ["(missing)", "a", "b", "nan"]),  # an empty text is a missing one
        ("count", ["1", "2", "3", "10", "(missing)"]),  # numbers by their size
        ("paid", ["(missing)", "false", "true"]),
        ("code", ["(missing)", "\\xff", "x", "y"]),
        ("fare", ["-3", "1", "5", "7.5", "20", "20.5", "(missing)"]),
    ],
)
def test_column_gives_a_slice_for_each_value(examples, tmp_path, column, slices):
    _, table, _, batch, labels = cut(examples, tmp_path, column)
    assert list(table.slices[column]) == slices
    groups = table.groups(labels, batch.num_rows)
    np.testing.assert_array_equal(groups[0], 0)
    slices = [table.names[group] for group in groups[1]]
    for (slicing, label), value in zip(slices, COLUMNS[column]):
        assert slicing == column
        missing = value is None or value != value or value == ""
        assert (label == MISSING) == missing


def test_cross_has_a_slice_for_each_pair(examples, tmp_path):
    _, table, slices, _, _ = cut(examples, tmp_path, "town*paid")
    assert slices["town*paid"][:3] == ["a, true", "b, false", "(missing), (missing)"]
    assert len(table.slices["town*paid"]) == len(set(slices["town*paid"]))


def test_row_is_in_the_slice_of_each_of_its_values(examples, tmp_path):
    _, table, labels, batch, arrays = cut(examples, tmp_path, "words", "words*paid")
    missing = [MISSING]
    assert [set(row) for row in labels["words"]] == [
        {"a"},
        {"a", "b"},
        {*missing},
        {"a"},
        {*missing},
        {"c"},
        {"a"},
        {*missing},
    ]
    assert sorted(labels["words*paid"][1]) == ["a, false", "b, false"]
    groups = table.groups(arrays, batch.num_rows)
    members = [{table.names[group[row]] for group in groups if group[row] >= 0} for row in range(batch.num_rows)]
    expected = [{(name, label) for name in labels for label in labels[name][row]} for row in range(batch.num_rows)]
    assert members == [{("", "")} | row for row in expected]


def test_edges_divide_values_below_between_and_above(examples, tmp_path):
    _, table, slices, _, _ = cut(examples, tmp_path, Buckets(column="fare", edges=[20, 5, 5]))
    expected = ["below 5", "5 to 20", MISSING, "20 or more", MISSING, "5 to 20", "20 or more", "below 5"]
    assert slices["fare"] == expected
    assert list(table.slices["fare"]) == ["below 5", "5 to 20", "20 or more", MISSING]


def test_labels_of_close_edges_differ(examples, tmp_path):
    _, table, _, _, _ = cut(examples, tmp_path, Buckets(column="fare", edges=[0.99999999, 1.00000001]))
    assert table.slices["fare"] == ("below 0.99999999", "0.99999999 to 1", "1 or more", MISSING)


@pytest.mark.parametrize("parts", [2, 4, 7])
def test_buckets_have_equal_numbers_of_rows(make_examples, tmp_path, parts):
    values = np.random.default_rng(0).lognormal(size=2100)
    examples = make_examples({"test": {"fare": values}})
    _, table, slices, _, _ = cut(examples, tmp_path, Buckets(column="fare", buckets=parts))
    counts = [slices["fare"].count(label) for label in table.slices["fare"]]
    assert len(counts) == parts and max(counts) - min(counts) <= 2
    order = np.argsort(values)
    assert [slices["fare"][row] for row in order] == sorted(slices["fare"], key=list(table.slices["fare"]).index)


def test_repeated_values_give_fewer_buckets(make_examples, tmp_path):
    examples = make_examples({"test": {"n": [0] * 90 + [1] * 9 + [2], "same": [7] * 100}})
    _, table, slices, _, _ = cut(examples, tmp_path, Buckets(column="n", buckets=4), Buckets(column="same", buckets=4))
    assert sum(slices["n"].count(label) for label in table.slices["n"]) == 100
    assert table.slices["same"] == ("7 or more",)


def test_list_of_columns_is_a_cross(examples, tmp_path):
    made, _, slices, _, _ = cut(examples, tmp_path, ["town", Buckets(column="fare", edges=[5])])
    assert made[0].name == "town*fare" and slices["town*fare"][0] == "a, below 5"


def test_function_gives_slices_and_may_omit_rows(examples, tmp_path):
    _, table, slices, batch, labels = cut(examples, tmp_path, by_size)
    assert slices["by_size"] == ["small", "small", None, "large", None, "small", "large", "small"]
    assert table.names == [("", ""), ("by_size", "large"), ("by_size", "small")]
    np.testing.assert_array_equal(table.groups(labels, batch.num_rows)[1], [2, 2, -1, 1, -1, 2, 1, 2])


def test_function_may_put_a_row_in_several_slices(examples, tmp_path):
    _, table, slices, batch, labels = cut(examples, tmp_path, by_words_and_size)
    assert [sorted(filter(None, row or [])) for row in slices["by_words_and_size"]][:5] == [
        ["a", "small"],
        ["a", "b", "small"],
        [],
        ["a", "large"],
        [],
    ]
    sizes = np.sum([np.bincount(group[group > 0], minlength=len(table.names)) for group in table.groups(labels, 8)], 0)
    assert dict(zip(table.names, sizes.tolist()))["by_words_and_size", "small"] == 4


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (gives_too_few, r"gives_too_few\(\) returned 1 slices for 8 rows"),
        (gives_numbers, r"gives_numbers\(\): expected a string, a list of strings or None per row"),
        (raises, r"raises\(\) raised KeyError: .*test_slicing.py, line \d+"),
    ],
)
def test_errors_of_a_function_are_one_line(examples, tmp_path, function, message):
    with pytest.raises(UserCodeError, match=message) as error:
        cut(examples, tmp_path, function)
    assert "\n" not in str(error.value)


def test_most_frequent_slices_are_kept_and_others_counted(examples, tmp_path):
    _, table, _, batch, labels = cut(examples, tmp_path, "town", most=1)
    assert table.slices["town"] == ("a",) and table.left_out["town"] == 3
    np.testing.assert_array_equal(table.groups(labels, batch.num_rows)[1], [1, -1, -1, 1, -1, 1, -1, -1])


def test_categories_are_sliced_by_their_values(make_examples, tmp_path):
    column = pa.array(["x", "y", None, "x"]).dictionary_encode()
    examples = make_examples({"test": pa.record_batch({"kind": column})})
    _, _, slices, _, _ = cut(examples, tmp_path, "kind")
    assert slices["kind"] == ["x", "y", MISSING, "x"]


@pytest.mark.parametrize(
    ("slicing", "message"),
    [
        ("twon", "no column 'twon'; did you mean 'town'"),
        ("town*twon", "no column 'twon'"),
        ("pairs", "'pairs' holds lists of lists"),
        (Buckets(column="town", buckets=3), "'town' holds string; buckets are for numbers"),
        (Buckets(column="fare"), "give one of `buckets` and `edges`"),
        (Buckets(column="fare", buckets=2, edges=[1.0]), "give one of `buckets` and `edges`"),
    ],
)
def test_invalid_slicings_are_an_error(examples, tmp_path, slicing, message):
    with pytest.raises(ParameterError, match=f"Evaluator.slices: .*{message}"):
        cut(examples, tmp_path, slicing)


def test_duplicate_slicing_is_an_error(examples, tmp_path):
    with pytest.raises(ParameterError, match="'town' is given twice"):
        cut(examples, tmp_path, "town", "town")


def test_number_has_the_same_slice_in_every_shard(make_examples, tmp_path):
    """Whole numbers with gaps may be read as floats by some readers: the label is that of the number."""
    examples = make_examples({"test": {"n": [1.0, 2.0, None, 2.5]}})
    _, table, _, _, _ = cut(examples, tmp_path, "n")
    assert list(table.slices["n"]) == ["1", "2", "2.5", MISSING]


# Rows and slicings of TFMA's slicer_lib_test.py: the slices of each row.
PEOPLE = {"gender": ["f", "f", "m", None], "age": [13, 13, 15, 30], "interest": [["cars", "dogs"], ["cars"], [], None]}


@pytest.mark.parametrize(
    ("slicing", "expected"),
    [
        ("gender", [["f"], ["f"], ["m"], [MISSING]]),
        ("age", [["13"], ["13"], ["15"], ["30"]]),
        ("interest", [["cars", "dogs"], ["cars"], [MISSING], [MISSING]]),
        ("gender*age", [["f, 13"], ["f, 13"], ["m, 15"], [f"{MISSING}, 30"]]),
        ("age*interest", [["13, cars", "13, dogs"], ["13, cars"], [f"15, {MISSING}"], [f"30, {MISSING}"]]),
        (
            "gender*age*interest",
            [["f, 13, cars", "f, 13, dogs"], ["f, 13, cars"], [f"m, 15, {MISSING}"], [f"{MISSING}, 30, {MISSING}"]],
        ),
    ],
)
def test_slices_are_those_of_tfma_with_a_slice_for_missing_values(make_examples, tmp_path, slicing, expected):
    """Where TFMA leaves a row without the feature out, it is in the slice of missing values."""
    examples = make_examples({"test": PEOPLE})
    (slicer,) = slicers([slicing], examples, "test", Context(tmp_path), where="Evaluator.slices")
    (batch,) = examples.batches("test")
    labels = [row if isinstance(row, list) else [row] for row in slicer.labels(batch).to_pylist()]
    assert [sorted(row) for row in labels] == expected
