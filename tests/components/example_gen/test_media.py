"""MediaExampleGen: images, sound and their labels."""

import functools
import io
import json
import shutil

import fastavro
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.signal
import soundfile
import tensorflow as tf
from PIL import Image

import kerasline as kl
from kerasline import MediaExampleGen
from kerasline.components.core.errors import DataError, ParameterError

ALL = {"all": 1}
SMOOTH = Image.effect_mandelbrot((64, 48), (-2, -1, 1, 1), 90).convert("RGB")


def png(shade):
    file = io.BytesIO()
    Image.new("L", (4, 3), shade).save(file, "PNG")
    return file.getvalue()


def test_image_labels_come_from_folders_or_a_file(tmp_path):
    for number in range(20):
        path = tmp_path / "images" / ("cat" if number % 2 else "dog") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(number))
    by_folder = MediaExampleGen(str(tmp_path / "images"), splits=ALL).execute(tmp_path / "folder").examples.read("all")
    assert by_folder.num_rows == 20
    row = by_folder.to_pylist()[0]
    assert row == {"path": "cat/1.png", "content": png(1), "label": "cat"}
    (tmp_path / "labels.csv").write_text("file,animal,age\n" + "".join(f"{n}.png,a{n % 3},{n}\n" for n in range(19)))
    by_file = MediaExampleGen(str(tmp_path / "images"), labels=str(tmp_path / "labels.csv"), splits=ALL)
    with pytest.raises(DataError, match=r"19.png: labels.csv has no labels for it"):
        by_file.execute(tmp_path / "file")
    by_file.with_parameters({"bad_rows": "quarantine"})
    done = by_file.execute(tmp_path / "kept")
    rows = {row["path"]: row for row in done.examples.read("all").to_pylist()}
    assert (rows["dog/4.png"]["animal"], rows["dog/4.png"]["age"]) == ("a1", 4)
    assert (len(rows), done.metrics["quarantined"]) == (19, 1)


def test_file_that_is_not_an_image_is_an_error(tmp_path):
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "a.png").write_bytes(b"text")
    with pytest.raises(DataError, match="a.png: neither an image nor audio"):
        MediaExampleGen(str(tmp_path), splits=ALL).execute(tmp_path / "out")


def rows(folder, out, **parameters):
    return MediaExampleGen(str(folder), splits=ALL, **parameters).execute(out).examples.read("all").to_pylist()


def decodes_in_training(content):
    try:
        tf.io.decode_image(content, 3, expand_animations=False)
        return True
    except tf.errors.InvalidArgumentError:
        return False


def saved(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def damaged_images():
    """Yield the name and the content of damaged images, and of formats that training does not decode."""
    for kind, options in (("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {}), ("GIF", {}), ("BMP", {})):
        whole = saved(SMOOTH, kind, **options)
        for cut in (1, 3, 12, 100, len(whole) // 2, len(whole) - 60):
            yield f"{kind}{len(options)}-cut-{cut}", whole[:-cut]
        middle = len(whole) // 2
        yield f"{kind}{len(options)}-changed", whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :]
    for kind in ("TIFF", "PPM", "ICO"):
        yield kind, saved(SMOOTH, kind)
    for mode in ("1", "P"):
        yield f"BMP-{mode}", saved(SMOOTH.convert(mode), "BMP")


def test_every_image_that_training_cannot_decode_is_set_aside(tmp_path):
    (tmp_path / "in").mkdir()
    for name, content in damaged_images():
        (tmp_path / "in" / name).write_bytes(content)
    for kind in ("JPEG", "PNG", "GIF", "BMP", "WEBP"):
        for mode in ("RGB", "L", "RGBA"):
            if (kind, mode) != ("JPEG", "RGBA"):
                (tmp_path / "in" / f"good-{kind}-{mode}").write_bytes(saved(SMOOTH.convert(mode), kind))
    done = MediaExampleGen(str(tmp_path / "in"), splits=ALL, bad_rows="quarantine").execute(tmp_path / "out")
    kept = done.examples.read("all").to_pylist()
    assert all(decodes_in_training(row["content"]) for row in kept)
    names = {row["path"] for row in kept}
    assert {path.name for path in (tmp_path / "in").glob("good-*")} <= names
    lenient = {name for name in names if not name.startswith("good")}
    # No decoder sees that one byte of the pixels has changed, or misses the last byte, which marks the end.
    assert lenient <= {"JPEG0-changed", "JPEG1-changed", "BMP0-changed", "GIF0-changed", "GIF0-cut-1", "JPEG0-cut-1"}
    assert len(kept) + done.metrics["quarantined"] == len(list((tmp_path / "in").iterdir()))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jpg", saved(SMOOTH, "JPEG")[:-500], r"a.jpg: damaged JPEG image \(image file is truncated"),
        ("a.png", saved(SMOOTH, "PNG")[:-2], r"a.png: damaged PNG image \(its end is missing\)"),
        (
            "a.tif",
            saved(SMOOTH, "TIFF"),
            r"a.tif: TIFF images cannot be decoded in training; convert it to PNG or JPEG",
        ),
    ],
)
def test_damaged_image_is_refused_by_name(tmp_path, name, content, message):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        rows(tmp_path / "in", tmp_path / "out")
    assert len(rows(tmp_path / "in", tmp_path / "header", check="header")) == 1


RATE = 8000
TONE = 0.5 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)


def sound(samples, rate, kind="WAV", subtype=None):
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind, subtype=subtype)
    return file.getvalue()


