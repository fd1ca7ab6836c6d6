"""Differentiate a preprocessing model with respect to its raw integer images."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasline.components.core.artifacts import needed_inputs
from kerasline.components.core.keras_names import input_names
from kerasline.components.data.display import is_image

LOG = logging.getLogger("kerasline")


class RawImages:
    """Image columns that are the only input of an output that is not an image, such as flattened pixels.

    Args:
        features: the preprocessing.
        first: a batch of inputs, used to check that gradients exist.

    Attributes:
        columns: the image columns; empty if they have no gradient.
        derived: the outputs computed from them.
    """

    def __init__(self, features: keras.Model, first: Mapping[str, tf.Tensor]) -> None:
        self.derived, self.columns = _derived_from_images(features)
        self._model = _of_floats(features, self.columns) if self.columns else None
        if self.columns and not self._differentiable(features, first):
            self.derived, self.columns, self._model = [], [], None

    def features(self, raw: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Compute the outputs derived from the images, given as float32."""
        if self._model is None:
            return {}
        outputs = self._model({name: raw[name] for name in self._model.input}, training=False)
        return {name: outputs[name] for name in self.derived}

    def _differentiable(self, features: keras.Model, first: Mapping[str, tf.Tensor]) -> bool:
        """Return whether all images have a gradient and outputs equal those for integer images."""
        if self._model is None:
            return False
        rows = {name: values[:2] for name, values in first.items()}
        images = {name: tf.cast(rows[name], tf.float32) for name in self.columns}
        with tf.GradientTape() as tape:
            tape.watch(images)
            derived = self.features({**rows, **images})
            total = tf.add_n([tf.reduce_sum(tf.cast(value, tf.float32)) for value in derived.values()])
        slopes = tape.gradient(total, images)
        known = features(rows, training=False)
        return all(slope is not None for slope in slopes.values()) and all(
            np.allclose(value, known[name], rtol=1e-4, atol=1e-5) for name, value in derived.items()
        )


def _derived_from_images(features: keras.Model) -> tuple[list[str], list[str]]:
    """Return the outputs derived from a single raw image, and these images."""
    images = {name for name, tensor in features.input.items() if _may_be_image(tensor)}
    derived = {}
    for name, tensor in features.output.items():
        needed = needed_inputs(features.input, {name: tensor})
        if len(needed) == 1 and images >= needed.keys() and "float" in str(tensor.dtype) and not is_image(tensor.shape):
            derived[name] = next(iter(needed))
    return list(derived), list(dict.fromkeys(derived.values()))


def _may_be_image(tensor: Any) -> bool:
    """Return whether an input is numbers (rows, height, width, channels) or uint8 (rows, height, width)."""
    shape, kind = tuple(tensor.shape), str(tensor.dtype)
    return kind != "string" and (is_image(shape) or (kind == "uint8" and is_image((*shape, 1))))


def _of_floats(features: keras.Model, columns: Sequence[str]) -> keras.Model | None:
    """Return the same layers applied to float32 images, or None if a layer does not accept floats."""
    names = input_names(features.input)
    inputs = {
        name: keras.Input(batch_shape=t.shape, dtype="float32" if name in columns else t.dtype, name=names[name])
        for name, t in features.input.items()
    }
    try:
        return keras.models.clone_model(features, input_tensors=inputs, clone_function=lambda layer: layer)
    except (ValueError, TypeError) as error:
        LOG.info("the preprocessing of images has no gradient: %s", error)
        return None
