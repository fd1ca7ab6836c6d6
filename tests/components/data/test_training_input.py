"""Shards as batches for training: content, files and errors. test_transform.py tests the order."""

import keras
import numpy as np
import pyarrow as pa
import pytest

from kerasline import Transform
from kerasline.components.core.errors import DataError, ParameterError
from kerasline.components.data.training_input import Chunks, dataset
from tests.marks import slowly

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
    return {n: np.concatenate([f[n] for f, _ in batches]) for n in batches[0][0]}, np.concatenate(
        [y for _, y in batches]
    )


@pytest.mark.parametrize("seed", [None, 0])
def test_features_stay_with_their_label(prepare, tmp_path, seed):
    examples, prepared = prepare(images(), rescaled, "label")
    features, label = gathered(dataset(examples, "train", prepared, batch_size=64, work_dir=tmp_path, seed=seed))
    assert label.dtype == np.int64 and (label.tolist() == CLASSES.tolist()) == (seed is None)
    np.testing.assert_allclose(features["x"], PIXELS[label] / 255, rtol=1e-6)


@pytest.mark.parametrize(
    ("label", "dtype"),
    [
        (CLASSES.astype("uint8"), "int64"),
        (CLASSES / 7, "float32"),
        (np.stack([CLASSES / 7] * 3, 1).tolist(), "float32"),
    ],
)
def test_raw_label_keeps_its_type_and_shape(prepare, tmp_path, label, dtype):
    examples, prepared = prepare(images(label), rescaled, "label")
    _, ours = gathered(dataset(examples, "train", prepared, batch_size=64, work_dir=tmp_path))
    assert ours.dtype == dtype
    np.testing.assert_allclose(ours, np.array(label), rtol=1e-6)


def test_computed_label_is_not_a_feature(prepare, tmp_path):
    tips, fare = np.arange(50.0), np.full(50, 100.0)
    examples, prepared = prepare({"tips": tips, "fare": fare}, ratio, "generous")
    features, label = gathered(dataset(examples, "train", prepared, batch_size=8, work_dir=tmp_path))
    assert list(features) == ["fare"] and label.tolist() == (tips > 20).astype(int).tolist()


def test_datasets_of_a_split_share_one_unchanged_file(prepare, tmp_path):
    examples, prepared = prepare(images(), rescaled, "label")
    first = iter(dataset(examples, "train", prepared, batch_size=8, work_dir=tmp_path, seed=1, epochs=None))
    next(first)
    (file,) = tmp_path.glob("rows-*")
    written = file.stat()
    gathered(dataset(examples, "train", prepared, batch_size=8, work_dir=tmp_path))
    assert list(tmp_path.glob("rows-*")) == [file]
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (written.st_ino, written.st_mtime_ns)
    next(first)


def test_missing_label_is_an_error_before_training(prepare, tmp_path):
    columns = {"tips": [1.0, 2.0], "fare": [1.0, 2.0], "y": [1, None]}
    examples, prepared = prepare(columns, ratio, "y")
    with pytest.raises(DataError, match="'y', the label or weight, is missing in 1 of 2 rows"):
        dataset(examples, "train", prepared, batch_size=8, work_dir=tmp_path)


def test_late_bad_value_is_an_error_before_training(prepare, make_examples, tmp_path):
    good = {"tips": [1.0] * 9, "fare": [1.0] * 9, "y": list(range(9))}
    _, prepared = prepare(good, ratio, "y")
    for name, other, message in (
        ("text", {**good, "tips": ["x"] * 9}, "column 'tips' of type string cannot be fed"),
        ("gone", {"fare": [1.0], "y": [1]}, "no column 'tips'"),
        ("unlabelled", {"fare": [1.0], "tips": [1.0]}, "no column 'y', the label or weight"),
    ):
        with pytest.raises(DataError, match=message):
            dataset(make_examples({"train": other}, name), "train", prepared, batch_size=8, work_dir=tmp_path)
    with pytest.raises(DataError, match="split 'eval' has no rows"):
        empty = make_examples({"train": good, "eval": {name: [] for name in good}}, "empty")
        dataset(empty, "eval", prepared, batch_size=8, work_dir=tmp_path)


