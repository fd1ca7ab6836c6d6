"""Conversion of raw columns to the inputs of a Keras model."""

import keras
import numpy as np
import pyarrow as pa
import pytest

from kerasline.components.core.errors import DataError
from kerasline.components.data.model_inputs import check_missing_integers, feed, rows_per_batch

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
        (
            pa.array([[1.0, 2.0], None, [], [3.0]]),
            (2,),
            "float32",
            [[1, 2], [np.nan, np.nan], [np.nan, np.nan], [3, np.nan]],
        ),
        (pa.array([[1, 2], None, [], [3]]), (2,), "int32", [[1, 2], [-1, -1], [-1, -1], [3, -1]]),
        (
            pa.array([[1, 2], None, [], [3, None, 5]]),
            (None,),
            "int64",
            [[1, 2, -1], [-1, -1, -1], [-1, -1, -1], [3, -1, 5]],
        ),
        (pa.array([1, None]), (None,), "float32", [[1], [np.nan]]),
        (pa.array([[[1, 2], [3, 4]], [[5, 6]]]), (2, 2), "float32", [[[1, 2], [3, 4]], [[5, 6], [np.nan, np.nan]]]),
        (pa.array([[], []], pa.list_(pa.int64())), (None,), "int64", np.empty((2, 0))),
        (IMAGES, (2, 2), "uint8", PIXELS),
        (
            pa.ExtensionArray.from_storage(IMAGES.type, pa.array([[1, 2, 3, 4], None], pa.list_(pa.uint8(), 4))),
            (2, 2),
            "float32",
            [[[1, 2], [3, 4]], [[np.nan] * 2] * 2],
        ),
        (IMAGES, (2, 2, 1), "float32", PIXELS[..., None]),
        (IMAGES.slice(2, 3), (2, 2), "uint8", PIXELS[2:5]),
    ],
)
def test_numbers_take_the_dtype_and_shape_of_the_input(column, shape, dtype, expected):
    ours = fed(column, shape, dtype)
    assert ours.dtype == dtype
    np.testing.assert_array_equal(ours, np.array(expected, dtype))


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array(["a", None]), [b"a", b""]),
        (pa.array(["a", None]).dictionary_encode(), [b"a", b""]),
        (pa.array([b"a\xff", None]), [b"a\xff", b""]),
        (pa.array([3, None]), [b"3", b""]),
        (pa.array([None, None]), [b"", b""]),
    ],
)
def test_missing_string_is_empty(column, expected):
    assert fed(column, (), "string").tolist() == expected


def test_lists_of_strings_are_padded_with_empty_strings():
    texts = pa.array([["a", None, "b"], None, [], ["c"]])
    expected = [[b"a", b"", b"b"], [b"", b"", b""], [b"", b"", b""], [b"c", b"", b""]]
    assert fed(texts, (None,), "string").tolist() == expected
    assert fed(texts, (3,), "string").tolist() == expected


def test_lists_of_boxes_are_padded_to_the_longest():
    boxes = pa.array([[[1.0, 2.0], [3.0, 4.0]], None, [[5.0, 6.0]]], pa.list_(pa.list_(pa.float32(), 2)))
    nan = [np.nan, np.nan]
    expected = [[[1, 2], [3, 4]], [nan, nan], [[5, 6], nan]]
    np.testing.assert_array_equal(fed(boxes, (None, 2), "float32"), expected)


def test_pixels_are_not_copied():
    assert np.shares_memory(fed(IMAGES, (2, 2), "uint8"), IMAGES.storage.flatten().to_numpy())


@pytest.mark.parametrize(
    ("column", "shape", "dtype", "message"),
    [
        (pa.array([[1], [2, 3, 4]]), (2,), "int64", r"dtype int64 and shape \(2,\): it has lists with up to 3 values"),
        (pa.array([[[1], [2]], [[3]]]), (None, 1), "uint8", "its lists vary in length, from 1 to 2"),
        (pa.array([[[1, 2], [2]], [[3]]]), (None, 1), "int64", "it has lists with up to 2 values"),
        (pa.array([[[1]]]), (None,), "int64", "it has lists of lists"),
        (pa.array([1.0]), (2,), "float32", r"and shape \(2,\): its values have shape \(\)"),
        (pa.array([1 << 40]), (1,), "int32", "type int64 cannot be fed to an input of dtype int32 .* not in range"),
        (pa.array([1.5]), (1,), "int64", "type double cannot be fed to an input of dtype int64"),
        (pa.array([1, None]), (1,), "uint8", "values are missing, and uint8 cannot"),
        (pa.array([[1], [2, 3]]), (2,), "uint8", "values are missing, and uint8 cannot"),
        (pa.array([True, None]), (1,), "bool", "values are missing"),
        (pa.array(["1.5"]), (1,), "float32", "expected numbers, received text"),
        (pa.array(["1"]), (1,), "int64", "expected numbers, received text"),
        (pa.array([{"a": 1}]), (1,), "float32", "type struct"),
        (
            pa.ExtensionArray.from_storage(IMAGES.type, pa.array([[1, 2, 3, 4], None], pa.list_(pa.uint8(), 4))),
            (2, 2),
            "uint8",
            "values are missing, and uint8 cannot",
        ),
    ],
)
def test_error_names_the_column_that_cannot_be_fed(column, shape, dtype, message):
    with pytest.raises(DataError, match=f"^column 'column' .*{message}"):
        fed(column, shape, dtype)


def test_missing_column_gets_a_suggestion():
    batch = pa.RecordBatch.from_pydict({"fare": [1.0]})
    with pytest.raises(DataError, match="no column 'fair', .*did you mean 'fare'"):
        feed(batch, {"fair": keras.KerasTensor((None,), "float32")})


def test_table_of_many_chunks_is_fed_as_one():
    table = pa.table({"column": pa.chunked_array([IMAGES.slice(0, 2), IMAGES.slice(2)])})
    np.testing.assert_array_equal(feed(table, {"column": keras.KerasTensor((None, 2, 2), "uint8")})["column"], PIXELS)


def test_wide_rows_have_smaller_batches():
    assert rows_per_batch({"a": keras.KerasTensor((None, 1))}) == 65536
    assert rows_per_batch({"a": keras.KerasTensor((None, 28, 28, 1))}) == (1 << 22) // 784
    assert rows_per_batch({"a": keras.KerasTensor((None, 1024, 1024, 3))}) == 64


@pytest.mark.parametrize(
    ("values", "dtype", "refused"),
    [
        ([-1, None, 3], "int64", True),
        ([[1, -1], [None]], "int64", True),
        ([-1, 2, 3], "int64", False),
        ([-2, None, 3], "int64", False),
        ([-1, None, 3], "float32", False),
        ([-1, None, 3], "string", False),
    ],
)
def test_missing_integers_beside_minus_one_are_refused(make_examples, values, dtype, refused):
    examples = make_examples({"train": {"x": values}})
    inputs = {"x": keras.Input((None,), name="x", dtype=dtype)}
    if not refused:
        check_missing_integers(examples, inputs)
        return
    with pytest.raises(DataError, match="column 'x' has missing values and also -1, .* float or string input"):
        check_missing_integers(examples, inputs)
