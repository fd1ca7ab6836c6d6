"""Convolutions with kernels of 8 or 4 bits, which Keras quantises in no layer but Dense, EinsumDense and Embedding.

A kernel is stored as a matrix of integers, with a column for each output channel and scales for each column, and
dequantised in the graph at each call: symmetric quantisation per channel (Krishnamoorthi, "Quantizing deep
convolutional networks for efficient inference", 2018).
"""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from kerasline.components.core.keras_compat import add_weight, flatten_layers, remove_variable

# The number of weights that share a scale, by bits. None: all of a column.
GROUPS = {8: None, 4: 128}
# The attributes with the kernels of each kind of layer, and which of their axes are those of output channels.
KERNELS: dict[tuple[type, ...], dict[str, tuple[int, ...]]] = {
    (layers.Conv1D, layers.Conv2D, layers.Conv3D): {"_kernel": (-1,)},
    (layers.DepthwiseConv1D, layers.DepthwiseConv2D): {"kernel": (-2, -1)},
    (layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose): {"kernel": (-2,)},
    (layers.SeparableConv1D, layers.SeparableConv2D): {"depthwise_kernel": (-2, -1), "pointwise_kernel": (-1,)},
}


def quantise_convolutions(model: keras.Model, bits: int) -> None:
    """Quantise, in place, the kernels of all convolutions of a built model to 8 or 4 bits."""
    for layer in flatten_layers(model):
        kernels = next((names for kinds, names in KERNELS.items() if isinstance(layer, kinds)), {})
        if kernels and layer.built:
            found = {name: QuantisedKernel(layer, name, axes, bits) for name, axes in kernels.items()}
            properties = {name: property(kernel) for name, kernel in found.items()}
            layer.__class__ = type(type(layer).__name__, (type(layer),), properties)


class QuantisedKernel:
    """The kernel of a convolution, as integers in its place. Called with the layer, it returns the kernel.

    Args:
        layer: the built layer, which loses its kernel.
        name: the attribute with the kernel.
        channels: the axes of the output channels.
        bits: 8 or 4.
    """

    def __init__(self, layer: keras.Layer, name: str, channels: tuple[int, ...], bits: int) -> None:
        kernel = getattr(layer, name).numpy().astype(np.float32)
        remove_variable(layer, name)
        last = [axis % kernel.ndim for axis in channels]
        self._order = [axis for axis in range(kernel.ndim) if axis not in last] + last
        moved = kernel.transpose(self._order)
        self._shape, self._bits = moved.shape, bits
        matrix = moved.reshape(-1, np.prod(moved.shape[-len(last) :], dtype=int))
        self._rows = len(matrix)
        values, scales = quantised(matrix, bits, GROUPS[bits] or self._rows)
        self._group = values.shape[1]
        packed = values if bits == 8 else keras.quantizers.pack_int4(values, axis=1)[0]
        self._values = add_weight(layer, f"{name.strip('_')}_int{bits}", packed, "int8")
        self._scales = add_weight(layer, f"{name.strip('_')}_scale", scales, "float32")

    def __call__(self, layer: keras.Layer) -> tf.Tensor:
        values = tf.convert_to_tensor(self._values)
        values = values if self._bits == 8 else keras.quantizers.unpack_int4(values, self._group, axis=1)
        matrix = tf.cast(values, tf.float32) * self._scales
        if matrix.shape[0] > 1:
            matrix = tf.reshape(matrix, [-1, matrix.shape[-1]])[: self._rows]
        kernel = tf.reshape(matrix, self._shape)
        if self._order != sorted(self._order):
            kernel = tf.transpose(kernel, np.argsort(self._order))
        return tf.cast(kernel, layer.compute_dtype)


def quantised(matrix: np.ndarray, bits: int, group: int) -> tuple[np.ndarray, np.ndarray]:
    """Quantise symmetrically, such as to integers from -127 to 127.

    Args:
        matrix: floats (rows, columns).
        bits: number of bits.
        group: largest number of rows that share the scale of a column.

    Returns:
        Integers, int8 (groups, group, columns) with zeros after the last row, and scales, float32 (groups, 1, columns).
    """
    group = min(group, len(matrix))
    padded = np.pad(matrix, ((0, -len(matrix) % group), (0, 0))).reshape(-1, group, matrix.shape[1])
    largest = np.abs(padded).max(axis=1, keepdims=True)
    scales = (np.where(largest > 0, largest, 1.0) / (2 ** (bits - 1) - 1)).astype(np.float32)
    return np.round(padded / scales).astype(np.int8), scales
