import io
import json

import numpy as np
import pytest
import soundfile
from PIL import Image

from kerasline import AnyExampleGen, TfdsExampleGen
from kerasline.components.core.errors import DataError
from tests.components.data.sources.builders import clip

CLIPS = "tests.components.data.sources.builders:Clips"


def test_beam_builder_is_prepared_and_nested_features_flattened(tmp_path):
    stage = TfdsExampleGen("tests.components.data.sources.builders:Squares")
    rows = sorted(stage.execute(tmp_path).examples.read("train").to_pylist(), key=lambda row: row["number"])
    assert rows == [
        {
            "number": n,
            "more.square": float(n**2),
            "more.words": ["word"] * (n % 3),
            "pairs.left": [n, n],
            "pairs.right": [1, 2],
        }
        for n in range(100)
    ]


def clips(kind, folder, **parameters):
    examples = kind(CLIPS, splits={"train": "train"}, **parameters).execute(folder).examples
    return sorted(examples.read("train").to_pylist(), key=lambda row: row["number"]), examples.schema()


def test_sound_and_pictures_stay_files_and_classes_indices(tmp_path):
    rows, schema = clips(TfdsExampleGen, tmp_path)
    for row in rows:
        expected = clip(row["number"])
        samples, rate = soundfile.read(io.BytesIO(row["audio"]), dtype="int16")
        assert rate == 8000
        np.testing.assert_array_equal(samples, expected["audio"])
        np.testing.assert_array_equal(Image.open(io.BytesIO(row["image"])), expected["image"])
        assert row["objects.kind"] == [1] * row["number"]
    assert [row["label"] for row in rows] == [0, 1, 0, 1]
    assert json.loads(schema.field("label").metadata[b"class_names"]) == ["high", "low"]


def test_classes_are_texts_and_sound_is_resampled_on_request(tmp_path):
    rows, _ = clips(AnyExampleGen, tmp_path, sample_rate=4000, columns={"content": "audio", "label": "label", **KEPT})
    assert [row["label"] for row in rows] == ["high", "low", "high", "low"]
    assert [row["objects.kind"] for row in rows] == [["low"] * number for number in range(4)]
    for row in rows:
        info = soundfile.info(io.BytesIO(row["content"]))
        assert (info.samplerate, info.frames) == (4000, 400 * (row["number"] + 1))


KEPT = {"number": "number", "objects.kind": "objects.kind"}


def test_damaged_picture_is_refused_or_put_into_quarantine(tmp_path):
    stage = TfdsExampleGen("tests.components.data.sources.builders:Torn")
    with pytest.raises(DataError, match="torn, split 'train', from row 0, row 1: column 'image': "):
        stage.execute(tmp_path / "refused")
    stage.with_parameters({"bad_rows": "quarantine"})
    done = stage.execute(tmp_path / "kept")
    assert sorted(done.examples.read("train").column("number").to_pylist()) == [0, 2]
    assert done.metrics["quarantined"] == 1


def test_damaged_picture_that_tfds_decodes_is_a_clear_error(tmp_path):
    stage = TfdsExampleGen("tests.components.data.sources.builders:TornTensors")
    with pytest.raises(DataError, match="torn_tensors, split 'train', after row 0: cannot be read or decoded") as error:
        stage.execute(tmp_path / "refused")
    assert "\n" not in str(error.value)


def test_boxes_become_pixels_of_images_of_any_size(tmp_path):
    stage = AnyExampleGen("tests.components.data.sources.builders:Objects", splits={"train": "train"})
    rows = stage.execute(tmp_path).examples.read("train").to_pylist()
    rows.sort(key=lambda row: -len(row["objects.label"]))
    assert [Image.open(io.BytesIO(row["image"])).size for row in rows] == [(40, 20), (80, 10)]
    assert [row["objects.label"] for row in rows] == [["dog", "cat"], ["dog"]]
    expected = [[[10, 10, 30, 20], [0, 0, 40, 10]], [[20, 5, 60, 10]]]  # left, top, right, bottom
    assert [row["objects.bbox"] for row in rows] == expected