FORMS = {
    "a.wav": ("WAV", "PCM_16", 2**-15),
    "b.wav": ("WAV", "PCM_24", 2**-15),
    "c.wav": ("WAV", "PCM_32", 2**-15),
    "d.wav": ("WAV", "FLOAT", 2**-15),
    "e.wav": ("WAVEX", "PCM_16", 2**-15),
    "f.flac": ("FLAC", "PCM_24", 2**-15),
    "g.ogg": ("OGG", "VORBIS", 0.02),
    "h.mp3": ("MP3", "MPEG_LAYER_III", 0.1),
    "i.aiff": ("AIFF", "PCM_16", 2**-15),
}


def test_sound_of_all_formats_becomes_wav_that_training_decodes(tmp_path):
    (tmp_path / "in").mkdir()
    for name, (kind, subtype, _) in FORMS.items():
        (tmp_path / "in" / name).write_bytes(sound(TONE, RATE, kind, subtype))
    found = rows(tmp_path / "in", tmp_path / "out")
    assert {row["path"] for row in found} == set(FORMS)
    for row in found:
        decoded, rate = tf.audio.decode_wav(row["content"])
        assert (int(rate), decoded.shape) == (RATE, (RATE, 1))
        assert np.abs(decoded[:, 0] - TONE)[100:-100].max() <= FORMS[row["path"]][2], row["path"]
    unchanged = next(row["content"] for row in found if row["path"] == "a.wav")
    assert unchanged == (tmp_path / "in" / "a.wav").read_bytes()


def test_sound_of_several_rates_and_channels_gets_one_form(tmp_path):
    (tmp_path / "in").mkdir()
    stereo = np.stack([TONE, np.zeros(RATE)], 1)
    (tmp_path / "in" / "a.wav").write_bytes(sound(stereo, RATE))
    (tmp_path / "in" / "b.flac").write_bytes(sound(TONE, 2 * RATE))
    with pytest.raises(DataError, match="b.flac: its sampling rate is 16000 .*a.wav is 8000; .*sample_rate=8000"):
        rows(tmp_path / "in", tmp_path / "no")
    found = rows(tmp_path / "in", tmp_path / "out", sample_rate=RATE, channels=1)
    samples = {row["path"]: tf.audio.decode_wav(row["content"]) for row in found}
    assert {int(rate) for _, rate in samples.values()} == {RATE}
    np.testing.assert_allclose(samples["a.wav"].audio[:, 0], TONE / 2, atol=2**-15)
    ours, scipys = samples["b.flac"].audio[:, 0].numpy(), scipy.signal.resample_poly(TONE, 1, 2)
    assert np.abs(ours - scipys)[50:-50].max() < 0.01


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.wav", sound(TONE, RATE, subtype="PCM_24")[:-5], r"a.wav: damaged sound \(the file ends early\)"),
        ("a.flac", sound(TONE, RATE, "FLAC")[:-99], r"a.flac: damaged sound"),
        ("a.ogg", sound(TONE, RATE, "OGG")[:-99], r"a.ogg: (damaged sound|the sound has no samples)"),
        ("a.mp3", sound(TONE, RATE, "MP3")[:-99], r"a.mp3: damaged sound \(the file ends after \d+ of 8000 samples"),
        ("a.wav", sound(TONE[:0], RATE), "a.wav: the sound has no samples"),
        ("a.wav", sound(3 * TONE, RATE, subtype="FLOAT"), "from -1 to 1 are expected .* received up to 1.5; scale"),
        ("a.wav", sound(np.full(9, np.nan), RATE, subtype="FLOAT"), "from -1 to 1 are expected .* received up to nan"),
    ],
)
def test_damaged_sound_is_refused_by_name(tmp_path, name, content, message):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        rows(tmp_path / "in", tmp_path / "out")


