"""Shards as batches for training: content, memory and mistakes. Order: see test_transform.py."""

import keras
import numpy as np
import pyarrow as pa
import pytest

from components import Transform
from components.columnar.training_input import _gather, dataset
from components.errors import DataError

PIXELS = np.random.default_rng(4).integers(0, 256, (300, 4, 4, 1), dtype="uint8")
CLASSES = np.arange(300)


def images(label=CLASSES):
    tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(PIXELS)
    return pa.RecordBatch.from_arrays([tensors, pa.array(label), pa.array(CLASSES)], ["image", "label", "unused"])


def rescaled():
    image = keras.Input((4, 4, 1), name="image", dtype="uint8")
    return keras.Model({"image": image}, {"x": keras.layers.Rescaling(1 / 255)(image)})


def ratio():
    tips, fare = keras.Input((), name="tips"), keras.Input((), name="fare")
    generous = keras.ops.cast(keras.ops.greater(tips, 0.2 * fare), "int64")
    return keras.Model({"tips": tips, "fare": fare}, {"fare": keras.layers.Rescaling(2.0)(fare), "generous": generous})


@pytest.fixture
def prepare(make_examples, tmp_path):
    def prepare(columns, function, label):
        examples = make_examples({"train": columns})
        return examples, Transform(examples, function=function, label=label).execute(tmp_path / "out").preprocessing

    return prepare


def gathered(data):
    batches = [({n: v.numpy() for n, v in features.items()}, label.numpy()) for features, label in data]
    return {n: np.concatenate([f[n] for f, _ in batches]) for n in batches[0][0]}, np.concatenate([y for _, y in batches])


@pytest.mark.parametrize("seed", [None, 0])
def test_features_stay_with_their_label(prepare, tmp_path, seed):
    examples, prepared = prepare(images(), rescaled, "label")
    features, label = gathered(dataset(examples, "train", prepared, batch_size=64, work_dir=tmp_path, seed=seed))
    assert label.dtype == np.int64 and (label.tolist() == CLASSES.tolist()) == (seed is None)
    np.testing.assert_allclose(features["x"], PIXELS[label] / 255, rtol=1e-6)


@pytest.mark.parametrize(
    ("label", "dtype"),
    [(CLASSES.astype("uint8"), "int64"), (CLASSES / 7, "float32"), (np.stack([CLASSES / 7] * 3, 1).tolist(), "float32")],
)
def test_a_raw_label_keeps_its_kind_and_shape(prepare, tmp_path, label, dtype):
    examples, prepared = prepare(images(label), rescaled, "label")
    _, ours = gathered(dataset(examples, "train", prepared, batch_size=64, work_dir=tmp_path))
    assert ours.dtype == dtype
    np.testing.assert_allclose(ours, np.array(label), rtol=1e-6)


def test_a_computed_label_is_no_feature(prepare, tmp_path):
    tips, fare = np.arange(50.0), np.full(50, 100.0)
    examples, prepared = prepare({"tips": tips, "fare": fare}, ratio, "generous")
    features, label = gathered(dataset(examples, "train", prepared, batch_size=8, work_dir=tmp_path))
    assert list(features) == ["fare"] and label.tolist() == (tips > 20).astype(int).tolist()


def test_datasets_of_one_split_share_a_file_that_is_never_written_over(prepare, tmp_path):
    examples, prepared = prepare(images(), rescaled, "label")
    first = iter(dataset(examples, "train", prepared, batch_size=8, work_dir=tmp_path, seed=1, epochs=None))
    next(first)
    (file,) = tmp_path.glob("rows-*")
    written = file.stat()
    gathered(dataset(examples, "train", prepared, batch_size=8, work_dir=tmp_path))
    assert list(tmp_path.glob("rows-*")) == [file]
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (written.st_ino, written.st_mtime_ns)
    next(first)


def test_only_the_rows_asked_for_are_read():
    """Arrow's own `take` joins all chunks of a tensor column first: here 64 MB."""
    chunk = pa.FixedShapeTensorArray.from_numpy_ndarray(np.arange(1 << 20, dtype="uint8").reshape(256, 4096))
    number = pa.array(np.arange(256 * 64))
    table = pa.table({"image": pa.chunked_array([chunk] * 64), "number": number})
    order = np.random.default_rng(5).permutation(table.num_rows)[:100]
    usual, pool = pa.default_memory_pool(), pa.system_memory_pool()  # a pool whose peak is this test's
    before = pool.bytes_allocated()
    pa.set_memory_pool(pool)
    try:
        taken = _gather(table, order)
    finally:
        pa.set_memory_pool(usual)
    assert taken.column("number").to_pylist() == order.tolist()
    ours = taken.column("image").combine_chunks().to_numpy_ndarray()
    np.testing.assert_array_equal(ours, chunk.to_numpy_ndarray()[order % 256])
    assert pool.bytes_allocated() - before < 2 << 20 and pool.max_memory() - before < 16 << 20


@pytest.mark.parametrize(
    ("columns", "label", "told"),
    [
        ({"tips": [1.0, 2.0], "fare": [1.0, 2.0], "y": [1, None]}, "y", "'y', the label, is missing in 1 of 2 rows"),
        ({"tips": [1.0, 2.0], "fare": [1.0, 2.0]}, None, "name an output or a column as Transform.label"),
    ],
)
def test_what_cannot_be_learned_is_told_before_training(prepare, tmp_path, columns, label, told):
    examples, prepared = prepare(columns, ratio, label)
    with pytest.raises(DataError, match=told):
        dataset(examples, "train", prepared, batch_size=8, work_dir=tmp_path)


def test_a_bad_value_far_down_is_told_before_training(prepare, make_examples, tmp_path):
    good = {"tips": [1.0] * 9, "fare": [1.0] * 9, "y": list(range(9))}
    _, prepared = prepare(good, ratio, "y")
    for name, other, told in (
        ("text", {**good, "tips": ["x"] * 9}, "column 'tips' of type string cannot be fed"),
        ("gone", {"fare": [1.0], "y": [1]}, "no column 'tips'"),
        ("unlabelled", {"fare": [1.0], "tips": [1.0]}, "no column 'y', the label"),
    ):
        with pytest.raises(DataError, match=told):
            dataset(make_examples({"train": other}, name), "train", prepared, batch_size=8, work_dir=tmp_path)
    with pytest.raises(DataError, match="split 'eval' has no rows"):
        empty = make_examples({"train": good, "eval": {name: [] for name in good}}, "empty")
        dataset(empty, "eval", prepared, batch_size=8, work_dir=tmp_path)
