"""The command `plan`."""

import json

import pytest

RECIPE = """
import keras
import numpy as np
from kerasline import InMemoryExampleGen, ModelBuilder, Trainer, Transform
from kerasline.pipeline.dag import Pipeline

def columns():
    x = np.random.default_rng(0).normal(size=(3000, 16)).astype("float32")
    return {"x": list(x), "y": (x.sum(1) > 0).astype("int64")}

def preprocessing():
    x = keras.Input((16,), name="x")
    return keras.Model({"x": x}, {"x": keras.layers.Rescaling(1.0)(x)})

def build_model(inputs, hp):
    x = keras.layers.Dense(64, activation="relu")(inputs["x"])
    model = keras.Model(inputs, keras.layers.Dense(2)(x), name="small")
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    return model

def pipeline(settings):
    examples = InMemoryExampleGen(columns, splits={"train": 8, "eval": 2})
    prepared = Transform(examples, function=preprocessing, label="y")
    model = ModelBuilder(prepared, function=build_model)
    trained = Trainer(examples, prepared, model, epochs=4, batch_size=32)
    return Pipeline("small", [trained])
"""


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "small.py").write_text(RECIPE)
    return tmp_path / "small.py"


@pytest.mark.slow
def test_plan_shows_memory_time_and_choices_without_training(cli, recipe, tmp_path):
    done = cli("plan", recipe, "--root", "root", "--json", "plan.json")
    assert done.returncode == 0, done.stderr
    for text in ("small: 1,218 parameters", "mixed_bfloat16", "rematerialized", "4 steps of 8 rows", "2 replicas"):
        assert text in done.stdout
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert plan["parameters"] == 16 * 64 + 64 + 64 * 2 + 2
    assert plan["steps"] == 4 * -(-plan["rows"] // 32) and plan["measured"]
    products = 2 * (16 * 64 + 64 * 2)
    assert 1.9 * products < plan["flops"] / plan["rows"] / 4 < 6 * products
    assert plan["choices"][0]["seconds"] == plan["seconds"] > 0
    assert plan["precisions"][0]["need"]["costs"]["weight_bytes"] == 4 * plan["parameters"]
    assert not list((tmp_path / "root" / "artifacts").glob("*/Trainer"))

    run = cli("run", recipe, "--root", "root", "--json", str(tmp_path / "run.json"))
    states = {node["name"]: node["state"] for node in run.summary["nodes"]}
    assert states.pop("Trainer") == "ran" and set(states.values()) == {"cached"}


@pytest.mark.slow
def test_plan_for_a_device_of_another_machine(cli, recipe, tmp_path):
    done = cli("plan", recipe, "--root", "root", "--device", "h100", "--json", "plan.json")
    assert (
        "NVIDIA H100: 80.0 GiB" in done.stdout and "a rough estimate: the device is not on this machine" in done.stdout
    )
    assert not json.loads((tmp_path / "plan.json").read_text())["measured"]


SEARCH = """
    prepared = Transform(examples, function=preprocessing, label="y")
    first = ModelBuilder(prepared, function=build_model, name="First", hyperparameters={"units": 32})
    pretrained = Trainer(examples, prepared, first, name="Pretrainer")
    space = {"units": {"int": [8, 32]}, "Trainer.batch_size": {"choice": [16, 64]}}
    tuner = Tuner(examples, prepared, function=build_model, space=space)
    model = ModelBuilder(prepared, pretrained, tuner.outputs["best"], function=build_model)
    trained = Trainer(examples, prepared, model, tuner.outputs["best"], epochs=4)
"""


@pytest.mark.slow
def test_plan_neither_searches_nor_trains(cli, tmp_path):
    head, _, tail = RECIPE.partition("    prepared = ")
    text = head + SEARCH.lstrip("\n") + tail[tail.index("    return") :]
    text = text.replace("ModelBuilder, Trainer,", "ModelBuilder, Trainer, Tuner,")
    (tmp_path / "search.py").write_text(text.replace("Dense(64,", "Dense(hp['units'], name='hidden',"))
    done = cli("plan", "search.py", "--node", "Trainer", "--root", "root", "--json", "plan.json")
    assert done.returncode == 0, done.stderr
    assert "Tuner does not run: the largest values of its space are used" in done.stdout
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert plan["parameters"] == 16 * 32 + 32 + 32 * 2 + 2 and plan["batch_size"] == 64
    ran = {path.name for path in (tmp_path / "root" / "artifacts" / "small").iterdir()}
    assert ran == {"ExampleGen", "Transform", "First", "ModelBuilder"}


def test_stage_that_fails_before_training_is_status_1(cli, recipe):
    done = cli("plan", recipe, "--root", "root", "--set", "Transform.label=z")
    assert done.returncode == 1 and done.stderr.strip().splitlines()[-1].startswith("error: Transform.label: ")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--device", "h3"], "error: --device h3: no such device is known; known: A10,"),
        (["--device", "gpu"], "error: Trainer.device: 'gpu' is not available, TensorFlow finds no GPUs"),
        (["--node", "Trainr"], "error: --node: expected the name of a Trainer, one of Trainer, received Trainr"),
        (["--set", "Trainer.batch_sise=3"], "error: Trainer.batch_sise: no such parameter; did you mean 'batch_size'?"),
    ],
)
def test_impossible_plans_are_errors_in_one_line(cli, recipe, more, message):
    done = cli("plan", recipe, "--root", "root", *more)
    assert done.returncode == 2 and done.stderr.strip().splitlines()[-1].startswith(message)


def test_pipeline_without_trainer_is_an_error(cli, tmp_path):
    text = RECIPE.replace('    return Pipeline("small", [trained])', '    return Pipeline("small", [model])')
    (tmp_path / "none.py").write_text(text)
    done = cli("plan", "none.py", "--root", "root")
    assert done.returncode == 2 and "small has no Trainer: there is nothing to plan" in done.stderr
