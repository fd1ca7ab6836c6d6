"""Attention step by step, against Keras's attention to the whole sequence."""

import keras
import numpy as np
import pytest

import kerasline as kl
from tests.components.preprocessing.layers.round_trip import round_trips

X = np.random.default_rng(0).normal(size=(3, 5, 8)).astype("float32")
MEMORY = np.random.default_rng(1).normal(size=(3, 4, 6)).astype("float32")


@pytest.mark.parametrize("options", [{}, {"value_dim": 3}, {"output_shape": 7}, {"use_bias": False}])
def test_steps_give_what_causal_attention_gives(options):
    layer = kl.layers.CachedAttention(2, 4, **options)
    whole = layer(X, X, use_causal_mask=True).numpy()
    for begin in (1, 3):  # a prompt of several positions comes at once
        y, cache = layer.step(X[:, :begin], layer.new_cache(3, 5), 0)
        np.testing.assert_allclose(y, whole[:, :begin], atol=1e-5)
        for position in range(begin, 5):
            y, cache = layer.step(X[:, position : position + 1], cache, position)
            np.testing.assert_allclose(y[:, 0], whole[:, position], atol=1e-5)


def test_projected_memory_gives_what_attention_to_it_gives():
    layer = kl.layers.CachedAttention(2, 4)
    mask = np.arange(4) < np.array([4, 2, 1])[:, None]
    whole = layer(X, MEMORY, attention_mask=mask[:, None]).numpy()
    found = layer.attend(X[:, 2:3], layer.project(MEMORY), mask[:, None])
    np.testing.assert_allclose(found[:, 0], whole[:, 2], atol=1e-5)


def test_half_precision_agrees():
    layer = kl.layers.CachedAttention(2, 4, dtype="mixed_float16")
    whole = np.array(layer(X, X, use_causal_mask=True))
    y, cache = layer.step(X, layer.new_cache(3, 5), 0)
    assert cache[0].dtype == "float16"
    np.testing.assert_allclose(y, whole, atol=1e-2)


def test_layer_is_saved_with_its_options(tmp_path):
    x = keras.Input((5, 8), name="x")
    layer = kl.layers.CachedAttention(2, 4, dropout=0.1)
    round_trips(keras.Model({"x": x}, layer(x, x, use_causal_mask=True)), {"x": X}, tmp_path, 1e-6)


def test_unsupported_option_is_named():
    with pytest.raises(ValueError, match="CachedAttention: invalid use_gate: expected no value"):
        kl.layers.CachedAttention(2, 4, use_gate=True)
