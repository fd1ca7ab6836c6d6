"""ModelBuilder: descriptions, warm start, freezing, LoRA, and the content of its artifact."""

import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import keras
import numpy as np
import pytest

from kerasline import ModelBuilder, Trainer
from kerasline.components.core.artifacts import Model
from kerasline.components.core.errors import ParameterError
from tests.components.trainer.conftest import X, Y, problem  # noqa: F401
from tests.conftest import REPOSITORY

LOSS = {"name": "SparseCategoricalCrossentropy", "from_logits": True}
DESCRIPTION = {
    "layers": [
        {
            "layer": "Dense",
            "name": "hidden",
            "units": "$units",
            "activation": "relu",
            "kernel_initializer": "he_normal",
        },
        {"layer": "Dropout", "rate": 0.1},
        {"layer": "Dense", "name": "logits", "units": 2},
    ],
    "loss": LOSS,
    "optimizer": {"name": "SGD", "learning_rate": 0.05, "momentum": 0.9},
    "metrics": ["accuracy"],
}


def by_hand(inputs, hp):
    x = keras.layers.Dense(hp["units"], activation="relu", kernel_initializer="he_normal", name="hidden")(inputs["x"])
    x = keras.layers.Dropout(0.1)(x)
    model = keras.Model(inputs, keras.layers.Dense(2, name="logits")(x))
    model.compile(
        keras.optimizers.SGD(0.05, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


@pytest.fixture
def build(problem, tmp_path):  # noqa: F811
    count = [0]

    def build(initial=None, **given):
        count[0] += 1
        given.setdefault("hyperparameters", {"units": 8})
        builder = ModelBuilder(problem[1][False], initial, **given)
        return builder.execute(tmp_path / str(count[0]))

    return build


def weights(done):
    return {w.path: keras.ops.convert_to_numpy(w) for w in done.model.load().weights}


def test_description_builds_the_same_model_as_code(build):
    ours, theirs = build(description=DESCRIPTION), build(function=by_hand)
    for name, value in weights(theirs).items():
        np.testing.assert_array_equal(weights(ours)[name], value)
    configs = [done.model.load().optimizer.get_config() for done in (ours, theirs)]
    assert {**configs[0], "name": ""} == {**configs[1], "name": ""}
    assert ours.metrics["parameters"] == 4 * 8 + 8 + 8 * 2 + 2


def test_same_seed_gives_same_weights_in_another_process(build, problem):  # noqa: F811
    done = build(description=DESCRIPTION, seed=7)
    script = (
        "import json, sys; from kerasline import ModelBuilder\n"
        "from kerasline.components.core.artifacts import Preprocessing\n"
        "d = json.loads(sys.argv[2]); b = ModelBuilder(Preprocessing(sys.argv[1]), description=d, seed=7,"
        " hyperparameters={'units': 8})\n"
        "model, _ = b.build(Preprocessing(sys.argv[1]), {'units': 8})\n"
        "print(json.dumps([w.tolist() for w in model.get_weights()]))"
    )
    command = [sys.executable, "-c", script, str(problem[1][False].path), json.dumps(DESCRIPTION)]
    other = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True, timeout=120)
    for ours, theirs in zip(json.loads(other.stdout.splitlines()[-1]), done.model.load().get_weights()):
        np.testing.assert_array_equal(np.float32(ours), theirs)
    assert any(np.any(a != b) for a, b in zip(weights(build(description=DESCRIPTION)).values(), weights(done).values()))


def test_branches_and_several_outputs(build):
    described = {
        "layers": [
            {"layer": "Dense", "name": "left", "units": 4, "inputs": "x"},
            {"layer": "Dense", "name": "right", "units": 4, "inputs": "x", "activation": "gelu"},
            {"layer": "Add", "name": "both", "inputs": ["left", "right"]},
            {"layer": "Dense", "name": "a", "units": 2},
            {"layer": "Dense", "name": "b", "units": 1, "inputs": "both"},
        ],
        "outputs": {"label": "a", "size": "b"},
        "loss": {"label": LOSS, "size": "mse"},
        "metrics": {"label": ["accuracy"]},
    }
    model = build(description=described).model.load()
    answers = model.predict({"x": np.ones((3, 4), "float32")}, verbose=0)
    assert {name: value.shape for name, value in answers.items()} == {"label": (3, 2), "size": (3, 1)}


def changed(**changes):
    return {**DESCRIPTION, **changes}


def with_layer(**layer):
    return changed(layers=[layer, *DESCRIPTION["layers"][1:]])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, r"ModelBuilder: expected `function`, `description` or an `initial` model"),
        (
            {"function": by_hand, "description": DESCRIPTION},
            r"ModelBuilder: expected one of `function` and `description`",
        ),
        ({"description": changed(layrs=[])}, r"description.layrs: no such key; did you mean 'layers'\?"),
        ({"description": changed(loss="hubr")}, r"description.loss: Keras has no loss 'hubr'; did you mean 'Huber'\?"),
        (
            {"description": with_layer(layer="Dens")},
            r"layers\[0\].layer: Keras has no layer 'Dens'; did you mean 'Dense'",
        ),
        (
            {"description": with_layer(layer="Dense", unit=3)},
            r"layers\[0\].unit: Dense has no such argument; .*'units'",
        ),
        ({"description": with_layer(layer="Dense", units=-3)}, r"layers\[0\]: Dense: .*positive"),
        (
            {"description": with_layer(layer="Dense", units=3, inputs="y")},
            r"layers\[0\].inputs: no earlier layer or feature 'y'",
        ),
        ({"description": with_layer(layer="Conv2D", filters=3, kernel_size=3)}, r"layers\[0\]: Conv2D: .*"),
        ({"description": DESCRIPTION, "hyperparameters": {"unit": 3}}, r"units: no hyperparameter 'units'; .*'unit'"),
        (
            {"description": DESCRIPTION, "freeze": ["hiden"]},
            r"freeze: no layer matches 'hiden'; did you mean 'hidden'\?",
        ),
        (
            {"description": DESCRIPTION, "lora_rank": 2, "lora_layers": ["dropout*"]},
            r"a Dropout, which does not support LoRA",
        ),
    ],
)
def test_error_messages_name_the_place_in_the_description(build, given, message):
    with pytest.raises(ParameterError, match=message):
        build(**given)


