"""Rows on disk, gathered by TensorFlow in any order, equal those that `feed` returns."""

import keras
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kerasline.components.data import row_store
from kerasline.components.data.model_inputs import feed, feed_column
from kerasline.components.data.row_store import RowStore, RowStoreWriter

TEXT = st.none() | st.binary(max_size=200)


def laid_out(table, inputs, folder, rows_a_time=7):
    with RowStoreWriter(folder) as writer:
        for batch in table.to_batches(max_chunksize=rows_a_time):
            writer.write({name: feed_column(batch, name, t) for name, t in inputs.items()}, batch.num_rows)
    return RowStore(folder)


def tensors(**forms):
    return {name: keras.KerasTensor((None, *shape), dtype) for name, (shape, dtype) in forms.items()}


def check(table, inputs, folder, places):
    store = laid_out(table, inputs, folder)
    assert store.rows == table.num_rows
    found, expected = store.gather(np.array(places, np.int64)), feed(table.take(places), inputs)
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, name)


NUMBERS = pa.table(
    {
        "float": pa.array([1.5, None, 3.0, -2.0, 1e30]),
        "int": pa.array([1, 2, None, 4, 1 << 40]),
        "flag": [True, False, True, True, False],
        "byte": pa.array([0, 255, 3, 4, 5], pa.uint8()),
        "list": [[1.0, 2.0], [], None, [5.0], [None, 7.0]],
        "any": [[1], [2, 3, 4], [], None, [9]],
        "boxes": [[[1.0, 2.0]], [], None, [[3.0, 4.0], [None, 5.0]], [[6.0, 7.0]] * 3],
        "image": pa.FixedShapeTensorArray.from_numpy_ndarray(np.arange(30, dtype="uint8").reshape(5, 3, 2)),
    }
)
FORMS = tensors(
    float=((1,), "float32"),
    int=((), "int64"),
    flag=((1,), "bool"),
    byte=((1,), "uint8"),
    list=((2,), "float32"),
    any=((None,), "int64"),
    boxes=((None, 2), "float32"),
    image=((3, 2), "uint8"),
)


@pytest.mark.parametrize("places", [[0, 1, 2, 3, 4], [4, 4, 2], [3], [2, 3]])
def test_numbers_lists_and_tensors(tmp_path, places):
    check(NUMBERS, FORMS, tmp_path / "rows", places)


@settings(max_examples=60)
@given(st.lists(TEXT, min_size=1, max_size=30), st.sampled_from([1 << 16, 3]), st.data())
def test_any_bytes(tmp_path_factory, texts, most_known, data):
    table = pa.table({"text": pa.array(texts, pa.binary())})
    places = data.draw(st.lists(st.integers(0, len(texts) - 1), min_size=1, max_size=20))
    kept = row_store.MAX_CACHED_STRINGS
    row_store.MAX_CACHED_STRINGS = most_known  # few: texts are read from the file
    try:
        check(table, tensors(text=((1,), "string")), tmp_path_factory.mktemp("rows") / "rows", places)
    finally:
        row_store.MAX_CACHED_STRINGS = kept


@settings(max_examples=40)
@given(st.lists(st.none() | st.lists(TEXT, max_size=5), min_size=1, max_size=20), st.data())
def test_lists_of_texts(tmp_path_factory, lists, data):
    table = pa.table({"words": pa.array(lists, pa.list_(pa.binary()))})
    places = data.draw(st.lists(st.integers(0, len(lists) - 1), min_size=1, max_size=20))
    check(table, tensors(words=((None,), "string")), tmp_path_factory.mktemp("rows") / "rows", places)


def test_long_distinct_strings_are_read_from_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(row_store, "MAX_CACHED_BYTES", 1 << 10)
    texts = [np.random.default_rng(n).bytes(5000 + n) for n in range(40)]
    check(pa.table({"text": texts}), tensors(text=((), "string")), tmp_path / "rows", [39, 0, 17, 17])


def test_incomplete_rows_are_discarded(tmp_path):
    with pytest.raises(RuntimeError), RowStoreWriter(tmp_path / "rows") as writer:
        writer.write({"int": feed_column(NUMBERS, "int", FORMS["int"])}, 5)
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_first_of_two_writers_wins(tmp_path):
    table = pa.table({"text": ["a"]})
    with RowStoreWriter(tmp_path / "rows") as slow:
        first = laid_out(table, tensors(text=((), "string")), tmp_path / "rows")
        slow.write({"text": feed_column(pa.table({"text": ["b"]}), "text", tensors(text=((), "string"))["text"])}, 1)
    again = RowStore(tmp_path / "rows")
    assert first.gather(np.array([0]))["text"] == again.gather(np.array([0]))["text"] == b"a"
    assert [path.name for path in tmp_path.iterdir()] == ["rows"]
