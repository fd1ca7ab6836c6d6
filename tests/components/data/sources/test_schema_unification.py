import datetime
import decimal

import pyarrow as pa
import pytest

from kerasline.components.core.errors import DataError
from kerasline.components.data.arrow_types import normalize
from kerasline.components.data.sources.source import LOOK_AHEAD_BYTES, SchemaChanged, UnifyingSource


class BatchSource(UnifyingSource):
    """Reads batches from memory."""

    def _read(self, batches):
        return (("somewhere", batch) for batch in batches)


def unify(*columns):
    batches = [pa.RecordBatch.from_pydict(c) for c in columns]
    return pa.Table.from_batches(BatchSource().batches(batches))


@pytest.mark.parametrize(
    ("first", "then", "together"),
    [
        ([None, 1], [2.5], [None, 1.0, 2.5]),
        ([None], ["a"], [None, "a"]),
        ([1], [[2, 3], None], [[1], [2, 3], None]),
        ([[1]], [[2.5]], [[1.0], [2.5]]),
        (["a"], [b"\xff"], [b"a", b"\xff"]),
    ],
)
def test_types_widen_to_hold_all_values(first, then, together):
    assert unify({"x": first}, {"x": then})["x"].to_pylist() == together
    assert unify({"x": then}, {"x": first})["x"].to_pylist() == together[len(first) :] + together[: len(first)]


def test_late_column_is_null_in_earlier_rows():
    assert unify({"a": [1]}, {"b": [2]}).to_pydict() == {"a": [1, None], "b": [None, 2]}


@pytest.mark.parametrize(
    ("first", "then", "types"),
    [
        ([1], ["a"], "int64 in some rows, string in others"),
        ([True], [7], "bool in some rows, int64 in others"),
        ([[0.5]], [False], "double in some rows, bool in others"),
    ],
)
def test_incompatible_types_are_reported_with_their_location(first, then, types):
    with pytest.raises(DataError, match=f"somewhere: column 'x': {types}; .*ExampleGen.column_types.x=string"):
        unify({"x": first}, {"x": then})
    source = BatchSource(column_types={"x": pa.string()})
    batches = [pa.RecordBatch.from_pydict({"x": values}) for values in (first, then)]
    assert pa.Table.from_batches(source.batches(batches))["x"].null_count == 0


def test_schema_that_grows_after_the_first_batch_needs_one_more_pass():
    big = pa.RecordBatch.from_pydict({"x": [b"0" * LOOK_AHEAD_BYTES]})
    late = [pa.RecordBatch.from_pydict({"x": [b""], "y": [1]}), pa.RecordBatch.from_pydict({"x": [b""], "z": [2]})]
    source = BatchSource()
    with pytest.raises(SchemaChanged):
        list(source.batches([big, *late]))
    table = pa.Table.from_batches(source.batches([big, *late]))
    assert table["z"].to_pylist() == [None, None, 2] and table.column_names == ["x", "y", "z"]


def test_nested_columns_are_flattened_without_loss():
    rows = [
        {"who": {"name": "a", "ages": [1, 2]}, "pets": [{"kind": "cat"}, {"kind": "dog"}]},
        {"who": None, "pets": None},
        {"who": {"name": None, "ages": None}, "pets": []},
    ]
    batch = pa.RecordBatch.from_pylist(rows)
    assert normalize(batch).to_pydict() == {
        "who.ages": [[1, 2], None, None],
        "who.name": ["a", None, None],
        "pets.kind": [["cat", "dog"], None, []],
    } or normalize(batch).to_pydict() == {
        "who.name": ["a", None, None],
        "who.ages": [[1, 2], None, None],
        "pets.kind": [["cat", "dog"], None, []],
    }
    assert normalize(batch.slice(1)).column("pets.kind").to_pylist() == [None, []]


def test_other_types_are_normalized():
    batch = pa.RecordBatch.from_pydict(
        {
            "money": [decimal.Decimal("1.50")],
            "day": [datetime.date(2026, 11, 3)],
            "word": pa.array(["a"]).dictionary_encode(),
            "map": pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int32())),
            "small": pa.array([3], pa.uint8()),
        }
    )
    assert normalize(batch).to_pydict() == {
        "money": [1.5],
        "day": ["2026-11-03"],
        "word": ["a"],
        "map.key": [["k"]],
        "map.value": [[1]],
        "small": [3],
    }
    with pytest.raises(DataError, match="column 'huge'"):
        normalize(pa.RecordBatch.from_pydict({"huge": pa.array([2**63], pa.uint64())}))
    with pytest.raises(DataError, match="two columns are named 'a.b'"):
        normalize(pa.RecordBatch.from_pydict({"a": [{"b": 1}], "a.b": [2]}))
