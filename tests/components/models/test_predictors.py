"""The number of rows that a model predicts at a time."""

import keras
import pytest

from kerasline.components.models.predictors import rows_at_once


def of(*layers, shape):
    return keras.Sequential([keras.Input(shape), *layers])


def test_narrow_models_predict_4096_rows_at_a_time():
    assert rows_at_once(of(keras.layers.Dense(10), shape=(784,)), of(keras.layers.Dense(1), shape=(10,))) == 4096


def test_layer_outputs_of_wide_models_stay_within_64_mb():
    inner = of(keras.layers.Conv2D(16, 3, padding="same"), shape=(64, 64, 3))
    given = 4 * (64 * 64 * 3 + 2 * 64 * 64 * 16 + 10 + 64 * 64 * 16)  # bytes: the input, inner and its layer, ...
    model = of(inner, keras.layers.Flatten(), keras.layers.Dense(10), shape=(64, 64, 3))
    assert rows_at_once(model) == pytest.approx((64 << 20) / given, rel=0.1)


@pytest.mark.parametrize("layer", [keras.layers.LSTM(8), keras.layers.GlobalMaxPooling1D()])
def test_rows_of_variable_length_are_predicted_1024_at_a_time(layer):
    assert rows_at_once(of(layer, shape=(None, 4))) == 1024


def test_models_with_nested_layers_predict_1024_rows_at_a_time():
    class Outer(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.inner = keras.layers.Dense(3)

        def call(self, inputs):
            return self.inner(inputs)

    assert rows_at_once(of(Outer(), shape=(4,))) == 1024


def test_rows_of_any_width_are_predicted():
    assert rows_at_once(of(keras.layers.RepeatVector(1 << 25), shape=(1,))) == 1
