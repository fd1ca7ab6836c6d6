"""The rows with the largest losses, compared with a NumPy search over all rows."""

import io
import wave
import zipfile

import keras
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from kerasline.components.data import shards
from kerasline.components.data.display import plain, write_image, write_sound
from kerasline.components.data.worst_rows import Worst
from tests.components.explainer.conftest import TUMOUR, Served, matrix, split_at, trained, tumour_columns, tumour_model
from tests.components.explainer.conftest import tumour_preprocessing as preprocessing
from tests.conftest import SHARED_DATA

QUICK = {"integrated_gradients": "off", "repeats": 1, "features": []}


def losses_of(problem):
    """Binary cross-entropy of logits: log(1 + exp(-z)) or log(1 + exp(z))."""
    logits = Served(problem, TUMOUR).output(matrix(problem, TUMOUR))[:, 0]
    return np.logaddexp(0, np.where(problem.splits["test"]["benign"], -logits, logits)), logits


def test_worst_rows_of_the_split_are_found_with_a_small_sample(tumours, explain):
    found = explain(tumours, most_rows=10, worst=7, **QUICK)
    losses, logits = losses_of(tumours)
    ordered = np.argsort(-losses, kind="stable")[:7]
    rows = found.worst["rows"]
    assert [row["place"] for row in rows] == ordered.tolist()
    np.testing.assert_allclose([row["loss"] for row in rows], losses[ordered], rtol=1e-4)
    np.testing.assert_allclose([row["score"] for row in rows], 1 / (1 + np.exp(-logits[ordered])), rtol=1e-4)
    columns = tumours.splits["test"]
    for row in rows:
        assert row["label"] == str(columns["benign"][row["place"]])
        assert float(row["prediction"]) == pytest.approx(row["score"], rel=1e-3, abs=1e-6)
        for name in TUMOUR:
            assert row["columns"][name] == pytest.approx(float(columns[name][row["place"]]), rel=1e-6)
        patient = row["columns"]["patient"]
        assert len(patient) == 200 and patient.endswith("…")
        assert columns["patient"][row["place"]].startswith(patient[:-1])
    assert found.worst["by"] == "loss" and found.rows == 10
    assert found.metrics["worst_loss"] == rows[0]["loss"]


def test_all_row_groups_and_shards_are_searched(monkeypatch, tmp_path, tumours, explain):
    whole = explain(tumours, worst=12, **QUICK).worst
    monkeypatch.setattr(shards, "ROW_GROUP_ROWS", 40)
    monkeypatch.setattr(shards, "SHARD_GROUPS", 2)
    problem = trained(tmp_path / "p", split_at(tumour_columns(), 300), preprocessing, tumour_model, label="benign")
    problem.prepared, problem.model = tumours.prepared, tumours.model
    paths = problem.examples.shards("test")
    assert len(paths) > 1 and pq.read_metadata(paths[0]).num_row_groups == 2
    pieces = explain(problem, worst=12, **QUICK).worst
    assert [row["place"] for row in pieces["rows"]] == [row["place"] for row in whole["rows"]]
    assert [row["columns"] for row in pieces["rows"]] == [row["columns"] for row in whole["rows"]]


def test_rows_of_zero_weight_are_not_the_worst(weighted_tumours, explain):
    losses, _ = losses_of(weighted_tumours)
    losses = np.where(weighted_tumours.splits["test"]["importance"] > 0, losses, -1)
    found = explain(weighted_tumours, worst=9, **QUICK).worst["rows"]
    assert [row["place"] for row in found] == np.argsort(-losses, kind="stable")[:9].tolist()


def test_merge_order_does_not_matter():
    random = np.random.default_rng(0)
    losses = random.integers(0, 20, 500).astype("float64")  # many ties
    losses[[3, 77]] = np.nan
    places = np.arange(500)
    known = np.lexsort((places, -np.where(np.isnan(losses), np.inf, losses)))[:30]
    for _ in range(5):
        parts = [Worst(30).add(losses[part], places[part]) for part in np.array_split(random.permutation(500), 9)]
        merged = parts[0]
        for part in parts[1:]:
            merged = merged.merge(part)
        assert merged.places.tolist() == known.tolist() and merged.places[:2].tolist() == [3, 77]


