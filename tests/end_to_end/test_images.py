"""The recipes of images in a small size: judged, answered in bulk and served by the same answers."""

import base64
import contextlib
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

import kerasline as kl
from tests.components.serving.servers import serving
from tests.conftest import SHARED_DATA
from tests.end_to_end.recipe_runs import run_recipe

pytestmark = pytest.mark.slow
GARMENTS = {"ExampleGen.input": "tests.components.data.sources.builders:Garments", "ExampleGen.dataset": "null"}


def run(cli, recipe, folder, settings):
    """Return the nodes of a run by name."""
    nodes = run_recipe(cli, recipe, folder, settings)
    assert {node["state"] for node in nodes.values()} == {"ran"}
    return nodes


@pytest.fixture
def blood_cells(tmp_path):
    """A folder of some images in folders by split, and the folder of their annotations."""
    source = SHARED_DATA / "bccd" / "BCCD"
    if not source.exists():
        pytest.skip(f"the blood cells of BCCD are not in {source}")
    for split, count in {"train": 24, "val": 6, "test": 8}.items():
        (tmp_path / "images" / split).mkdir(parents=True)
        for name in (source / "ImageSets" / "Main" / f"{split}.txt").read_text().split()[:count]:
            (tmp_path / "images" / split / f"{name}.jpg").symlink_to(source / "JPEGImages" / f"{name}.jpg")
    return tmp_path / "images", source / "Annotations"


