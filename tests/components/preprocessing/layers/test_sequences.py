"""Lengths and masks of rows that vary in length."""

import keras
import numpy as np
import pytest

from kerasline.components.core.keras_compat import mask_of
from kerasline.components.preprocessing.layers.sequences import LengthMask, Lengths
from tests.components.preprocessing.layers.round_trip import round_trips


@pytest.mark.parametrize(
    ("values", "padding", "expected"),
    [
        (np.array([[1.0, np.nan, 2.0], [np.nan] * 3, [0.0, np.nan, np.nan]]), None, [3, 0, 1]),
        (np.array([[4, 0, -1], [-1, -1, -1]]), None, [2, 0]),
        (np.array([[4, 5, 0], [0, 0, 0]]), 0, [2, 0]),
        (np.array([["a", "", "b"], ["a", "", ""]], object), None, [3, 1]),
        (np.array([[[1.0, np.nan], [np.nan, np.nan]]]), None, [1]),
        (np.zeros((2, 0)), None, [0, 0]),
    ],
)
def test_steps_before_the_padding_are_counted(values, padding, expected):
    assert Lengths(padding)(values).numpy().tolist() == expected


def test_mask_reaches_the_loss():
    frames, lengths = np.ones((2, 5, 3), "float32"), np.array([[5], [2]])
    masked = LengthMask(stride=2)([frames, lengths])
    assert masked.numpy()[:, :, 0].tolist() == [[1, 1, 1, 0, 0], [1, 0, 0, 0, 0]]
    output = keras.layers.Dense(1, kernel_initializer="ones")(masked)
    assert mask_of(output).numpy().sum(axis=1).tolist() == [3, 1]
    assert float(keras.losses.MeanAbsoluteError()(np.zeros((2, 5, 1)), output)) == 3


def test_nan_beyond_the_length_becomes_zero():
    values = np.array([[1.0, np.nan]])
    assert LengthMask()([values, np.array([1])]).numpy().tolist() == [[1.0, 0.0]]


def test_saved_and_exported(tmp_path):
    x = keras.Input((None, 2), name="x")
    model = keras.Model({"x": x}, {"x": LengthMask()([x, Lengths()(x)])})
    round_trips(model, {"x": np.array([[[1.0, 2.0], [np.nan, np.nan]]], "float32")}, tmp_path)


def test_wrong_inputs_are_named():
    with pytest.raises(ValueError, match="LengthMask: invalid stride: expected an integer from 1, received 0"):
        LengthMask(0)
    with pytest.raises(ValueError, match="Lengths: invalid inputs"):
        Lengths()(keras.Input(()))
    with pytest.raises(ValueError, match="LengthMask: invalid inputs"):
        LengthMask()([keras.Input((2,)), keras.Input((2,), dtype="int64")])