def test_labels_and_predictions_have_class_names(penguins, explain):
    columns = penguins.splits["test"]
    for row in explain(penguins, worst=15, **QUICK).worst["rows"]:
        assert row["label"] == columns["species"][row["place"]]
        assert row["prediction"] in {"Adelie", "Chinstrap", "Gentoo"} and 1 / 3 <= row["score"] <= 1
        assert (row["prediction"] == row["label"]) == (row["loss"] == pytest.approx(-np.log(row["score"]), rel=1e-3))
        assert row["columns"]["sex"] == columns["sex"][row["place"]]


def test_zero_worst_rows_writes_none(tumours, explain):
    assert explain(tumours, worst=0, **QUICK).worst["rows"] == []


def sound_preprocessing():
    from kerasline.components.preprocessing.layers.audio import AudioDecoding

    sound = keras.Input((), name="sound", dtype="string")
    samples = AudioDecoding(samples=2000, rate=8000)(sound)
    return keras.Model({"sound": sound}, {"samples": samples})


def sound_model(inputs, hp):
    loud = keras.ops.mean(keras.ops.abs(inputs["samples"]), axis=-1, keepdims=True)
    model = keras.Model(inputs, keras.layers.Dense(10, activation="softmax", name="digit")(loud))
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


def test_worst_rows_have_playable_sounds(tmp_path, explain):
    path = SHARED_DATA / "fsdd" / "recordings.zip"
    if not path.exists():
        pytest.skip(f"the spoken digits are not at {path}")
    with zipfile.ZipFile(path) as archive:
        names = [name for name in sorted(archive.namelist()) if name.endswith(".wav")][::60]
        clips = [archive.read(name) for name in names]
    columns = {"sound": clips, "digit": [int(name.rsplit("/")[-1][0]) for name in names]}
    problem = trained(
        tmp_path / "p",
        {"train": columns, "test": columns},
        sound_preprocessing,
        sound_model,
        label="digit",
        epochs=1,
    )
    found = explain(problem, worst=3, **QUICK)
    for row in found.worst["rows"]:
        with wave.open(str(found.folder / row["media"]["sound"])) as ours:
            with wave.open(io.BytesIO(clips[row["place"]])) as theirs:
                assert ours.getframerate() == theirs.getframerate() == 8000
                assert ours.readframes(10**6) == theirs.readframes(10**6)
        assert row["attribution"] == {} and "sound" not in row["columns"]


def test_large_media_are_reduced(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((600, 300, 3), np.uint8)).save(buffer, "JPEG")
    assert write_image(buffer.getvalue(), tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert image.size == (128, 256) and image.format == "PNG"
    sound = io.BytesIO()
    with wave.open(sound, "wb") as file:
        file.setparams((1, 2, 1000, 0, "NONE", ""))
        file.writeframes(bytes(2 * 1000 * 30))
    assert write_sound(sound.getvalue(), tmp_path / "a.wav")
    with wave.open(str(tmp_path / "a.wav")) as cut:
        assert cut.getnframes() == 10_000
    assert not write_image(b"\x89PNG\r\n\x1a\nbroken", tmp_path / "b.png")
    assert not write_sound(b"RIFF\0\0\0\0WAVEbroken", tmp_path / "b.wav")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "a.wav"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (b"plain", "plain"),
        (b"\x00\xff\x00", "3 bytes"),
        (float("nan"), None),
        (list(range(12)), "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, …]"),
        (True, True),
        (7, 7),
        ("é" * 201, "é" * 199 + "…"),
        (None, None),
    ],
)
def test_values_are_shortened(value, text):
    assert plain(value) == text