@pytest.mark.parametrize(
    ("workers", "batch_size"), [(1, 8), (2, 128), slowly(1, 128), slowly(2, 8), (4, 8), slowly(4, 128)]
)
def test_workers_share_each_batch(prepare, tmp_path, workers, batch_size):
    examples, prepared = prepare(images(), rescaled, "label")
    settings = {"batch_size": batch_size, "work_dir": tmp_path, "seed": 3}
    alone = [label.numpy().tolist() for _, label in dataset(examples, "train", prepared, **settings, epochs=2)]
    for worker in range(workers):
        taken = Chunks(examples, "train", prepared, **settings, worker=worker, workers=workers)
        expected = [
            b[len(b) * worker // workers : len(b) * (worker + 1) // workers] if len(b) >= workers else b for b in alone
        ]
        labels = rows_of(taken.starting(0, 0).take(2 * -(-taken.an_epoch // taken.at_once)))
        assert labels == np.concatenate(expected).tolist() and taken.share == batch_size // workers


@pytest.mark.parametrize("step", [0, 1, 5, 37])
def test_chunks_may_start_at_any_step(prepare, tmp_path, step):
    examples, prepared = prepare(images(), rescaled, "label")
    settings = {"batch_size": 8, "work_dir": tmp_path, "seed": 3}
    whole = sum((label.numpy().tolist() for _, label in dataset(examples, "train", prepared, **settings, epochs=5)), [])
    found = rows_of(Chunks(examples, "train", prepared, **settings).starting(1, step).take(3))
    assert found == whole[300 + 8 * step :][: len(found)] and len(found) > 300


def test_chunks_without_shuffling_keep_the_order(prepare, tmp_path):
    examples, prepared = prepare(images(), rescaled, "label")
    taken = Chunks(examples, "train", prepared, batch_size=64, work_dir=tmp_path, seed=3, shuffle=False)
    assert rows_of(taken.starting(0, 0).take(2)) == [*CLASSES, *CLASSES]


def rows_of(chunks):
    return np.concatenate([label.numpy() for _, label in chunks]).tolist()


def test_unevenly_shared_batch_is_an_error(prepare, tmp_path):
    examples, prepared = prepare(images(), rescaled, "label")
    with pytest.raises(ParameterError, match="batch_size: 9 rows cannot be shared by 2 workers"):
        Chunks(examples, "train", prepared, batch_size=9, work_dir=tmp_path, seed=0, workers=2)


def test_several_labels_are_a_dict_followed_by_the_weight(make_examples, tmp_path):
    columns = {"tips": [1.0, 2.0], "fare": [1.0, 2.0], "y": [3, 4], "w": [0.5, 2.0]}
    examples = make_examples({"train": columns})
    transform = Transform(examples, function=ratio, label=["generous", "y"], sample_weight="w")
    prepared = transform.execute(tmp_path / "out").preprocessing
    ((features, labels, weight),) = dataset(examples, "train", prepared, batch_size=2, work_dir=tmp_path)
    assert list(features) == ["fare"] and list(prepared.load_features().output) == ["fare"]
    assert {name: label.numpy().tolist() for name, label in labels.items()} == {"generous": [1, 1], "y": [3, 4]}
    assert weight.numpy().tolist() == [0.5, 2.0]


def augmented():
    image = keras.Input((4, 4, 1), name="image", dtype="uint8")
    flipped = keras.layers.RandomFlip("horizontal")(keras.layers.Rescaling(1 / 255)(image))
    return keras.Model({"image": image}, {"x": keras.layers.RandomBrightness(0.5, (0, 1))(flipped)})


def test_augmentation_is_random_in_training_and_seeded(prepare, tmp_path):
    examples, prepared = prepare(images(), augmented, "label")

    def epochs(**options):
        options = {"seed": 1, "epochs": 2, **options}
        data = dataset(examples, "train", prepared, batch_size=50, work_dir=tmp_path, **options)
        x, label = gathered(data)
        return x["x"], label

    x, label = epochs()
    again, _ = epochs()
    np.testing.assert_array_equal(x, again)
    plain = PIXELS / 255
    changed = np.abs(x - plain[label]).max(axis=(1, 2, 3)) > 1e-6
    assert changed.mean() > 0.9
    first, second = (dict(zip(label[part], x[part])) for part in (slice(300), slice(300, 600)))
    assert np.mean([np.abs(first[row] - second[row]).max() > 1e-6 for row in range(300)]) > 0.9
    later, labels = epochs(epochs=1, first_epoch=1)  # as when training resumes there
    np.testing.assert_array_equal((later, labels)[0], x[300:])
    assert (epochs(seed=2)[0] != x).mean() > 0.9
    measured, label = epochs(seed=None, epochs=1)
    np.testing.assert_allclose(measured, plain[label], rtol=1e-6)


def words():
    text, size = keras.Input((1,), name="text", dtype="string"), keras.Input((1,), name="size")
    tokens = keras.layers.TextVectorization(output_sequence_length=4)(text)
    return keras.Model(
        {"text": text, "size": size},
        {
            "tokens": tokens,
            "size": keras.layers.Normalization()(size),
            "text": keras.layers.Identity()(text),
        },
    )


@pytest.fixture
def stored(make_examples, tmp_path):
    random = np.random.default_rng(5)
    columns = {
        "text": random.choice(["the cat", "a dog sat", "", "cat"], 200),
        "size": random.normal(size=200),
        "label": np.arange(200),
    }
    examples = make_examples({"train": columns, "eval": {name: values[:20] for name, values in columns.items()}})
    plain, kept = (
        Transform(examples, function=words, label="label", materialize=way).execute(tmp_path / f"out{way}")
        for way in (False, True)
    )
    assert kept.metrics["materialized_rows"] == 220
    return examples, plain.preprocessing, kept.preprocessing


@pytest.mark.parametrize("split", ["train", "eval"])
def test_materialized_rows_equal_computed_rows(stored, tmp_path, split):
    examples, plain, kept = stored
    for seed in (None, 4):
        ours, theirs = (
            gathered(dataset(examples, split, one, batch_size=16, work_dir=tmp_path, seed=seed))
            for one in (plain, kept)
        )
        np.testing.assert_array_equal(ours[1], theirs[1])
        for name in ("tokens", "size", "text"):
            assert ours[0][name].dtype == theirs[0][name].dtype
            np.testing.assert_array_equal(ours[0][name], theirs[0][name])


def test_materialized_rows_of_other_examples_are_ignored(stored, make_examples, tmp_path):
    _, _, kept = stored
    other = make_examples({"train": {"text": ["new"] * 3, "size": [1.0, 2.0, 3.0], "label": [7, 8, 9]}}, "other")
    assert kept.materialized(other) is None
    _, label = gathered(dataset(other, "train", kept, batch_size=2, work_dir=tmp_path))
    assert label.tolist() == [7, 8, 9]


def of_any_length():
    text = keras.Input((1,), name="text", dtype="string")
    return keras.Model({"text": text}, {"tokens": keras.layers.TextVectorization()(text)})


@pytest.mark.parametrize(
    ("function", "message"),
    [(augmented, "augments at random"), (of_any_length, r"output 'tokens' has no fixed shape, \(None,\)")],
)
def test_unsupported_materialization_is_an_error(make_examples, tmp_path, function, message):
    columns = {"text": ["a b"] * 3} if function is of_any_length else images()
    with pytest.raises(ParameterError, match=f"Transform.materialize: .*{message}"):
        Transform(make_examples({"train": columns}), function=function, materialize=True).execute(tmp_path / "out")


def ragged():
    words = keras.Input((None,), name="words", dtype="string")
    lookup = keras.layers.StringLookup(mask_token="", output_mode="multi_hot")
    return keras.Model({"words": words}, {"x": lookup(words)})


def test_lists_are_padded_batch_by_batch(prepare, tmp_path):
    lists = [["a", "b"], [], None, ["c"], ["a", "a", "zz", "b"]] * 4
    examples, prepared = prepare({"words": lists, "label": list(range(20))}, ragged, "label")
    features, label = gathered(dataset(examples, "train", prepared, batch_size=3, work_dir=tmp_path, seed=1))
    vocabulary = prepared.load().layers[-1].get_vocabulary()
    for row, number in zip(features["x"], label):
        assert {vocabulary[place] for place in np.flatnonzero(row)} == set(lists[number] or [])


@pytest.mark.parametrize("seed", [None, 0])
def test_outputs_of_varying_length_keep_the_batch_size(make_examples, tmp_path, seed):
    sentences = [" ".join(["word"] * (1 + n % 7)) for n in range(60)]
    examples = make_examples({"train": pa.RecordBatch.from_pydict({"text": sentences, "y": list(range(60))})})
    prepared = Transform(examples, function=of_any_length, label="y").execute(tmp_path / "out").preprocessing
    data = dataset(examples, "train", prepared, batch_size=4, work_dir=tmp_path, seed=seed)
    for features, label in data:
        lengths = 1 + label.numpy() % 7
        assert features["tokens"].shape == (4, lengths.max())  # padded to the longest of the batch alone
    chunks = Chunks(examples, "train", prepared, batch_size=4, work_dir=tmp_path, seed=0)
    assert chunks.at_once == 1
    assert next(iter(chunks.starting(0, 0)))[1].shape == (4,)
