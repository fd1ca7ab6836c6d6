"""Sequential and subclassed models become functional models of the features."""

import keras
import numpy as np
import pytest

from kerasline import Evaluator, Explainer, Exporter, InMemoryExampleGen, ModelBuilder, Trainer, Transform
from kerasline.components.core.errors import UserCodeError
from kerasline.components.model_builder.functional import as_functional
from kerasline.components.models.predictors import SavedModelPredictor


@keras.saving.register_keras_serializable("tests")
class TakesFeatures(keras.Model):
    def __init__(self, **options):
        super().__init__(**options)
        self.hidden, self.out = keras.layers.Dense(3), keras.layers.Dense(1)

    def call(self, features):
        return self.out(self.hidden(features["x"]))


@keras.saving.register_keras_serializable("tests")
class TakesTensor(TakesFeatures):
    def call(self, x):
        return self.out(self.hidden(x))


@keras.saving.register_keras_serializable("tests")
class OwnStep(TakesFeatures):
    def train_step(self, data):
        return super().train_step(data)


def sequential():
    return keras.Sequential([keras.layers.Dense(3), keras.layers.Dense(1)])


def sequential_with_input():
    return keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])


def features(*names):
    return {name: keras.Input((1,), name=name) for name in names}


@pytest.mark.parametrize("make", [sequential, sequential_with_input, TakesFeatures, TakesTensor])
def test_model_takes_features_by_name_and_keeps_its_compile_arguments(make):
    model = make()
    model.compile(keras.optimizers.Adam(0.037), "mse", metrics=["mae"])
    functional = as_functional(model, features("x"), "build_model()")
    assert list(functional.input) == ["x"]
    x = np.ones((2, 1), "float32")
    expected = model({"x": x}) if make is TakesFeatures else model(x)
    np.testing.assert_array_equal(functional({"x": x}), expected)
    assert float(functional.optimizer.learning_rate) == pytest.approx(0.037)
    assert functional.get_compile_config()["metrics"] == ["mae"]


def test_model_with_an_own_training_step_is_kept():
    model = OwnStep()
    model.compile("adam", "mse")
    assert as_functional(model, features("x"), "build_model()") is model
    assert model.built


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (sequential, "a Sequential model takes one tensor, and there are the features x, z; concatenate"),
        (TakesTensor, "TakesTensor cannot be called on a dict of features by name: "),
    ],
)
def test_model_that_does_not_fit_the_features_is_an_error_in_one_line(make, message):
    model = make()
    model.compile("adam", "mse")
    with pytest.raises(UserCodeError) as caught:
        as_functional(model, features("x", "z"), "build_model()")
    assert message in str(caught.value) and len(str(caught.value)) < 500


def preprocessing():
    x = keras.Input((1,), name="x")
    return keras.Model({"x": x}, {"x": keras.layers.Rescaling(0.5)(x)})


@pytest.mark.parametrize("make", [sequential, pytest.param(TakesTensor, marks=pytest.mark.slow)])
def test_model_is_trained_evaluated_and_served(make, tmp_path):
    def build_model(inputs, hp):
        model = make()
        model.compile("adam", "mse")
        return model

    data = {"x": np.arange(60.0), "y": np.arange(60.0) / 7}
    examples = InMemoryExampleGen(data, splits={"train": 2, "eval": 1}).execute(tmp_path / "e").examples
    prepared = Transform(examples, function=preprocessing, label="y").execute(tmp_path / "p").preprocessing
    model = ModelBuilder(prepared, function=build_model).execute(tmp_path / "m").model
    trained = Trainer(examples, prepared, model, epochs=1, tensorboard=False).execute(tmp_path / "t").trained_model
    Evaluator(examples, prepared, trained, split="eval").execute(tmp_path / "v")
    Explainer(examples, prepared, trained, split="eval").execute(tmp_path / "i")
    exported = Exporter(prepared, trained).execute(tmp_path / "x").saved_model
    x = np.array([[3.0], [8.0]], "float32")
    (served,) = SavedModelPredictor(exported.path)({"x": x}).values()
    np.testing.assert_allclose(served, trained.load()({"x": x / 2}), rtol=1e-5)