def test_warm_start_copies_matching_layers(build):
    first = build(description=DESCRIPTION, seed=1)
    wider = {**DESCRIPTION, "layers": [*DESCRIPTION["layers"][:2], {"layer": "Dense", "name": "logits", "units": 3}]}
    second = build(first.model, description=wider, seed=2)
    assert second.metrics["warm_started"] == "1 of 2 layers"
    one, two = weights(first), weights(second)
    np.testing.assert_array_equal(two["hidden/kernel"], one["hidden/kernel"])
    assert two["logits/kernel"].shape == (8, 3)
    with pytest.raises(ParameterError, match=r"warm_start: weight 0 of layer 'logits' has shape .*\(8, 3\)"):
        build(first.model, description=wider, warm_start="all")
    renamed = {**DESCRIPTION, "layers": [{**DESCRIPTION["layers"][0], "name": "first"}, *DESCRIPTION["layers"][1:]]}
    third = build(first.model, description=renamed, warm_start={"first": "hidden"}, seed=3)
    np.testing.assert_array_equal(weights(third)["first/kernel"], one["hidden/kernel"])
    with pytest.raises(ParameterError, match="earlier model has no layer 'hiden'; did you mean 'hidden'"):
        build(first.model, description=renamed, warm_start={"first": "hiden"})