def test_resampling_without_decoding_is_refused(tmp_path):
    with pytest.raises(ParameterError, match="sample_rate, channels and sound=float need check=decode"):
        rows(tmp_path, tmp_path / "out", check="header", sample_rate=RATE)


def voc(*objects, size=(64, 48)):
    found = "".join(
        f"<object><name>{name}</name><difficult>1</difficult><part><name>x</name></part><bndbox>"
        + "".join(f"<{corner}>{at}</{corner}>" for corner, at in zip(("xmin", "ymin", "xmax", "ymax"), box))
        + "</bndbox></object>"
        for name, box in objects
    )
    sides = f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>"
    return f"<annotation><filename>any.jpg</filename>{sides}{found}</annotation>"


def coco(boxes, **changes):
    document = {
        "info": {"year": 2026},
        "images": [{"id": 7, "file_name": "1.jpg", "width": 64, "height": 48}, {"id": 9, "file_name": "2.jpg"}],
        "categories": [{"id": 3, "name": "cat"}, {"id": 5, "name": "dog"}],
        "annotations": [
            {"id": n, "image_id": image, "category_id": kind, "bbox": box, "iscrowd": 0, "segmentation": mask}
            for n, (image, kind, box) in enumerate(boxes)
            for mask in ([[[1, 2, 3, 4]], {"counts": [1, 2]}][n % 2],)
        ],
    }
    return json.dumps({**document, **changes}, indent=1)


@pytest.fixture
def images(tmp_path):
    for name in ("1", "2"):
        (tmp_path / "in" / "JPEGImages").mkdir(parents=True, exist_ok=True)
        SMOOTH.save(tmp_path / "in" / "JPEGImages" / f"{name}.jpg")
    (tmp_path / "xml").mkdir()
    return tmp_path


def test_voc_gives_boxes_and_class_names_of_each_image(images):
    (images / "xml" / "1.xml").write_text(voc(("cat", (1, 2, 30, 40)), ("dog", (0, 0, 64, 48))))
    (images / "xml" / "2.xml").write_text(voc())
    found = rows(images / "in", images / "out", labels=str(images / "xml"), columns=["path", "boxes", "class_names"])
    assert found == [
        {"path": "JPEGImages/1.jpg", "boxes": [[1, 2, 30, 40], [0, 0, 64, 48]], "class_names": ["cat", "dog"]},
        {"path": "JPEGImages/2.jpg", "boxes": [], "class_names": []},
    ]