def average_precision(true, found):
    """Return AP and AP50 of pycocotools, of rows of boxes and class names."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    kinds = sorted({kind for row in true for kind in row["class_names"]})
    objects, results = [], []
    for image, (row, answer) in enumerate(zip(true, found, strict=True)):
        for box, kind in zip(row["boxes"], row["class_names"]):
            left, top, right, bottom = box
            entry = {"bbox": [left, top, right - left, bottom - top], "category_id": kinds.index(kind)}
            area = (right - left) * (bottom - top)
            objects.append({"id": len(objects) + 1, "image_id": image, "area": area, "iscrowd": 0, **entry})
        for box, kind, score in zip(answer["boxes"], answer["class_names"], answer["scores"]):
            if kind:
                left, top, right, bottom = box
                entry = {"bbox": [left, top, right - left, bottom - top], "category_id": kinds.index(kind)}
                results.append({"image_id": image, "score": score, **entry})
    with contextlib.redirect_stdout(io.StringIO()):
        data = COCO()
        images, categories = [{"id": n} for n in range(len(true))], [{"id": n} for n in range(len(kinds))]
        data.dataset = {"info": {}, "images": images, "annotations": objects, "categories": categories}
        data.createIndex()
        evaluation = COCOeval(data, data.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats[:2]


def test_detector_is_judged_and_served_by_its_boxes(cli, blood_cells, tmp_path):
    pytest.importorskip("pycocotools")
    images, annotations = blood_cells
    nodes = run(
        cli,
        "detection",
        tmp_path,
        {
            "ExampleGen.input": images,
            "ExampleGen.labels": annotations,
            "ExampleGen.columns": "null",
            "ExampleGen.bad_rows": "quarantine",
            "ExampleGen.splits": '{"train": "train", "eval": "val", "test": "test"}',
            "ModelBuilder.hyperparameters.units": 8,
            "ModelBuilder.hyperparameters.learning_rate": 0.005,
            "ModelBuilder.hyperparameters.warm_up_steps": 20,
            "Trainer.batch_size": 4,
            "Trainer.steps": 150,
            "Trainer.ema": 0.9,
            "Evaluator.replicates": 20,
        },
    )
    examples, metrics = kl.Examples(Path(nodes["ExampleGen"]["outputs"]["examples"])), nodes["Evaluator"]["metrics"]
    answers = kl.Predictions(Path(nodes["BulkInferrer"]["outputs"]["predictions"]))
    true, found = (one.read("test").to_pylist() for one in (examples, answers))
    found = [{**row, "boxes": np.reshape(row["boxes"], (-1, 4)).tolist()} for row in found]
    assert any(kind for row in found for kind in row["class_names"])
    expected = average_precision(true, found)
    assert [metrics["boxes/ap"], metrics["boxes/ap_50"]] == pytest.approx(expected, abs=1e-6)
    evaluation = kl.Evaluation(Path(nodes["Evaluator"]["outputs"]["evaluation"]))
    (group,) = evaluation.read_json("samples/samples.json")["groups"]
    assert all((evaluation.path / row["picture"]).exists() for row in group["rows"])

    served = Path(nodes["Pusher"]["metrics"]["path"]).parent
    with serving(tmp_path / "log", "--model", f"cells={served}") as server:
        instances = [{"content": {"b64": base64.b64encode(row["content"]).decode()}} for row in true[:3]]
        status, together = server.post("/v1/models/cells:predict", {"instances": instances})
        alone = [server.post("/v1/models/cells:predict", {"instances": [one]})[1] for one in instances]
    assert status == 200
    for row, one, expected in zip(together["predictions"], alone, found):
        for answer in (row, one["predictions"][0]):
            assert answer["class_names"] == expected["class_names"]
            np.testing.assert_allclose(answer["scores"], expected["scores"], atol=1e-5)
            np.testing.assert_allclose(answer["boxes"], expected["boxes"], atol=0.02)


def test_image_generator_is_judged_and_draws_the_same_picture_for_a_seed(cli, tmp_path):
    nodes = run(
        cli,
        "image_generation",
        tmp_path,
        {
            **GARMENTS,
            "ExampleGen.splits": '{"train": "train", "eval": "test[:20]", "test": "test[20:]"}',
            "ModelBuilder.hyperparameters.units": "[8, 8, 8]",
            "JudgeBuilder.hyperparameters.units": 4,
            "Trainer.steps": 10,
            "Judge.steps": 10,
        },
    )
    metrics = nodes["Evaluator"]["metrics"]
    assert metrics["features/frechet_distance"] > 0 and 0 <= metrics["classes/accuracy"] <= 1
    evaluation = kl.Evaluation(Path(nodes["Evaluator"]["outputs"]["evaluation"]))
    groups = evaluation.read_json("samples/samples.json")["groups"]
    assert any("image_bytes" in row["answer_media"] for group in groups for row in group["rows"])
    for row in (row for group in groups for row in group["rows"]):
        assert row["nearest"]["distance"] > 0 and (evaluation.path / row["nearest"]["picture"]).exists()
    (report,) = (tmp_path / "root" / "reports").glob("*.html")
    assert "the training picture nearest to the generated one" in report.read_text()

    examples = kl.Examples(Path(nodes["ExampleGen"]["outputs"]["examples"]))
    exported = kl.SavedModel(Path(nodes["Exporter"]["outputs"]["saved_model"]))
    bulk = kl.BulkInferrer(exported, examples, split="test", keep=["label", "seed"])
    rows = bulk.execute(tmp_path / "bulk").predictions.read("test").to_pylist()[:3]
    served = Path(nodes["Pusher"]["metrics"]["path"]).parent
    with serving(tmp_path / "log", "--model", f"clothes={served}") as server:
        instances = [{name: row[name] for name in ("label", "seed")} for row in rows]
        status, together = server.post("/v1/models/clothes:predict", {"instances": instances})
        _, alone = server.post("/v1/models/clothes:predict", {"instances": instances[:1]})
    assert status == 200
    pictures = [base64.b64decode(one["b64"]) for one in together["predictions"]]
    pixels = [
        [np.asarray(Image.open(io.BytesIO(file)), int) for file in files] for files in (pictures, bulk_files(rows))
    ]
    np.testing.assert_allclose(pixels[0], pixels[1], atol=1)  # rounding
    first = np.asarray(Image.open(io.BytesIO(base64.b64decode(alone["predictions"][0]["b64"]))), int)
    np.testing.assert_allclose(first, pixels[0][0], atol=1)
    assert np.abs(pixels[0][0] - pixels[0][1]).max() > 10  # another seed


def bulk_files(rows):
    return [row["image_bytes"] for row in rows]


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """A folder of small photographs of animals and vehicles, of many sizes, formats and modes."""
    import tensorflow as tf

    source, folder = SHARED_DATA / "tfx" / "cifar10_train.tfrecord", tmp_path_factory.mktemp("photographs")
    if not source.exists():
        pytest.skip(f"the images of CIFAR-10 are not in {source}")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    for number, record in enumerate(tf.data.TFRecordDataset(str(source))):
        features = tf.train.Example.FromString(record.numpy()).features.feature
        image = Image.open(io.BytesIO(features["image"].bytes_list.value[0])).convert("RGB")
        image = image.resize((32 + number % 50, 48 - number % 16))
        forms = [
            (image, "jpg", {}),
            (image.rotate(90, expand=True), "jpg", {"exif": exif}),
            (image.convert("L"), "png", {}),
            (image.convert("CMYK"), "jpg", {}),
            (image.quantize(64), "gif", {}),
            (image.convert("RGBA"), "webp", {"lossless": True}),
        ]
        kind = "vehicle" if features["label"].int64_list.value[0] in (0, 1, 8, 9) else "animal"
        saved, suffix, options = forms[number % len(forms)]
        file = folder / kind / f"{number}.{suffix}"
        file.parent.mkdir(exist_ok=True)
        saved.save(file, **options)
    return folder


def pretrained_preset(folder, files):
    """Write the preset of a small network whose batch normalization has the statistics of some files."""
    import keras

    hub = pytest.importorskip("keras_hub", reason="KerasHub is not installed: pip install 'kerasline[language]'")
    backbone = hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[7],
        stackwise_num_filters=[64],
        stackwise_num_blocks=[1],
        stackwise_num_strides=[1],
        block_type="basic_block",
    )
    for layer in backbone.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    contents = np.array([file.read_bytes() for file in files], object)
    backbone(kl.layers.ImageDecoding((160, 160))(contents) / 255, training=True)
    backbone.save_to_preset(folder)
    return folder


def test_pretrained_network_is_fine_tuned_in_two_phases(cli, photographs, tmp_path):
    import pyarrow.parquet as pq

    files = sorted(photographs.rglob("*.*"))
    settings = {
        "ExampleGen.input": photographs,
        "ExampleGen.columns": "null",
        "ExampleGen.splits": '{"train": 8, "eval": 1, "test": 1}',
        "ModelBuilder.hyperparameters.backbone": pretrained_preset(tmp_path / "preset", files[:16]),
        "Trainer.epochs": 2,
        "Trainer.phases": '[{"epochs": 1, "freeze": ["backbone"]}, {"learning_rate": 1e-5}]',
        "Trainer.class_weight": "balanced",
        "Evaluator.thresholds": "{}",
        "Explainer.integrated_gradients": "off",
        "Explainer.repeats": 1,
    }
    nodes = run(cli, "fine_tuning_images", tmp_path, settings)
    history = pq.read_table(Path(nodes["Trainer"]["outputs"]["history"], "history.parquet")).to_pylist()
    assert [epoch["phase"] for epoch in history] == [1, 2]
    assert [epoch["learning_rate"] for epoch in history] == pytest.approx([1e-3, 1e-5])
    facts = kl.Model(Path(nodes["Trainer"]["outputs"]["trained_model"])).read_json("training.json")
    assert facts["phases"][0]["trainable_parameters"] == 2 * 64 + 2 < facts["phases"][1]["trainable_parameters"]
    (report,) = (tmp_path / "root" / "reports").glob("*.html")
    assert "Most confused classes" in report.read_text()

    saved = tf_signature(nodes["Exporter"]["outputs"]["saved_model"])
    files = files[:: len(files) // 12]
    together = saved([file.read_bytes() for file in files])
    as_png = saved([upright_png(file) for file in files])
    spread = np.ptp(together["logits"], axis=0).min()
    assert np.abs(together["logits"] - as_png["logits"]).max() < 0.1 * spread
    assert set(together["label"].tolist()) <= {b"animal", b"vehicle"}


def test_classes_of_tensorflow_datasets_are_fine_tuned_from_weights_on_disk(cli, tmp_path):
    import keras

    backbone = keras.applications.MobileNetV3Small(include_top=False, weights=None, input_shape=(160, 160, 3))
    file = tmp_path / "backbone.weights.h5"
    backbone.save_weights(file)
    settings = {
        "ExampleGen.input": "tests.components.data.sources.builders:Clips",
        "ExampleGen.splits": '{"train": "train[:2]", "eval": "train[2:3]", "test": "train[3:]"}',
        "ModelBuilder.hyperparameters.weights": file,
    }
    nodes = run_recipe(cli, "fine_tuning_images", tmp_path, settings, "--to", "ModelBuilder")
    preprocessing = kl.Preprocessing(Path(nodes["Transform"]["outputs"]["preprocessing"]))
    assert preprocessing.facts["class_names"] == ["high", "low"]
    model = kl.Model(Path(nodes["ModelBuilder"]["outputs"]["model"])).load()
    for ours, theirs in zip(model.get_layer("backbone").get_weights(), backbone.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)

    backbone.set_weights([weight + 1 for weight in backbone.get_weights()])
    backbone.save_weights(file)
    again = run_recipe(cli, "fine_tuning_images", tmp_path, settings, "--to", "ModelBuilder")
    assert [name for name, node in again.items() if node["state"] == "ran"] == ["ModelBuilder"]


def upright_png(file):
    """Return an image as its viewer displays it, in a PNG file."""
    stream = io.BytesIO()
    ImageOps.exif_transpose(Image.open(file)).convert("RGB").save(stream, "PNG")
    return stream.getvalue()


def tf_signature(folder):
    import tensorflow as tf

    serve = tf.saved_model.load(folder).signatures["serving_default"]
    return lambda files: {
        name: value.numpy() for name, value in serve(content=tf.constant(files)[:, tf.newaxis]).items()
    }


def test_classifier_of_clothes_takes_the_bytes_of_images(cli, tmp_path):
    nodes = run(
        cli,
        "clothes",
        tmp_path,
        {
            **GARMENTS,
            "ModelBuilder.hyperparameters.units": 4,
            "ModelBuilder.hyperparameters.decay_steps": 240,
            "Trainer.steps": 240,
            "Trainer.batch_size": 32,
            "Trainer.ema": 0.9,
            "Evaluator.thresholds": "{}",
        },
    )
    assert nodes["Evaluator"]["metrics"]["accuracy"] > 0.3  # chance is 0.1
    examples = kl.Examples(Path(nodes["ExampleGen"]["outputs"]["examples"]))
    file = examples.read("test")["image"][0].as_py()
    stream = io.BytesIO()
    Image.open(io.BytesIO(file)).convert("RGB").save(stream, "PNG")
    served = Path(nodes["Pusher"]["metrics"]["path"]).parent
    with serving(tmp_path / "log", "--model", f"clothes={served}") as server:
        instances = [{"image": {"b64": base64.b64encode(one).decode()}} for one in (file, stream.getvalue())]
        status, answer = server.post("/v1/models/clothes:predict", {"instances": instances})
    assert status == 200
    first, converted = answer["predictions"]
    np.testing.assert_allclose(first["logits"], converted["logits"], atol=0.05)
    assert first["label"] == converted["label"]
