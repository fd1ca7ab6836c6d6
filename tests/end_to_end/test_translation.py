"""The recipe `translation`, in a small size: from pairs of texts to a served translator."""

import json
from pathlib import Path

import numpy as np
import pytest

import kerasline as kl
from kerasline.components.core.artifacts import Examples
from tests.end_to_end.recipe_runs import require_language_libraries, run_recipe

pytestmark = pytest.mark.slow
require_language_libraries()

UNITS = 32
ENGLISH = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
FRENCH = ["zéro", "un", "deux", "trois", "quatre", "cinq", "six", "sept", "huit", "neuf"]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """A file of spoken numbers in two languages, without a header."""
    rows = (
        ["\t".join(" ".join(words[int(digit)] for digit in f"{n:03}") for words in (ENGLISH, FRENCH))]
        for n in range(400)
    )
    file = tmp_path_factory.mktemp("pairs") / "pairs.tsv"
    file.write_text("\n".join(row for (row,) in rows))
    return file


def has_int8_embedding(nodes):
    """Return whether the embedding of the form `int8_weights`, which is the output layer too, has 8 bits."""
    import tensorflow as tf

    preprocessing = kl.Preprocessing(nodes["Transform"]["outputs"]["preprocessing"]).load()
    size = next(layer for layer in preprocessing.layers if layer.name == "words").vocabulary_size
    forms = Path(nodes["Exporter"]["outputs"]["model_forms"])
    reader = tf.train.load_checkpoint(str(forms / "int8_weights" / "variables" / "variables"))
    types, shapes = reader.get_variable_to_dtype_map(), reader.get_variable_to_shape_map()
    return {types[name] for name, shape in shapes.items() if shape == [size, UNITS]} == {tf.int8}


def test_translation_is_judged_and_served_by_its_answers(cli, pairs, tmp_path):
    import tensorflow as tf
    import tensorflow_text  # noqa: F401

    settings = {
        "ExampleGen.input": pairs,
        "ExampleGen.column_names": '["source","target"]',
        "ExampleGen.columns": "null",
        "ModelBuilder.hyperparameters.units": UNITS,
        "ModelBuilder.hyperparameters.layers": 1,
        "ModelBuilder.hyperparameters.warm_up_steps": 20,
        "ModelBuilder.hyperparameters.learning_rate": 0.01,
        "Trainer.epochs": 60,
        "Exporter.forms": '["int8_weights"]',
    }
    nodes = run_recipe(cli, "translation", tmp_path, settings)
    assert {node["state"] for node in nodes.values()} == {"ran"}
    metrics = nodes["Evaluator"]["metrics"]
    assert metrics["translation/chrf"] > 30  # a translator that knows nothing reaches some 15
    assert has_int8_embedding(nodes)
    model = tf.saved_model.load(nodes["Pusher"]["metrics"]["path"])
    serve = model.signatures["serving_default"]
    assert list(serve.structured_input_signature[1]) == ["source"]
    rows = Examples(nodes["ExampleGen"]["outputs"]["examples"]).read("test").to_pydict()
    together = serve(source=tf.constant(rows["source"])[:, tf.newaxis])["translation"].numpy()
    alone = [serve(source=tf.constant([[text]]))["translation"].numpy()[0] for text in rows["source"][:4]]
    np.testing.assert_array_equal(together[:4], alone)
    judged = json.loads((tmp_path / "summary.json").read_text())
    assert judged["state"] == "succeeded"