def test_coco_gives_boxes_and_class_names_of_each_image(images):
    (images / "a.json").write_text(coco([(9, 5, [10.5, 2, 3.25, 4]), (7, 3, [0, 0, 64, 48]), (9, 3, [1, 1, 2, 2])]))
    found = rows(images / "in", images / "out", labels=str(images / "a.json"))
    boxes = {row["path"][-5:]: (row["boxes"], row["class_names"], row["area"]) for row in found}
    assert boxes == {
        "1.jpg": ([[0, 0, 64, 48]], ["cat"], [3072]),
        "2.jpg": ([[10.5, 2, 13.75, 6], [1, 1, 3, 3]], ["dog", "cat"], [13, 4]),
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (voc(("cat", (5, 5, 5, 9))), r"1.jpg: box 1, \[5, 5, 5, 9\], has no area: expected left < right"),
        (voc(("a", (1, 1, 9, 9)), ("b", (1, 1, 65, 9))), r"1.jpg: box 2, \[1, 1, 65, 9\], reaches outside .*64 x 48"),
        (voc(("cat", (1, 1, "x", 9))), r"1.xml: object 1 \(cat\): expected numbers in <bndbox>"),
        (voc((" ", (1, 1, 2, 2))), "1.xml: object 1 has no <name>"),
        (voc(size=(48, 64)), "1.jpg: its annotations are of an image of 48 x 64 pixels, but it has 64 x 48"),
        ("<annotation><object><name>a</name></object></annotation>", r"object 1 \(a\) has no <xmin>"),
        ("<annotation>", "1.xml: no element found"),
        ("<html/>", "1.xml: expected the element <annotation> of Pascal VOC, received <html>"),
    ],
)
def test_bad_box_of_voc_is_refused_by_name(images, text, message):
    (images / "xml" / "1.xml").write_text(text)
    (images / "xml" / "2.xml").write_text(voc())
    with pytest.raises(DataError, match=message):
        rows(images / "in", images / "out", labels=str(images / "xml"))
    kept = rows(images / "in", images / "kept", labels=str(images / "xml"), bad_rows="quarantine")
    assert [row["path"] for row in kept] == ["JPEGImages/2.jpg"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (coco([(7, 3, [0, 0, 0, 9])]), r"1.jpg: box 1, \[0, 0, 0, 9\], has no area"),
        (coco([(7, 3, [60, 0, 9, 9])]), "1.jpg: box 1, .* reaches outside the image"),
        (coco([(8, 3, [0, 0, 1, 9])]), r"annotations\[0\].image_id: 8 is not an id of 'images'"),
        (coco([(7, 4, [0, 0, 1, 9])]), r"annotations\[0\].category_id: 4 is not an id of 'categories'"),
        (coco([(7, 3, [0, 0, 1])]), r"annotations\[0\].bbox: expected \[left, top, width, height\], received"),
        (coco([], images=[{"id": 1}]), r"images\[0\] has no 'file_name'"),
        (coco([], images=[]), "expected labels of at least one file, received none"),
        (coco([], images=[{"id": 1, "file_name": "1.jpg"}] * 2), "'1.jpg' has more than one row"),
        (coco([], images=[{"id": 1, "file_name": "1.jpg"}]), "2.jpg: .*a.json has no labels for it"),
        ("[1]", "not COCO's JSON of object instances"),
        ("{}", "not COCO's JSON of object instances: it has no 'images'"),
        ("", "not COCO's JSON of object instances"),
    ],
)
def test_bad_annotation_of_coco_is_refused_by_name(images, text, message):
    (images / "a.json").write_text(text)
    with pytest.raises(DataError, match=message):
        rows(images / "in", images / "out", labels=str(images / "a.json"))


def test_labels_in_a_table_keep_their_text(images):
    (images / "labels.tsv").write_text("file\tcode\tday\n1.jpg\tNA\t2026-01-01\n2.jpg\tx\t2026-01-02\n")
    found = rows(images / "in", images / "out", labels=str(images / "labels.tsv"))
    assert [(row["code"], row["day"]) for row in found] == [("NA", "2026-01-01"), ("x", "2026-01-02")]
    shutil.rmtree(images / "in" / "JPEGImages")


def written(kind, folder, column, values):
    """Write a column of bytes to a file of some kind, and return its ExampleGen without parameters."""
    if kind == "parquet":
        pq.write_table(pa.table({column: pa.array(values), "n": range(len(values))}), folder / "a.parquet")
        return functools.partial(kl.ParquetExampleGen, str(folder / "a.parquet"), splits=ALL)
    if kind == "avro":
        fields = [{"name": column, "type": ["null", "bytes"]}, {"name": "n", "type": "long"}]
        with (folder / "a.avro").open("wb") as file:
            records = [{column: value, "n": number} for number, value in enumerate(values)]
            fastavro.writer(file, {"type": "record", "name": "r", "fields": fields}, records)
        return functools.partial(kl.AvroExampleGen, str(folder / "a.avro"), splits=ALL)
    with tf.io.TFRecordWriter(str(folder / "a.tfrecord")) as writer:
        for number, value in enumerate(values):
            features = {
                column: tf.train.Feature(bytes_list=tf.train.BytesList(value=[] if value is None else [value])),
                "n": tf.train.Feature(int64_list=tf.train.Int64List(value=[number])),
            }
            writer.write(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())
    return functools.partial(kl.TfRecordExampleGen, str(folder / "a.tfrecord"), splits=ALL)


