"""The recipe `fine_tuning`, in a small size: a model that counts up learns to count down."""

import json
from pathlib import Path

import pytest

from tests.end_to_end.counting import NUMBERS, SMALL, SPLITS, write_counting
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
