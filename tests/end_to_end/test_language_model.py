"""The recipe `language_model`, in a small size: from texts to a served model that continues them."""

import json
import re
import shutil
import subprocess

import numpy as np
import pytest

import kerasline as kl
from kerasline.pipeline.recipes import language_model as recipe
from tests.components.serving import servers
from tests.conftest import REPOSITORY
from tests.end_to_end.counting import NUMBERS, SMALL, write_counting
from tests.end_to_end.documents import as_words
from tests.end_to_end.recipe_runs import require_language_libraries, run_recipe

pytestmark = pytest.mark.slow
require_language_libraries()


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    return write_counting(tmp_path_factory.mktemp("texts") / "texts.csv")


def documented_curls():
    """Return the commands of the guides that ask the model for a text."""
    texts = [(REPOSITORY / "docs" / name).read_text(encoding="utf-8") for name in ("SERVING.md", "LANGUAGE.md")]
    return [line for text in texts for line in re.findall(r"^curl .*$", text, re.M) if "language_model" in line]


def continued_without_caches(nodes, prompts):
    """Return the continuations when each token runs the trained model anew over the whole text."""
    import tensorflow as tf

    model = kl.Model(nodes["Trainer"]["outputs"]["trained_model"]).load()
    preprocessing = kl.Preprocessing(nodes["Transform"]["outputs"]["preprocessing"]).load()
    tokens = preprocessing({"text": tf.constant(prompts)[:, tf.newaxis]})["tokens"]
    shape = [len(prompts), recipe.LENGTH]
    one_document = {
        "segment_ids": tf.ones(shape, tf.int32),
        "positions": tf.tile([tf.range(recipe.LENGTH)], [shape[0], 1]),
    }

    def step(tokens, position, ids):
        ids = tf.where(tf.range(recipe.LENGTH) == position, tokens[:, tf.newaxis], ids)
        return tf.gather(model({"tokens": ids, **one_document}), position, axis=1), ids

    found = kl.generate(
        step,
        tf.where(tokens == recipe.END, recipe.PAD, tokens),
        tf.zeros(shape, tf.int32),
        length=recipe.LENGTH,
        end=recipe.END,
        temperature=recipe.TEMPERATURE,
        top_p=recipe.TOP_P,
        seed=recipe.SEED,
    )
    words = next(layer for layer in preprocessing.layers if layer.name == "words")
    return words.decode(found.ids).numpy()


def test_texts_are_continued_and_streamed(cli, texts, tmp_path):
    import tensorflow as tf
    import tensorflow_text  # noqa: F401

    nodes = run_recipe(cli, "language_model", tmp_path, {"ExampleGen.input": texts, **SMALL})
    assert nodes["Pusher"]["state"] == "ran"
    assert nodes["Evaluator"]["metrics"]["cross_entropy"] < 1  # log(10), 2.3, for numbers at random
    serve = tf.saved_model.load(nodes["Pusher"]["metrics"]["path"]).signatures["serving_default"]
    prompts = ["one two three", "five six"]
    together = serve(text=tf.constant(prompts)[:, tf.newaxis])["continued"].numpy()
    assert all(text.decode().startswith(prompt) for prompt, text in zip(prompts, together))
    assert together[0].decode().split()[:5] == NUMBERS[:5]
    alone = [serve(text=tf.constant([[prompt]]))["continued"].numpy()[0] for prompt in prompts]
    np.testing.assert_array_equal(together, alone)
    np.testing.assert_array_equal(together, continued_without_caches(nodes, prompts))

    with servers.serving(tmp_path, nodes["Pusher"]["metrics"]["path"]) as server:
        status, answer = server.post("/v1/completions", {"model": "language_model", "prompt": prompts[0]})
        assert status == 200 and prompts[0] + answer["choices"][0]["text"] == together[0].decode()
        curls = documented_curls()
        assert len(curls) == 3
        for command in curls if shutil.which("curl") else ():
            words = as_words(command.replace("8501", str(server.rest_port)))
            *_, last = subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip().splitlines()
            found = json.loads(last.removeprefix("data: "))
            assert "outputs" in found or found["choices"][0]["text"]
