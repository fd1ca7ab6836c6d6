"""Forms of convolutional networks: kernels of 8 and 4 bits, and boxes from half precision, LiteRT and ONNX."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import kerasline as kl
from kerasline.components.exporter.form_predictors import PreprocessedPredictor
from kerasline.components.exporter.quantised_convolutions import quantise_convolutions
from tests.components import answering

RANDOM = np.random.default_rng(0)
CONVOLUTIONS = [
    (layers.Conv1D, {"filters": 6}, (20, 50), (-1,)),
    (layers.Conv2D, {"filters": 40, "groups": 2}, (8, 8, 32), (-1,)),
    (layers.Conv3D, {"filters": 3}, (5, 5, 5, 2), (-1,)),
    (layers.DepthwiseConv1D, {"depth_multiplier": 2}, (9, 5), (-2, -1)),
    (layers.DepthwiseConv2D, {"depth_multiplier": 2}, (9, 9, 5), (-2, -1)),
    (layers.Conv1DTranspose, {"filters": 6}, (20, 5), (-2,)),
    (layers.Conv2DTranspose, {"filters": 6, "strides": 2}, (8, 8, 50), (-2,)),
    (layers.Conv3DTranspose, {"filters": 3}, (5, 5, 5, 2), (-2,)),
]


def rounded(kernel, channels, bits):
    """Quantise and dequantise a kernel with a scale for each output channel, and 128 of its weights at 4 bits."""
    axes = [axis % kernel.ndim for axis in channels]
    order = [axis for axis in range(kernel.ndim) if axis not in axes] + axes
    moved = kernel.transpose(order)
    columns = moved.reshape(-1, int(np.prod([kernel.shape[axis] for axis in axes])))
    found, group = np.empty_like(columns), len(columns) if bits == 8 else 128
    for start in range(0, len(columns), group):
        part = columns[start : start + group]
        scale = np.abs(part).max(0) / (127 if bits == 8 else 7)
        found[start : start + group] = np.round(part / scale) * scale
    return found.reshape(moved.shape).transpose(np.argsort(order))


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize(("kind", "options", "shape", "channels"), CONVOLUTIONS)
def test_quantised_convolution_computes_with_the_nearest_kernel(kind, options, shape, channels, bits):
    image = keras.Input(shape)
    layer = kind(kernel_size=3, padding="same" if "groups" in options else "valid", **options)
    model = keras.Model(image, layer(image))
    values = RANDOM.normal(size=(2, *shape)).astype("float32")
    kernel = layer.kernel.numpy()
    layer.kernel.assign(rounded(kernel, channels, bits))
    expected = model(values)
    layer.kernel.assign(kernel)
    quantise_convolutions(model, bits)
    np.testing.assert_allclose(model(values), expected, atol=1e-4)
    assert {weight.dtype for weight in model.weights if "int" in weight.path} == {"int8"}


def test_quantised_separable_convolution_is_close():
    image = keras.Input((9, 9, 5))
    model = keras.Model(image, layers.SeparableConv2D(6, 3)(image))
    values = RANDOM.normal(size=(2, 9, 9, 5)).astype("float32")
    expected = model(values).numpy()
    quantise_convolutions(model, 8)
    np.testing.assert_allclose(model(values), expected, atol=0.05 * expected.std())


def build_convolutional(inputs, hp):
    """A network of the channels of an image, whose kernels outweigh everything else."""
    x = inputs["pixels"]
    for units in (96, 96, 96):
        x = layers.Conv2D(units, 3, padding="same", activation="relu")(x)
    x = layers.DepthwiseConv2D(3, padding="same")(x)
    model = keras.Model(inputs, layers.Dense(2, name="heat")(x))
    model.compile("sgd", "mse")
    return model


@pytest.fixture(scope="module")
def convolutional(tmp_path_factory):
    folder = tmp_path_factory.mktemp("convolutional")
    tables = {"train": answering.scenes(20), "test": answering.scenes(20, 1)}
    found = answering.untrained(folder, tables, answering.scene_preprocessing, build_convolutional, "heat")
    forms = ["int8_weights", "int4_weights", "int8", "litert", "onnx"]
    stage = kl.Exporter(found.prepared, found.model, found.examples, forms=forms, measure_seconds=0.1)
    return SimpleNamespace(found=found, done=stage.execute(folder / "forms"))


@pytest.mark.slow
def test_weights_of_convolutions_take_a_quarter_and_an_eighth(convolutional):
    done = convolutional.done

    def weights(folder):
        return sum(file.stat().st_size for file in (folder / "variables").glob("*.data*"))

    whole = weights(done.saved_model.path)
    shares = {name: weights(done.model_forms.form(name)) / whole for name in ("int8_weights", "int4_weights", "int8")}
    assert shares["int8_weights"] == pytest.approx(1 / 4, abs=0.04)
    assert shares["int4_weights"] == pytest.approx(1 / 8, abs=0.04)
    assert shares["int8"] == pytest.approx(1 / 4, abs=0.04)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("form", "tolerance"), [("int8_weights", 0.03), ("int4_weights", 0.5), ("litert", 1e-4), ("onnx", 1e-4)]
)
def test_form_of_a_convolutional_network_answers_like_it(convolutional, form, tolerance):
    found, done = convolutional.found, convolutional.done
    entry = next(one for one in done.model_forms.read_json("forms.json")["forms"] if one["name"] == form)
    assert entry["state"] == "written", entry["why"]
    raw = {"image": found.examples.read("test")["image"].combine_chunks().to_numpy_ndarray()}
    features = {name: value.numpy() for name, value in found.prepared.load_features()(dict(raw) | boxes(raw)).items()}
    expected = found.model.load()(features).numpy()
    folder = done.model_forms.form(form)
    if entry["takes"] == "preprocessed":
        answers = PreprocessedPredictor(folder, found.prepared.path).answer(features)
    else:
        answers = tf.saved_model.load(str(folder)).signatures["predict_preprocessed"](
            **{name: tf.constant(value) for name, value in features.items()}
        )
    difference = np.asarray(next(iter(answers.values()))) - expected
    assert np.sqrt(np.mean(difference**2)) < tolerance * expected.std()


def boxes(raw):
    return {"boxes": np.zeros((len(raw["image"]), 3, 4), "float32")}


def build_large_boxes(inputs, hp):
    """Each pixel of the image is a cell, with a box in pixels of a large image and the scores of two classes."""
    x = layers.Dense(2, kernel_initializer="identity", name="heat")(inputs["pixels"])
    corners = np.stack(np.meshgrid(np.arange(8.0), np.arange(8.0)), -1).astype("float32") * 500.0 + 2049.0
    corners = np.concatenate([corners, corners + 333.0], -1)
    placed = 0 * keras.ops.repeat(keras.ops.sum(x, -1, keepdims=True), 4, -1)
    objects = layers.Concatenate(name="objects")([keras.ops.add(corners, placed), x])
    model = keras.Model(inputs, {"heat": x, "objects": objects})
    model.compile("sgd", {"heat": "mse"})
    return model


def detect(model, features):
    objects = tf.reshape(model(features, training=False)["objects"], [-1, 64, 6])
    found = kl.decoding.non_max_suppression(objects[..., :4], objects[..., 4:], score_threshold=0.1, max_boxes=10)
    names = tf.gather(["a", "b", ""], tf.where(found.classes < 0, 2, found.classes))
    return {"boxes": found.boxes, "names": names, "scores": found.scores}


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    folder = tmp_path_factory.mktemp("detector")
    tables = {"train": answering.scenes(20), "test": answering.scenes(20, 1)}
    found = answering.untrained(folder, tables, answering.scene_preprocessing, build_large_boxes, "heat")
    stage = kl.Exporter(
        found.prepared, found.model, answer=detect, forms=["float16", "litert", "onnx"], measure_seconds=0.1
    )
    done = stage.execute(folder / "forms")
    images = found.examples.read("test")["image"].combine_chunks().to_numpy_ndarray()
    serve = tf.saved_model.load(str(done.saved_model.path)).signatures["serving_default"]
    expected = {name: value.numpy() for name, value in serve(image=tf.constant(images)).items()}
    return SimpleNamespace(found=found, done=done, images=images, expected=expected)


@pytest.mark.slow
def test_boxes_of_a_half_precision_form_keep_their_pixels(detector):
    folder = detector.done.model_forms.form("float16")
    found = tf.saved_model.load(str(folder)).signatures["serving_default"](image=tf.constant(detector.images))
    assert detector.expected["boxes"].max() > 2048
    np.testing.assert_array_equal(found["boxes"], detector.expected["boxes"])
    np.testing.assert_allclose(found["scores"], detector.expected["scores"], atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["litert", "onnx"])
def test_detector_without_tensorflow_finds_the_same_boxes(detector, form):
    predictor = PreprocessedPredictor(detector.done.model_forms.form(form), detector.found.prepared.path)
    found, expected = predictor.answer({"pixels": detector.images[..., :2]}), detector.expected
    assert (expected["scores"] > 0).any() and (expected["scores"] == 0).any()
    np.testing.assert_allclose(found["boxes"], expected["boxes"], rtol=1e-6, atol=1e-4)
    np.testing.assert_allclose(found["scores"], expected["scores"], atol=1e-4)
    texts = [name.decode() if isinstance(name, bytes) else name for name in np.ravel(found["names"])]
    assert texts == [name.decode() for name in np.ravel(expected["names"])]
