"""Conversion between raw features and serialised `tf.Example` protos. Missing values are treated as in `feed`.

Lists shorter than their input are padded, as those in Parquet files are. Floats are read from `float_list`, integers
and booleans from `int64_list`, texts from `bytes_list`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from kerasline.components.core.errors import DataError
from kerasline.components.data.missing import has_missing_value, missing_value

Specs = Mapping[str, tf.TensorSpec]


def check_parsable(specs: Specs) -> None:
    """Raise a DataError if the shape of a feature cannot be restored from a flat list of values."""
    for name, spec in specs.items():
        shape = spec.shape[1:]
        if None in shape[1:]:
            raise DataError(
                f"feature {name!r} is of shape {tuple(shape)}, which the flat list of a tf.Example cannot represent"
            )


def parse_examples(examples: tf.Tensor, specs: Specs) -> dict[str, tf.Tensor]:
    """Return the features of serialised examples, string (rows,), as tensors (rows, ...) by name."""
    found = tf.io.parse_example(examples, {name: _feature(spec) for name, spec in specs.items()})
    return {name: _shaped(found[name], spec, name) for name, spec in specs.items()}


def tf_examples(arrays: Mapping[str, np.ndarray]) -> list[bytes]:
    """Return rows of raw features, arrays (rows, ...), as serialised examples."""
    examples = []
    for row in range(len(next(iter(arrays.values())))):
        features = {name: _to_feature(array[row : row + 1]) for name, array in arrays.items()}
        example = tf.train.Example(features=tf.train.Features(feature=features))
        examples.append(example.SerializeToString())
    return examples


def _feature(spec: tf.TensorSpec) -> Any:
    kind = _kind(spec.dtype)
    default = _default(spec.dtype)
    if default is None:  # the dtype has no missing value
        return tf.io.FixedLenFeature(spec.shape[1:], kind)
    return tf.io.FixedLenSequenceFeature((), kind, allow_missing=True, default_value=default)


def _shaped(values: tf.Tensor, spec: tf.TensorSpec, name: str) -> tf.Tensor:
    shape, default = tuple(spec.shape[1:]), _default(spec.dtype)
    if default is not None and shape and shape[0] is None:
        values = tf.reshape(values, (tf.shape(values)[0], tf.shape(values)[1] // math.prod(shape[1:]), *shape[1:]))
    elif default is not None:
        size, longest = math.prod(shape), tf.shape(values)[1]
        fits = tf.debugging.assert_less_equal(
            longest, size, f"feature {name}: expected at most {size} values, received more"
        )
        with tf.control_dependencies([fits]):
            missing = [[0, 0], [0, tf.maximum(size - longest, 0)]]
            values = tf.pad(values, missing, constant_values=tf.constant(default, values.dtype))
        values = tf.reshape(values, (-1, *shape))
    return tf.cast(values, spec.dtype) if spec.dtype != values.dtype else values


def _kind(dtype: tf.DType) -> tf.DType:
    return tf.string if dtype == tf.string else tf.float32 if dtype.is_floating else tf.int64


def _default(dtype: tf.DType) -> Any:
    return missing_value(dtype.name) if has_missing_value(dtype.name) else None


def _to_feature(values: np.ndarray) -> tf.train.Feature:
    flat = values.reshape(-1)
    if flat.dtype == object:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=flat.tolist()))
    if tf.as_dtype(flat.dtype).is_floating:
        return tf.train.Feature(float_list=tf.train.FloatList(value=flat.astype(np.float32)))
    return tf.train.Feature(int64_list=tf.train.Int64List(value=flat.astype(np.int64)))
