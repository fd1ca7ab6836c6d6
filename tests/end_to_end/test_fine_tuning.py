"""The recipe `fine_tuning`, in a small size: a model that counts up learns to count down."""

import json
from pathlib import Path

import numpy as np
import pytest

import kerasline as kl
from tests.end_to_end.counting import NUMBERS, SMALL, SPLITS, write_counting, write_preset
from tests.end_to_end.recipe_runs import require_language_libraries, run_recipe

pytestmark = pytest.mark.slow
require_language_libraries()


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    return write_counting(tmp_path_factory.mktemp("texts") / "texts.csv")


@pytest.fixture
def run(cli, texts):
    """The nodes of a run of `language_model`. All tests but the first find them cached."""
    return run_recipe(cli, "language_model", texts.parent, {"ExampleGen.input": texts, **SMALL}, "--to", "Evaluator")


@pytest.mark.parametrize("rank", [8, None], ids=["lora", "full"])
def test_model_learns_to_count_down(cli, texts, run, tmp_path, rank):
    import tensorflow as tf
    import tensorflow_text  # noqa: F401

    settings = {
        "ExampleGen.input": write_counting(tmp_path / "down.csv", NUMBERS[::-1]),
        "ExampleGen.splits": SPLITS,
        "EarlierExamples.input": texts,
        "EarlierExamples.splits": SPLITS,
        "Transform.initial": run["Transform"]["outputs"]["preprocessing"],
        "ModelBuilder.initial": run["Trainer"]["outputs"]["trained_model"],
        "ModelBuilder.lora_rank": json.dumps(rank),
        "Trainer.optimizer.learning_rate": 0.02,
        "Trainer.batch_size": 2,
        "Trainer.epochs": 10,
        "Exporter.forms": '["int8_weights", "int4_weights"]',
        "Exporter.max_quality_loss": '{"loss": 1}',
    }
    nodes = run_recipe(cli, "fine_tuning", tmp_path, settings)
    metrics = {name: node["metrics"] for name, node in nodes.items()}
    entropy = {name: found["cross_entropy"] for name, found in metrics.items() if "cross_entropy" in found}
    assert entropy["EarlierTextsBeforeTraining"] == pytest.approx(
        run["Evaluator"]["metrics"]["cross_entropy"], abs=1e-4
    )
    assert entropy["Evaluator"] < 1 < entropy["BeforeTraining"]
    assert entropy["EarlierTextsBeforeTraining"] < entropy["EarlierTexts"]
    serve = tf.saved_model.load(nodes["Pusher"]["metrics"]["path"]).signatures["serving_default"]
    continued = serve(text=tf.constant([["ten nine eight"]]))["continued"].numpy()[0].decode()
    assert continued.split()[:5] == NUMBERS[::-1][:5]
    trained = Path(nodes["Trainer"]["outputs"]["trained_model"])
    saved = Path(nodes["Exporter"]["outputs"]["saved_model"])
    names = [name for name, _ in tf.train.list_variables(str(saved / "variables" / "variables"))]
    assert names and not any("lora" in name for name in names)
    assert (trained / "trained.h5").exists() == (rank is not None)
    forms = json.loads((Path(nodes["Exporter"]["outputs"]["model_forms"]) / "forms.json").read_text())["forms"]
    assert [form["state"] for form in forms] == ["written", "written"]
    loss = [{metric["metric"]: metric for metric in form["metrics"]}["loss"] for form in forms]
    assert loss[0]["value"] - loss[0]["difference"] == pytest.approx(entropy["Evaluator"], abs=1e-3)
    assert 0 < abs(loss[0]["difference"]) < abs(loss[1]["difference"])


@pytest.mark.xfail(run=False, reason="Exporter cannot load the trained task of KerasHub: it has no call() of its own")
def test_preset_of_keras_hub_learns_to_count_down(cli, texts, tmp_path):
    import keras_hub
    import tensorflow as tf

    preset = write_preset(tmp_path / "preset")
    settings = {
        "ExampleGen.input": write_counting(tmp_path / "down.csv", NUMBERS[::-1]),
        "ExampleGen.splits": SPLITS,
        "EarlierExamples.input": texts,
        "EarlierExamples.splits": SPLITS,
        "Transform.initial": preset,
        "ModelBuilder.initial": preset,
        "ModelBuilder.lora_rank": "null",
        "Trainer.optimizer.learning_rate": 0.01,
        "Trainer.batch_size": 2,
        "Trainer.epochs": 10,
    }
    nodes = run_recipe(cli, "fine_tuning", tmp_path, settings)
    metrics = {name: node["metrics"] for name, node in nodes.items()}
    assert metrics["Evaluator"]["cross_entropy"] < 1 < metrics["BeforeTraining"]["cross_entropy"]
    prompts = ["ten nine eight", "three two"]
    serve = tf.saved_model.load(nodes["Pusher"]["metrics"]["path"]).signatures["serving_default"]
    together = serve(text=tf.constant(prompts)[:, tf.newaxis])["continued"].numpy()
    assert together[0].decode().split()[:5] == NUMBERS[::-1][:5]
    alone = [serve(text=tf.constant([[prompt]]))["continued"].numpy()[0] for prompt in prompts]
    np.testing.assert_array_equal(together, alone)
    tokenizer = keras_hub.tokenizers.Tokenizer.from_preset(str(preset))
    preprocessing = kl.Preprocessing(nodes["Transform"]["outputs"]["preprocessing"]).load()
    words = next(layer for layer in preprocessing.layers if layer.name == "words")
    ids = words(tf.constant(prompts), begin=False, end=False).numpy()
    assert [row[row >= 0].tolist() for row in ids] == [[*tokenizer(prompt)] for prompt in prompts]
