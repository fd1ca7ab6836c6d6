"""Helpers for tests of layers: adapting in pieces, and saving in both formats."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf


def adapted(layer: keras.layers.Layer, *values: np.ndarray, parts: int = 3) -> keras.layers.Layer:
    """Call a layer symbolically, and adapt it on values split into `parts`, merged from last to first.

    Args:
        *values: an array of shape (rows, ...) for each input of the layer.
    """
    inputs = [keras.Input(v.shape[1:], dtype="string" if v.dtype.kind in "OSU" else str(v.dtype)) for v in values]
    layer(inputs if len(inputs) > 1 else inputs[0])
    pieces = []
    for piece in zip(*(np.array_split(v, parts) for v in values)):
        state = layer.new_state()
        state.add(*piece)
        pieces.append(state)
    whole = layer.new_state()
    for state in reversed(pieces):
        whole.merge(state)
    layer.set_state(whole)
    return layer


def round_trips(model: keras.Model, inputs: dict[str, np.ndarray], tmp_path: Path, tolerance: float = 0.0) -> None:
    """Assert that a functional model with dict inputs gives the same values when saved and loaded."""
    tensors = {name: tf.convert_to_tensor(value) for name, value in inputs.items()}
    expected = tf.nest.flatten(model(tensors, training=False))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    _same(expected, loaded(tensors, training=False), tolerance)
    archive = keras.export.ExportArchive()
    archive.track(loaded)
    signature = {n: tf.TensorSpec((None, *t.shape[1:]), t.dtype, name=n) for n, t in loaded.input.items()}

    def serve(raw: dict[str, Any]) -> dict[str, Any]:
        outputs = tf.nest.flatten(loaded(raw, training=False))
        return {f"output_{place}": tensor for place, tensor in enumerate(outputs)}

    archive.add_endpoint("serve", serve, input_signature=[signature])
    archive.write_out(str(tmp_path / "saved_model"), verbose=False)
    restored = tf.saved_model.load(str(tmp_path / "saved_model"))  # its functions live as long as it does
    served = restored.serve(tensors)
    _same(expected, [served[f"output_{place}"] for place in range(len(expected))], tolerance)


def in_tf_data(model: keras.Model, inputs: dict[str, np.ndarray], batch: int = 7) -> None:
    """Assert that a functional model with dict inputs gives the same values in a `tf.data` map."""
    data = tf.data.Dataset.from_tensor_slices(inputs).batch(batch).map(lambda raw: tf.nest.flatten(model(raw)))
    found = [np.concatenate(parts) for parts in zip(*data.as_numpy_iterator())]
    expected = tf.nest.flatten(model({name: tf.convert_to_tensor(one) for name, one in inputs.items()}))
    for one, other in zip(expected, found, strict=True):
        _same([one], [other], 1e-6 if one.dtype.is_floating else 0.0)


def _same(expected: list[Any], found: Any, tolerance: float) -> None:
    for one, other in zip(expected, tf.nest.flatten(found), strict=True):
        if tolerance:
            np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)
        else:
            np.testing.assert_array_equal(one, other)
