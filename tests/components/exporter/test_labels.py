"""The name of the predicted class, which the served model adds as `label`."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest

import kerasline as kl
from kerasline.components.exporter.planned import PlannedSavedModel
from kerasline.components.models.predictors import SavedModelPredictor

SCORES = np.array([[-2.0], [0.0], [0.3], [0.5], [0.7], [3.0]], "float32")
TRUTH = ["fish", "fowl", "fish", "fish", "fowl", "fowl"]


def preprocessing(encoding="int"):
    x, y = keras.Input((1,), name="x"), keras.Input((), name="y", dtype="string")
    lookup = keras.layers.StringLookup(vocabulary=["fish", "fowl"], num_oov_indices=0, output_mode=encoding)
    return keras.Model({"x": x, "y": y}, {"x": keras.layers.Rescaling(1.0)(x), "y": lookup(y)})


def built(folder, loss, output, encoding="int"):
    """Return examples, preprocessing and an untrained model whose output is a function of x."""
    rows = {"x": SCORES.ravel(), "y": TRUTH}
    examples = kl.InMemoryExampleGen(rows, splits={"test": 1}).execute(folder / "e").examples

    def build_model(inputs, hp):
        model = keras.Model(inputs, {"score": output(inputs["x"])})
        model.compile("sgd", loss)
        return model

    transform = kl.Transform(examples, function=lambda: preprocessing(encoding), label="y", split="test")
    prepared = transform.execute(folder / "t").preprocessing
    model = kl.ModelBuilder(prepared, function=build_model).execute(folder / "m").model
    return SimpleNamespace(examples=examples, prepared=prepared, model=model)


@pytest.mark.parametrize(
    ("loss", "threshold"),
    [
        ("binary_crossentropy", 0.5),
        (keras.losses.BinaryCrossentropy(from_logits=True), 0.0),
        ("hinge", 0.0),
    ],
)
def test_single_unit_names_one_of_two_classes(loss, threshold, tmp_path):
    given = built(tmp_path, loss, keras.layers.Identity())
    saved_model = kl.Exporter(given.prepared, given.model).execute(tmp_path / "x").saved_model
    answers = SavedModelPredictor(saved_model.path)({"x": SCORES})
    expected = np.where(SCORES[:, 0] > threshold, "fowl", "fish")
    assert [name.decode() for name in answers["label"]] == expected.tolist()
    manifest = saved_model.manifest
    planned = PlannedSavedModel(given.prepared, given.model).manifest
    assert manifest["outputs"] == planned["outputs"] == ["score", "label"]
    assert manifest["output_specs"]["label"] == {"dtype": "string", "shape": [None]}


def test_evaluator_and_bulk_inferrer_decide_as_the_served_model(tmp_path):
    given = built(tmp_path, keras.losses.BinaryCrossentropy(from_logits=True), keras.layers.Identity())
    saved_model = kl.Exporter(given.prepared, given.model).execute(tmp_path / "x").saved_model
    inferred = kl.BulkInferrer(saved_model, given.examples, keep=["y"]).execute(tmp_path / "b").predictions
    rows = inferred.read("test").to_pylist()
    assert [row["label"] for row in rows] == np.where(SCORES[:, 0] > 0, "fowl", "fish").tolist()
    evaluator = kl.Evaluator(given.examples, given.prepared, given.model, saved_model=saved_model, replicates=0)
    done = evaluator.execute(tmp_path / "v")
    assert done.metrics["accuracy"] == pytest.approx(np.mean([row["label"] == row["y"] for row in rows]))
    facts = done.evaluation.read_json("metrics.json")
    assert facts["outputs"]["score"]["classes"] == ["fish", "fowl"]


def test_several_labels_a_row_have_no_single_name(tmp_path):
    """Each unit decides for itself."""
    output = lambda x: keras.ops.concatenate([x, 1 - x], axis=-1)  # noqa: E731
    given = built(tmp_path, "binary_crossentropy", output, "one_hot")
    assert PlannedSavedModel(given.prepared, given.model).manifest["outputs"] == ["score"]
