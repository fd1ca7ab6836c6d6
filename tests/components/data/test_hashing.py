"""Hashes of rows."""

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from kerasline.components.data.hashing import row_hashes

ROWS = st.lists(
    st.tuples(
        st.one_of(st.none(), st.integers(-(2**50), 2**50)),
        st.one_of(st.none(), st.text(max_size=12)),
        st.one_of(st.none(), st.lists(st.integers(0, 9), max_size=4)),
    ),
    min_size=1,
    max_size=30,
)


def batch_of(rows):
    types = [pa.int64(), pa.string(), pa.list_(pa.int64())]
    arrays = [pa.array([row[i] for row in rows], kind) for i, kind in enumerate(types)]
    return pa.record_batch(arrays, names=["number", "text", "list"])


@given(ROWS, st.integers(0, 30))
def test_hash_of_a_row_does_not_depend_on_its_batch(rows, cut):
    whole = row_hashes(batch_of(rows))
    batch = batch_of(rows)
    parts = [row_hashes(batch.slice(0, cut)), row_hashes(batch.slice(min(cut, len(rows))))]
    np.testing.assert_array_equal(whole, np.concatenate(parts))
    alone = [row_hashes(batch_of([row]))[0] for row in rows]
    np.testing.assert_array_equal(whole, alone)


def test_different_rows_rarely_collide_and_spread_evenly():
    texts = pa.record_batch([pa.array([f"row {i}" for i in range(100_000)])], names=["text"])
    hashes = row_hashes(texts)
    assert len(np.unique(hashes)) == 100_000
    shares = np.bincount((hashes >> np.uint64(60)).astype(int), minlength=16) / 100_000
    np.testing.assert_allclose(shares, 1 / 16, atol=0.004)  # some 5 standard deviations


def test_equal_numbers_of_different_types_have_equal_hashes():
    ints = pa.record_batch([pa.array([1, 2, None])], names=["x"])
    floats = pa.record_batch([pa.array([1.0, 2.0, None])], names=["x"])
    np.testing.assert_array_equal(row_hashes(ints), row_hashes(floats))


def test_tensors_hash_like_lists_of_their_numbers():
    pixels = np.arange(24, dtype="uint8").reshape(6, 2, 2)
    tensors = pa.record_batch([pa.FixedShapeTensorArray.from_numpy_ndarray(pixels)], names=["x"])
    lists = pa.record_batch([pa.array(pixels.reshape(6, 4).tolist(), pa.list_(pa.uint8(), 4))], names=["x"])
    np.testing.assert_array_equal(row_hashes(tensors), row_hashes(lists))


def test_null_over_characters_is_a_null():
    plain = pa.array(["ab", None, "c"])
    bits = plain.buffers()[0]
    covered = pa.StringArray.from_buffers(3, *pa.array(["ab", "xyz", "c"]).buffers()[1:], bits)
    assert covered.equals(plain)
    batches = [pa.RecordBatch.from_arrays([column], ["x"]) for column in (plain, covered)]
    assert row_hashes(batches[0]).tolist() == row_hashes(batches[1]).tolist()
