"""Raw columns as a Keras model's inputs."""

import keras
import numpy as np
import pyarrow as pa
import pytest

from components.columnar.feed import feed, rows_a_batch
from components.errors import DataError

PIXELS = np.arange(24, dtype="uint8").reshape(6, 2, 2)
IMAGES = pa.FixedShapeTensorArray.from_numpy_ndarray(PIXELS)


def fed(column, shape, dtype):
    batch = pa.RecordBatch.from_arrays([column], ["column"])
    return feed(batch, {"column": keras.KerasTensor((None, *shape), dtype)})["column"]


@pytest.mark.parametrize(
    ("column", "shape", "dtype", "expected"),
    [
        (pa.array([1, 2]), (), "int64", [1, 2]),
        (pa.array([1, 2]), (1,), "int64", [[1], [2]]),
        (pa.array([1.5, None]), (1,), "float32", [[1.5], [np.nan]]),
        (pa.array([1, None], pa.uint8()), (), "float32", [1, np.nan]),
        (pa.array([7, None]), (1,), "int32", [[7], [-1]]),
        (pa.array([2.0, None]), (), "int64", [2, -1]),
        (pa.array([True, None]), (), "float32", [1, np.nan]),
        (pa.array([True, False]), (), "bool", [True, False]),
        (pa.array([None, None]), (), "float32", [np.nan, np.nan]),
        (pa.array([[1, 2], [3, None]]), (2,), "float32", [[1, 2], [3, np.nan]]),
        (pa.array([[[1, 2], [3, 4]]]), (2, 2), "int64", [[[1, 2], [3, 4]]]),
        (pa.array([[1, 2], [3, 4], [5, 6]], pa.list_(pa.int64(), 2)).slice(1), (2,), "int64", [[3, 4], [5, 6]]),
        (IMAGES, (2, 2), "uint8", PIXELS),
        (IMAGES, (2, 2, 1), "float32", PIXELS[..., None]),
        (IMAGES.slice(2, 3), (2, 2), "uint8", PIXELS[2:5]),
    ],
)
def test_a_number_keeps_its_value_and_takes_the_inputs_form(column, shape, dtype, expected):
    ours = fed(column, shape, dtype)
    assert ours.dtype == dtype
    np.testing.assert_array_equal(ours, np.array(expected, dtype))


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array(["a", None]), ["a", ""]),
        (pa.array(["a", None]).dictionary_encode(), ["a", ""]),
        (pa.array([b"a", None]), ["a", ""]),
        (pa.array([3, None]), ["3", ""]),
        (pa.array([None, None]), ["", ""]),
    ],
)
def test_a_missing_text_is_empty(column, expected):
    assert fed(column, (), "string").tolist() == expected


def test_pixels_are_not_copied():
    assert np.shares_memory(fed(IMAGES, (2, 2), "uint8"), IMAGES.storage.flatten().to_numpy())


@pytest.mark.parametrize(
    ("column", "shape", "dtype", "told"),
    [
        (pa.array([[1], [2, 3, 4]]), (2,), "int64", "type list<.*> .* dtype int64: its lists vary in length, from 1 to 3"),
        (pa.array([[1, 2], None]), (2,), "float32", "the whole value is missing in some rows"),
        (pa.array([[1, 2, 3]]), (2,), "float32", r"values of shape \(3,\), .* input is of shape \(2,\)"),
        (pa.array([1 << 40]), (1,), "int32", "type int64 cannot be fed to an input of dtype int32: .* not in range"),
        (pa.array([1.5]), (1,), "int64", "type double cannot be fed to an input of dtype int64"),
        (pa.array([1, None]), (1,), "uint8", "-1 not in range"),
        (pa.array([True, None]), (1,), "bool", "values are missing"),
        (pa.array(["1.5"]), (1,), "float32", "text where numbers are wanted"),
        (pa.array(["1"]), (1,), "int64", "text where numbers are wanted"),
        (pa.array([b"\xff"]), (1,), "string", "type binary cannot be fed to an input of dtype string"),
        (pa.array([{"a": 1}]), (1,), "float32", "type struct"),
        (pa.ExtensionArray.from_storage(IMAGES.type, pa.array([[1, 2, 3, 4], None], pa.list_(pa.uint8(), 4))),
         (2, 2), "float32", "the whole value is missing"),
    ],
)  # fmt: skip
def test_what_cannot_be_fed_is_told_with_its_column(column, shape, dtype, told):
    with pytest.raises(DataError, match=f"^column 'column' .*{told}"):
        fed(column, shape, dtype)


def test_a_missing_column_gets_the_nearest_name():
    batch = pa.RecordBatch.from_pydict({"fare": [1.0]})
    with pytest.raises(DataError, match="no column 'fair', .*did you mean 'fare'"):
        feed(batch, {"fair": keras.KerasTensor((None,), "float32")})


def test_a_table_of_many_chunks_is_fed_as_one():
    table = pa.table({"column": pa.chunked_array([IMAGES.slice(0, 2), IMAGES.slice(2)])})
    np.testing.assert_array_equal(feed(table, {"column": keras.KerasTensor((None, 2, 2), "uint8")})["column"], PIXELS)


def test_wide_rows_are_taken_in_smaller_batches():
    assert rows_a_batch({"a": keras.KerasTensor((None, 1))}) == 65536
    assert rows_a_batch({"a": keras.KerasTensor((None, 28, 28, 1))}) == (1 << 22) // 784
    assert rows_a_batch({"a": keras.KerasTensor((None, 1024, 1024, 3))}) == 64
