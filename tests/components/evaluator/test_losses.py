"""The loss and Keras's metrics with masks and sample weights, against `model.evaluate` on all rows as one batch."""

import keras
import numpy as np
import pytest

from kerasline import Exporter
from tests.components.evaluator.problems import evaluated, problem

ROWS, LENGTH, CLASSES = 40, 7, 5
RANDOM = np.random.default_rng(0)
TOKENS = RANDOM.integers(1, 9, (ROWS, LENGTH))
TOKENS[np.arange(LENGTH) >= RANDOM.integers(2, LENGTH + 1, (ROWS, 1))] = 0
LABEL = RANDOM.integers(0, CLASSES, (ROWS, LENGTH))
ROW_WEIGHT, TOKEN_WEIGHT = RANDOM.gamma(1.0, size=(ROWS, 1)), RANDOM.gamma(1.0, size=(ROWS, LENGTH))
NUMBER = RANDOM.random(ROWS).astype("float32")
SITE = np.array(["north", "south"])[np.arange(ROWS) % 3 % 2]


def tagger(loss, mask_zero=False, activation="softmax", **compiled):
    x = keras.Input((LENGTH,), name="x", dtype="int64")
    inner = keras.layers.Embedding(9, 4, mask_zero=mask_zero)(x)
    model = keras.Model({"x": x}, keras.layers.Dense(CLASSES, activation=activation, name="tags")(inner))
    model.compile("sgd", loss, **compiled)
    return model


def scorer(loss, activation=None, **compiled):
    x = keras.Input((LENGTH,), name="x", dtype="int64")
    inner = keras.layers.GlobalAveragePooling1D()(keras.layers.Embedding(9, 4, mask_zero=True)(x))
    model = keras.Model({"x": x}, keras.layers.Dense(1, activation=activation, name="score")(inner))
    model.compile("sgd", loss, **compiled)
    return model


def two_outputs(**compiled):
    x = keras.Input((LENGTH,), name="x", dtype="int64")
    inner = keras.layers.Embedding(9, 4, mask_zero=True)(x)
    tags = keras.layers.Dense(CLASSES, activation="softmax", name="tags")(inner)
    score = keras.layers.Dense(1, name="score")(keras.layers.GlobalAveragePooling1D()(inner))
    model = keras.Model({"x": x}, {"tags": tags, "score": score})
    losses = {"tags": cross_entropy(ignore_class=0), "score": "mse"}
    model.compile("sgd", losses, loss_weights={"tags": 0.3, "score": 0.0}, **compiled)
    return model


def cross_entropy(**given):
    return keras.losses.SparseCategoricalCrossentropy(**given)


def accuracy():
    return keras.metrics.SparseCategoricalAccuracy(name="right")


@keras.saving.register_keras_serializable("test_losses")
def mean_of_batch(label, prediction):
    return keras.ops.mean(keras.ops.square(label - prediction))


@keras.saving.register_keras_serializable("test_losses")
def distance(label, prediction):
    return keras.ops.abs(label - prediction)


CASES = {
    "ignored class": lambda: (tagger(cross_entropy(ignore_class=2)), LABEL, None),
    "ignored class of logits": lambda: (
        tagger(cross_entropy(ignore_class=-1, from_logits=True), activation=None),
        np.where(TOKENS == 0, -1, LABEL),
        None,
    ),
    "mask": lambda: (tagger(cross_entropy(), mask_zero=True, metrics=[accuracy()]), LABEL, None),
    "mask and ignored class": lambda: (tagger(cross_entropy(ignore_class=2), mask_zero=True), LABEL, None),
    "mask and weights of rows": lambda: (
        tagger(cross_entropy(), mask_zero=True, weighted_metrics=[accuracy()]),
        LABEL,
        ROW_WEIGHT,
    ),
    "weights of tokens": lambda: (tagger(cross_entropy(), weighted_metrics=[accuracy()]), LABEL, TOKEN_WEIGHT),
    "mask and weights of tokens": lambda: (
        tagger(cross_entropy(ignore_class=1), mask_zero=True, weighted_metrics=[accuracy()]),
        LABEL,
        TOKEN_WEIGHT,
    ),
    "mean with sample weights": lambda: (
        tagger(cross_entropy(reduction="mean_with_sample_weight"), mask_zero=True),
        LABEL,
        TOKEN_WEIGHT,
    ),
    "weights of rows": lambda: (scorer("mse", weighted_metrics=["mae", distance]), NUMBER[:, None], ROW_WEIGHT),
    "one number for a batch": lambda: (scorer(mean_of_batch), NUMBER, None),
    "two outputs": lambda: (two_outputs(metrics={"score": ["mae"]}), {"tags": LABEL, "score": NUMBER}, None),
    "two outputs and weights": lambda: (
        two_outputs(weighted_metrics={"tags": [accuracy()]}),
        {"tags": LABEL, "score": NUMBER},
        ROW_WEIGHT,
    ),
}