@pytest.mark.parametrize("kind", ["parquet", "avro", "tfrecord"])
def test_damaged_image_in_a_column_is_found_by_file_and_row(tmp_path, kind):
    values = [saved(SMOOTH, "JPEG"), None, saved(SMOOTH, "JPEG")[:-100], png(3), saved(SMOOTH, "TIFF"), b"no image"]
    stage = written(kind, tmp_path, "photo", values)
    assert stage().execute(tmp_path / "unchecked").metrics["all"] == 6
    with pytest.raises(DataError, match=rf"a\.{kind}.*, row 2: column 'photo': damaged JPEG image"):
        stage(media=["photo"]).execute(tmp_path / "failed")
    done = stage(media=["photo"], bad_rows="quarantine").execute(tmp_path / "kept")
    assert sorted(done.examples.read("all").column("n").to_pylist()) == [0, 1, 3]
    entries = [json.loads(line) for line in (done.examples.path / "quarantine.jsonl").read_text().splitlines()]
    assert [entry["reason"].split(" (")[0] for entry in entries] == [
        "damaged JPEG image",
        "TIFF images cannot be decoded in training",
        "neither an image nor audio, or its header is damaged",
    ]


def test_sound_in_a_column_is_converted(tmp_path):
    samples = np.sin(np.arange(800) / 20)
    sounds = []
    for rate, subtype in ((8000, "PCM_24"), (16000, "FLOAT")):
        file = io.BytesIO()
        soundfile.write(file, samples, rate, format="WAV", subtype=subtype)
        sounds.append(file.getvalue())
    stage = written("parquet", tmp_path, "sound", sounds)
    with pytest.raises(DataError, match="row 1: column 'sound': its sampling rate is 16000 .* resample all with"):
        stage(media=["sound"]).execute(tmp_path / "failed")
    done = stage(media=["sound"], sample_rate=8000).execute(tmp_path / "out")
    rates = [int(tf.audio.decode_wav(sound)[1]) for sound in done.examples.read("all").column("sound").to_pylist()]
    assert rates == [8000, 8000]


def test_lists_of_images_are_decoded(tmp_path):
    values = [[png(1), png(2)], None, [], [png(3), png(4)[:40]]]
    stage = written("parquet", tmp_path, "pages", values)
    done = stage(media=["pages"], bad_rows="quarantine").execute(tmp_path / "out")
    rows = sorted(done.examples.read("all").to_pylist(), key=lambda row: row["n"])
    assert [row["pages"] for row in rows] == values[:3]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"media": ["foto"]}, "ExampleGen.media: no column 'foto'; did you mean 'photo'"),
        ({"media": ["n"]}, "ExampleGen.media: expected a column of bytes, received 'n' of type int64"),
        ({"sample_rate": 8000}, "ExampleGen.sample_rate: expected the columns of sound in ExampleGen.media"),
    ],
)
def test_wrong_columns_of_media_are_refused(tmp_path, parameters, message):
    stage = written("parquet", tmp_path, "photo", [png(1)])
    with pytest.raises((DataError, ParameterError), match=message):
        stage(**parameters).execute(tmp_path / "out")


def test_labels_without_a_file_are_named(tmp_path, caplog):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(png(1))
    (tmp_path / "labels.csv").write_text("file,animal\na.png,cat\nb.png,dog\n")
    stage = MediaExampleGen(str(tmp_path / "images"), labels=str(tmp_path / "labels.csv"), splits=ALL)
    assert stage.execute(tmp_path / "out").metrics["labels_without_file"] == 1
    assert "ExampleGen.labels: 1 of" in caplog.text and "name no file: 'b.png'" in caplog.text


def test_sound_as_floats_keeps_precision_and_range(tmp_path):
    (tmp_path / "sounds").mkdir()
    samples = (3 * np.sin(np.arange(400) / 7)).astype(np.float32)
    soundfile.write(tmp_path / "sounds" / "a.wav", samples, 8000, subtype="FLOAT")
    soundfile.write(
        tmp_path / "sounds" / "b.wav", np.stack([samples, -samples / 2], axis=1) / 4, 8000, subtype="PCM_24"
    )
    stage = MediaExampleGen(str(tmp_path / "sounds"), splits=ALL, sound="float")
    rows = stage.execute(tmp_path / "out").examples.read("all").to_pylist()
    mono, stereo = sorted(rows, key=lambda row: row["path"])
    np.testing.assert_array_equal(np.float32(mono["content"]), samples)
    np.testing.assert_allclose(stereo["content"], samples / 16, atol=2**-23)
    (tmp_path / "sounds" / "c.png").write_bytes(png(1))
    with pytest.raises(DataError, match="c.png: expected sound, because ExampleGen.sound is 'float'"):
        stage.execute(tmp_path / "mixed")
    with pytest.raises(ParameterError, match="expected 1 with sound=float, received 2"):
        MediaExampleGen(str(tmp_path / "sounds"), splits=ALL, sound="float", channels=2).execute(tmp_path / "two")
