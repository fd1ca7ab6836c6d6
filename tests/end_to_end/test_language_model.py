"""The recipe `language_model`, in a small size: from texts to a served model that continues them."""

import numpy as np
import pytest

from tests.end_to_end.recipe_runs import require_language_libraries, run_recipe

pytestmark = pytest.mark.slow
require_language_libraries()

NUMBERS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """A table of texts that count from any number on, and after ten go on with one."""
    rng = np.random.default_rng(5)
    file = tmp_path_factory.mktemp("texts") / "texts.csv"
    counted = NUMBERS * 4
    rows = [" ".join(counted[start : start + size]) for start in range(10) for size in rng.integers(3, 30, 40)]
    file.write_text("\n".join(["text", *rows]))
    return file


def test_texts_are_continued(cli, texts, tmp_path):
    import tensorflow as tf
    import tensorflow_text  # noqa: F401

    settings = {
        "ExampleGen.input": texts,
        "ExampleGen.splits": '{"train": 8, "eval": 1, "test": 1}',
        "ModelBuilder.hyperparameters.units": 32,
        "ModelBuilder.hyperparameters.heads": 2,
        "ModelBuilder.hyperparameters.layers": 1,
        "ModelBuilder.hyperparameters.learning_rate": 0.02,
        "ModelBuilder.hyperparameters.warm_up_steps": 5,
        "ModelBuilder.hyperparameters.decay_steps": 200,
        "Trainer.batch_size": 2,
        "Trainer.epochs": 15,
    }
    nodes = run_recipe(cli, "language_model", tmp_path, settings)
    assert nodes["Pusher"]["state"] == "ran"
    assert nodes["Evaluator"]["metrics"]["cross_entropy"] < 1  # log(10), 2.3, for numbers at random
    serve = tf.saved_model.load(nodes["Pusher"]["metrics"]["path"]).signatures["serving_default"]
    prompts = ["one two three", "five six"]
    together = serve(text=tf.constant(prompts)[:, tf.newaxis])["continued"].numpy()
    assert all(text.decode().startswith(prompt) for prompt, text in zip(prompts, together))
    assert together[0].decode().split()[:5] == NUMBERS[:5]
    alone = [serve(text=tf.constant([[prompt]]))["continued"].numpy()[0] for prompt in prompts]
    np.testing.assert_array_equal(together, alone)
