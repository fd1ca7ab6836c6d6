"""The recipe `reviews`, in a small size: from a table of texts to a served classifier."""

import csv
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import kerasline as kl
from kerasline.pipeline.recipes import reviews
from tests.end_to_end.recipe_runs import require_language_libraries, run_recipe

pytestmark = pytest.mark.slow
require_language_libraries()

PRAISE, COMPLAINT = ["good", "great", "lovely", "moving"], ["bad", "awful", "boring", "poor"]
FILLERS = "the film a story of actors and music with some scenes in it".split()
SMALL_BERT = {"class_name": "BertBackbone", "num_layers": 1, "num_heads": 2, "hidden_dim": 16, "intermediate_dim": 32}


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """A table of 600 texts: each has words of praise or of complaint among others."""
    rng = np.random.default_rng(5)
    file = tmp_path_factory.mktemp("texts") / "texts.csv"
    with file.open("w", newline="") as opened:
        writer = csv.writer(opened)
        writer.writerow(["text", "label"])
        for number in range(600):
            words = [*rng.choice(FILLERS, rng.integers(2, 70)), *rng.choice([COMPLAINT, PRAISE][number % 2], 3)]
            writer.writerow([" ".join(rng.permutation(words)), number % 2])
    return file


@pytest.mark.parametrize("backbone", [None, {**SMALL_BERT, "max_sequence_length": 400}], ids=["own", "hub"])
def test_texts_are_classified(cli, texts, tmp_path, backbone):
    import tensorflow as tf
    import tensorflow_text  # noqa: F401

    settings = {
        "ExampleGen.input": texts,
        "ExampleGen.splits": '{"train": 8, "eval": 1, "test": 1}',
        "ModelBuilder.hyperparameters.units": 16,
        "ModelBuilder.hyperparameters.learning_rate": 0.01,
        "ModelBuilder.hyperparameters.backbone": json.dumps(backbone),
        "Trainer.epochs": 6,
    }
    nodes = run_recipe(cli, "reviews", tmp_path, settings, *([] if backbone is None else ["--to", "Exporter"]))
    serve = tf.saved_model.load(nodes["Exporter"]["outputs"]["saved_model"]).signatures["serving_default"]
    reviews = ["a good and lovely film", "the story is boring , awful", "great"]
    together = serve(text=tf.constant(reviews)[:, tf.newaxis])
    assert together["label"].numpy().tolist() == [b"1", b"0", b"1"]
    alone = [serve(text=tf.constant([[text]]))["logits"].numpy()[0] for text in reviews]
    np.testing.assert_allclose(together["logits"], alone, atol=1e-5)
    if backbone is None:
        assert nodes["Pusher"]["state"] == "ran"
        measured = json.loads((Path(nodes["Evaluator"]["outputs"]["evaluation"]) / "metrics.json").read_text())
        assert {"1-49 words", "50-199 words"} <= {entry["slice"] for entry in measured["metrics"]}
        explained = Path(nodes["Explainer"]["outputs"]["explanation"]) / "explanation.json"
        for row in json.loads(explained.read_text())["worst"]["rows"]:
            written = "".join(text for text, _ in row["tokens"]["tokens"])
            assert written.strip().startswith(row["columns"]["text"].rstrip("…"))  # long texts are cut


def test_classes_of_tensorflow_datasets_are_names(tmp_path):
    import tensorflow_datasets as tfds

    recipe = reviews.pipeline(SimpleNamespace(root=tmp_path))
    nodes = recipe.order[: recipe.order.index("Trainer")]
    with tfds.testing.mock_data(num_examples=40):
        kl.run(recipe, root=tmp_path, nodes=nodes, report=False).raise_if_failed()
