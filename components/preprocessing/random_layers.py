"""Preprocessing that is random in training: augmentation, the same for the same seed."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf


def is_random(model: keras.Model) -> bool:
    """Whether some layer draws random numbers in training."""
    return bool(_seed_states(model))


def called_at_random(model: keras.Model, inputs: dict[str, Any], moment: tuple[Any, ...]) -> dict[str, Any]:
    """The model's outputs as in training.

    Args:
        moment: whole numbers, such as seed, epoch and step, that decide all that is random.
    """
    states = _seed_states(model)
    seeds = tf.random.experimental.stateless_split(_folded(moment), len(states))
    replaced = {id(state): seeds[number] for number, state in enumerate(states)}
    values = [
        tf.cast(replaced[id(variable)], variable.dtype) if id(variable) in replaced else variable.value
        for variable in model.non_trainable_variables
    ]
    trainable = [variable.value for variable in model.trainable_variables]
    outputs, _ = model.stateless_call(trainable, values, inputs, training=True)
    return outputs


def _seed_states(model: keras.Model) -> list[keras.Variable]:
    """The variables that hold the states of random number generators."""
    layers = model._flatten_layers()
    return [generator.state for layer in layers for generator in getattr(layer, "_seed_generators", ())]


def _folded(moment: tuple[Any, ...]) -> tf.Tensor:
    seed = tf.zeros(2, tf.int64)
    for number in moment:
        seed = tf.random.experimental.stateless_fold_in(seed, tf.cast(number, tf.int64))
    return seed