def test_earlier_model_is_used_unchanged(build, problem, tmp_path):  # noqa: F811
    first = build(function=by_hand)
    trained = Trainer(problem[0], problem[1][False], first.model).execute(tmp_path / "t").trained_model
    again = build(Model(trained.path))
    for name, value in weights(again).items():
        np.testing.assert_array_equal(value, {w.path: w.numpy() for w in trained.load().weights}[name])
    assert again.metrics["warm_started"] == "all"


def test_frozen_layers_do_not_change_in_training(build, problem, tmp_path):  # noqa: F811
    first = build(description=DESCRIPTION, freeze=["hid*"])
    assert first.metrics["trainable_parameters"] == 8 * 2 + 2
    before = weights(first)
    done = Trainer(problem[0], problem[1][False], first.model, epochs=2).execute(tmp_path / "t")
    after = {w.path: keras.ops.convert_to_numpy(w) for w in done.trained_model.load().weights}
    np.testing.assert_array_equal(after["hidden/kernel"], before["hidden/kernel"])
    assert np.any(after["logits/kernel"] != before["logits/kernel"])


def test_earlier_model_may_be_a_keras_file(build, tmp_path):
    first = build(description=DESCRIPTION)
    file = tmp_path / "earlier.keras"
    first.model.load().save(file)
    again = build(initial=Model(file))
    for name, value in weights(first).items():
        np.testing.assert_array_equal(weights(again)[name], value)


@pytest.mark.slow
def test_low_rank_updates_train_while_kernels_are_frozen(build, problem, tmp_path):  # noqa: F811
    first = build(description=DESCRIPTION, lora_rank=2)
    low_rank = 2 * (4 + 8) + 2 * (8 + 2)
    assert first.metrics["trainable_parameters"] == low_rank + 8 + 2
    done = Trainer(problem[0], problem[1][False], first.model, epochs=20).execute(tmp_path / "t")
    before, after = (made.load().get_layer("hidden") for made in (first.model, done.trained_model))
    change = keras.ops.convert_to_numpy(after.kernel) - keras.ops.convert_to_numpy(before.kernel)
    assert np.linalg.matrix_rank(change, tol=1e-6) == 2 and after.lora_enabled
    scores = done.trained_model.load().predict({"x": X}, verbose=0)
    apart = done.trained_model.path / "trained.h5"
    added = build(initial=first.model, weights=str(apart))
    assert added.metrics["warm_started"] == "all; trained weights from disk"
    np.testing.assert_allclose(added.model.load().predict({"x": X}, verbose=0), scores, rtol=1e-5)
    answers = scores.argmax(1)
    assert done.metrics["accuracy"] > 0.7 and abs((answers == Y).mean() - done.metrics["accuracy"]) < 0.1


def test_summary_has_size_and_costs(build):
    summary = build(description=DESCRIPTION).model.summary
    assert [(layer["name"], layer["parameters"]) for layer in summary["layers"] if layer["parameters"]] == [
        ("hidden", 40),
        ("logits", 18),
    ]
    assert summary["bytes"] == 4 * 58
    products = 2 * (4 * 8 + 8 * 2)
    assert products <= summary["flops"]["forward"] < 3 * products < summary["flops"]["training"] * 3
    activations = summary["activation_bytes"]
    assert activations["1024"] > 100 * activations["1"] > 0
    assert summary["layers"][1]["output_shape"] == [None, 8]


def test_graph_image_shows_every_layer_and_edge(build):
    svg = build(function=by_hand).model.path / "graph.svg"
    root = ElementTree.fromstring(svg.read_text())
    space = "{http://www.w3.org/2000/svg}"
    texts = [text.text for text in root.iter(f"{space}text")]
    assert {"InputLayer", "Dense", "Dropout", "hidden", "logits", "8, 40 parameters"} <= set(texts)
    boxes = [rect for rect in root.iter(f"{space}rect") if rect.get("class") == "box"]
    assert len(boxes) == 4 and len(list(root.iter(f"{space}path"))) == 3