# The other cases cover each part of these.
SLOW = ("ignored class of logits", "mask", "mask and ignored class", "mask and weights of rows", "weights of tokens")


def evaluated_by_keras(model, label, weight, rows=slice(None)):
    """Return what Keras computes, by the names of the Evaluator: `loss`, and `OUTPUT/loss` with several outputs."""
    label = {name: values[rows] for name, values in label.items()} if isinstance(label, dict) else label[rows]
    weight = None if weight is None else weight[rows]
    found = model.evaluate(
        {"x": TOKENS[rows]}, label, sample_weight=weight, batch_size=ROWS, verbose=0, return_dict=True
    )
    outputs = model.output_names if isinstance(label, dict) else []
    prefixes = {f"{output}_": f"{output}/" for output in outputs}
    return {
        next((new + name.removeprefix(old) for old, new in prefixes.items() if name.startswith(old)), name): value
        for name, value in found.items()
    }


def inputs(label, weight):
    columns = {"x": TOKENS, "site": SITE, **(label if isinstance(label, dict) else {"label": label})}
    labels = list(label) if isinstance(label, dict) else "label"
    return columns if weight is None else {**columns, "weight": weight}, labels


def values(done, slicing="", label=""):
    several = len(done.document["outputs"]) > 1
    return {
        f"{entry['output']}/{entry['metric']}" if several and entry["output"] else entry["metric"]: entry
        for entry in done.document["metrics"]
        if (entry["slicing"], entry["slice"]) == (slicing, label)
    }


@pytest.mark.parametrize("case", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in CASES])
def test_loss_is_that_of_keras(tmp_path, case):
    model, label, weight = CASES[case]()
    columns, labels = inputs(label, weight)
    given = problem(tmp_path / "p", columns, model, labels, weight=None if weight is None else "weight", shards=2)
    done = evaluated(given, tmp_path / "e", slices=["site"], task="regression" if case.startswith("one") else None)
    for where, rows in ((("", ""), slice(None)), (("site", "north"), SITE == "north")):
        found = values(done, *where)
        for name, value in evaluated_by_keras(model, label, weight, rows).items():
            assert found[name]["value"] == pytest.approx(value, rel=2e-5), name
            assert found[name]["low"] < found[name]["value"] < found[name]["high"]


def test_tokens_that_the_loss_leaves_out_count_in_no_metric_of_tokens(tmp_path):
    model = tagger(cross_entropy(ignore_class=2), mask_zero=True)
    columns, labels = inputs(LABEL, TOKEN_WEIGHT)
    given = problem(tmp_path / "p", columns, model, labels, weight="weight")
    found = evaluated(given, tmp_path / "e").values
    counted, scores = (TOKENS != 0) & (LABEL != 2), model.predict({"x": TOKENS}, verbose=0)
    right = scores.argmax(2) == LABEL
    surprise = -np.log(np.take_along_axis(scores.astype(float), LABEL[..., None], 2)[..., 0])
    weight = TOKEN_WEIGHT * counted
    assert found["token_accuracy"] == pytest.approx(np.average(right, weights=weight))
    assert found["cross_entropy"] == pytest.approx(np.average(surprise, weights=weight), rel=1e-5)


def test_same_model_as_baseline_has_the_same_masked_loss(tmp_path):
    model = tagger(cross_entropy(ignore_class=2), mask_zero=True, metrics=[accuracy()])
    columns, labels = inputs(LABEL, TOKEN_WEIGHT)
    given = problem(tmp_path / "p", columns, model, labels, weight="weight")
    saved_model = Exporter(given.preprocessing, given.model).execute(tmp_path / "x").saved_model
    done = evaluated(given, tmp_path / "e", baseline=saved_model, thresholds={"loss": {"max_drop": 1e-4}})
    assert done.blessing.blessed
    for name in ("loss", "right", "token_accuracy"):
        assert values(done)[name]["change"] == pytest.approx(0, abs=1e-6)
        assert values(done)[name]["baseline"] == pytest.approx(values(done)[name]["value"], rel=1e-5)
