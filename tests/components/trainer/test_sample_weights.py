"""The weight of a row counts for all its tokens, and tokens may have weights of their own."""

import keras
import numpy as np
import pytest

import kerasline as kl

ROWS = LENGTH = 4  # equal, so that weights along the wrong axis would not fail
VOCABULARY = 3
RANDOM = np.random.default_rng(0)
TOKENS, TAGS = RANDOM.integers(0, VOCABULARY, (2, ROWS, LENGTH))
PRICE, OF_ROWS, OF_TOKENS = RANDOM.random(ROWS), RANDOM.random(ROWS), RANDOM.random((ROWS, LENGTH))
# Each token scores its own number 1 and the others 0, and the model never learns.
LOSSES = np.log(np.e + VOCABULARY - 1) - (TOKENS == TAGS)
COLUMNS = {"tokens": TOKENS.tolist(), "tags": TAGS.tolist(), "price": PRICE}


def preprocessing():
    tokens = keras.Input((LENGTH,), name="tokens", dtype="int64")
    return keras.Model({"tokens": tokens}, {"tokens": keras.layers.Identity()(tokens)})


def build_model(inputs, hp):
    scores = keras.layers.Embedding(VOCABULARY, VOCABULARY, embeddings_initializer="identity")(inputs["tokens"])
    tags = keras.layers.Softmax(name="tags")(scores)
    if hp["outputs"] == "one":
        model = keras.Model(inputs, tags)
        model.compile(keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy")
        return model
    pooled = keras.layers.GlobalAveragePooling1D()(scores)
    price = keras.layers.Dense(1, kernel_initializer="zeros", name="price")(pooled)
    losses = {"tags": "sparse_categorical_crossentropy", "price": "mse"}
    if hp["outputs"] == "dict":
        model = keras.Model(inputs, {"price": price, "tags": tags})
    else:
        model, losses = keras.Model(inputs, [tags, price]), list(losses.values())
    model.compile(keras.optimizers.SGD(0.0), losses)
    return model


def trained(folder, weights, outputs="one"):
    examples = kl.InMemoryExampleGen({**COLUMNS, "w": weights}, splits={"train": 1}).execute(folder / "e").examples
    label = "tags" if outputs == "one" else ["tags", "price"]
    transform = kl.Transform(examples, function=preprocessing, label=label, sample_weight="w")
    prepared = transform.execute(folder / "p").preprocessing
    built = kl.ModelBuilder(prepared, function=build_model, hyperparameters={"outputs": outputs})
    model = built.execute(folder / "m").model
    trainer = kl.Trainer(examples, prepared, model, eval_split="train", batch_size=ROWS, steps=1, tensorboard=False)
    done = trainer.execute(folder / "t")
    evaluator = kl.Evaluator(examples, prepared, done.trained_model, split="train", replicates=0)
    evaluation = evaluator.execute(folder / "v").evaluation.read_json("metrics.json")
    losses = {entry["output"]: entry["value"] for entry in evaluation["metrics"] if entry["metric"] == "loss"}
    return done.metrics, losses


@pytest.mark.parametrize(("weights", "factors"), [(OF_ROWS, OF_ROWS[:, np.newaxis]), (OF_TOKENS.tolist(), OF_TOKENS)])
def test_weights_of_rows_and_of_tokens_multiply_the_losses_of_tokens(weights, factors, tmp_path):
    metrics, _ = trained(tmp_path, weights)
    expected = (factors * LOSSES).mean()
    np.testing.assert_allclose([metrics["loss"], metrics["val_loss"]], expected, rtol=1e-5)


@pytest.mark.parametrize("outputs", ["dict", pytest.param("list", marks=pytest.mark.slow)])
def test_row_weights_fit_tokens_and_numbers_of_several_outputs(outputs, tmp_path):
    metrics, _ = trained(tmp_path, OF_ROWS, outputs)
    np.testing.assert_allclose(metrics["val_tags_loss"], (OF_ROWS[:, np.newaxis] * LOSSES).mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["val_price_loss"], (OF_ROWS * PRICE**2).mean(), rtol=1e-5)


def test_evaluator_agrees_with_training_on_row_weights_of_tokens(tmp_path):
    metrics, losses = trained(tmp_path, OF_ROWS, "dict")
    np.testing.assert_allclose(losses[""], metrics["val_loss"], rtol=1e-5)


def test_weights_of_another_shape_are_refused_by_model_builder(tmp_path):
    with pytest.raises(kl.KeraslineError, match=r"ModelBuilder: output 'tags' with weight 'w': .*shape \(2,\)"):
        trained(tmp_path, [[1.0, 2.0]] * ROWS)
