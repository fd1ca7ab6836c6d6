"""Rows of any length: batched by length, masked, resumed, and evaluated with the loss of training."""

import keras
import numpy as np
import pytest

import kerasline as kl
from kerasline.components.core.errors import KeraslineError, ParameterError
from tests.components.trainer.test_resuming import Interrupted, interrupted_after

RANDOM = np.random.default_rng(0)
WORDS = [RANDOM.integers(1, 9, length).tolist() for length in RANDOM.integers(1, 30, 240)]
TAGS = [[(word + before) % 3 for word, before in zip(words, [0, *words])] for words in WORDS]
WEIGHTS = [RANDOM.random(len(words)).tolist() for words in WORDS]


def preprocessing():
    words = keras.Input((None,), name="words", dtype="int64")
    return keras.Model({"words": words}, {"ids": keras.ops.maximum(words, 0), "lengths": kl.layers.Lengths()(words)})


def build_model(inputs, hp):
    x = keras.layers.Embedding(9, 4)(inputs["ids"])
    x = keras.layers.Conv1D(8, 2, padding="causal", activation="tanh")(x)
    logits = kl.layers.LengthMask(name="tags")([keras.layers.Dense(3)(x), inputs["lengths"]])
    model = keras.Model(inputs, logits)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.02), kl.losses.Masked(loss, padding=-1))
    return model


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tagger")
    columns = {"words": WORDS, "tags": TAGS, "weights": WEIGHTS}
    generator = kl.InMemoryExampleGen(columns, splits={"train": 4, "eval": 1, "test": 1})
    examples = generator.execute(folder / "examples").examples
    transform = kl.Transform(examples, function=preprocessing, label="tags", sample_weight="weights")
    prepared = transform.execute(folder / "prepared").preprocessing
    return examples, prepared, kl.ModelBuilder(prepared, function=build_model).execute(folder / "built").model


def train(stages, folder, **settings):
    context = {key: settings.pop(key) for key in ("state_dir", "report") if key in settings}
    settings = {"bucket_by": "lengths", "tokens_a_batch": 256, "epochs": 2, **settings}
    return kl.Trainer(*stages, **settings).execute(folder, **context)


def losses(done):
    import pyarrow.parquet as pq

    return pq.read_table(done.history.path / "steps.parquet")["loss"].to_pylist()


@pytest.mark.slow
def test_bucketed_training_resumes_bit_for_bit(stages, tmp_path):
    whole = train(stages, tmp_path / "whole", checkpoint_steps=5, eval_split=None)
    with pytest.raises(Interrupted):
        train(
            stages,
            tmp_path / "cut",
            checkpoint_steps=5,
            eval_split=None,
            state_dir=tmp_path / "s",
            report=interrupted_after(2),
        )
    resumed = train(stages, tmp_path / "resumed", checkpoint_steps=5, eval_split=None, state_dir=tmp_path / "s")
    assert resumed.trained_model.read_json("training.json")["resumed_at_step"] > 0
    assert losses(resumed) == losses(whole)
    for ours, theirs in zip(resumed.trained_model.load().get_weights(), whole.trained_model.load().get_weights()):
        np.testing.assert_array_equal(ours, theirs)
    assert whole.trained_model.read_json("training.json")["padding"] < 0.1


def test_evaluators_loss_is_that_of_training(stages, tmp_path):
    """With weights of tokens, also if the longest row of a call of the model differs from call to call."""
    examples, prepared, model = stages
    # One batch in training's own evaluation, as Keras averages the means of batches.
    done = train(stages, tmp_path / "trained", tokens_a_batch=100_000, epochs=1)
    expected = done.trained_model.read_json("training.json")["metrics"]["val_loss"]
    for number, batch_size in enumerate((None, 7)):
        evaluator = kl.Evaluator(examples, prepared, done.trained_model, split="eval", batch_size=batch_size)
        evaluation = evaluator.execute(tmp_path / f"evaluated {number}").evaluation
        values = {entry["metric"]: entry["value"] for entry in evaluation.read_json("metrics.json")["metrics"]}
        assert values["loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bucket_by": "length"}, "Trainer.bucket_by: .*'length'.*lengths"),
        ({"bucket_by": None}, "Trainer.tokens_a_batch: requires bucket_by"),
        ({"frames_a_batch": 5}, "Trainer.frames_a_batch: expected one limit, received tokens_a_batch too"),
    ],
)
def test_wrong_settings_are_refused(stages, tmp_path, settings, message):
    with pytest.raises(ParameterError, match=message):
        train(stages, tmp_path / "out", **settings)


def test_row_longer_than_a_batch_is_refused(stages, tmp_path):
    with pytest.raises(KeraslineError, match="29 steps, more than the 28 of a batch; raise Trainer.tokens_a_batch"):
        train(stages, tmp_path / "out", tokens_a_batch=28)
