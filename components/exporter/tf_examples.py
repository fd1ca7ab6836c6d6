"""Raw features out of serialised `tf.Example`, and into it: what is missing becomes what `feed` makes of a null.

A list may be shorter than the input wants: it is filled up, as rows of Parquet are. A number is looked for
in `float_list` for a float input and in `int64_list` for an integer or boolean one, a text in `bytes_list`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from kerasline.components.core.errors import DataError
from kerasline.components.data.missing import missing_value

Specs = Mapping[str, tf.TensorSpec]


def check_parsable(specs: Specs) -> None:
    """Raises a DataError where a feature cannot be told from a flat list of values."""
    for name, spec in specs.items():
        shape = spec.shape[1:]
        if None in shape and len(shape) > 1:
            raise DataError(
                f"feature {name!r} is of shape {tuple(shape)}: a tf.Example holds a flat list, which does not tell it"
            )


def parsed(examples: tf.Tensor, specs: Specs) -> dict[str, tf.Tensor]:
    """The features of serialised examples, string (rows,); (rows, ...) each."""
    found = tf.io.parse_example(examples, {name: _feature(spec) for name, spec in specs.items()})
    return {name: _shaped(found[name], spec, name) for name, spec in specs.items()}


def tf_examples(arrays: Mapping[str, np.ndarray]) -> list[bytes]:
    """Rows of raw features, arrays (rows, ...), as serialised examples."""
    made = []
    for row in range(len(next(iter(arrays.values())))):
        features = {name: _written(array[row : row + 1]) for name, array in arrays.items()}
        example = tf.train.Example(features=tf.train.Features(feature=features))
        made.append(example.SerializeToString())
    return made


def _feature(spec: tf.TensorSpec) -> Any:
    kind = _kind(spec.dtype)
    default = _default(spec.dtype)
    if default is None:  # nothing stands for a missing one: it must be there
        return tf.io.FixedLenFeature(spec.shape[1:], kind)
    return tf.io.FixedLenSequenceFeature((), kind, allow_missing=True, default_value=default)


def _shaped(values: tf.Tensor, spec: tf.TensorSpec, name: str) -> tf.Tensor:
    shape, default = tuple(spec.shape[1:]), _default(spec.dtype)
    if default is not None and shape != (None,):
        size, longest = math.prod(shape), tf.shape(values)[1]
        fits = tf.debugging.assert_less_equal(longest, size, f"feature {name} takes {size} values, an example has more")
        with tf.control_dependencies([fits]):
            missing = [[0, 0], [0, tf.maximum(size - longest, 0)]]
            values = tf.pad(values, missing, constant_values=tf.constant(default, values.dtype))
        values = tf.reshape(values, (-1, *shape))
    return tf.cast(values, spec.dtype) if spec.dtype != values.dtype else values


def _kind(dtype: tf.DType) -> tf.DType:
    return tf.string if dtype == tf.string else tf.float32 if dtype.is_floating else tf.int64


def _default(dtype: tf.DType) -> Any:
    try:
        return missing_value(dtype.name)
    except ValueError:
        return None


def _written(values: np.ndarray) -> tf.train.Feature:
    flat = values.reshape(-1)
    if flat.dtype == object:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=flat.tolist()))
    if tf.as_dtype(flat.dtype).is_floating:
        return tf.train.Feature(float_list=tf.train.FloatList(value=flat.astype(np.float32)))
    return tf.train.Feature(int64_list=tf.train.Int64List(value=flat.astype(np.int64)))
