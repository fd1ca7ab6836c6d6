"""Tensors in typed fields, as clients without TensorFlow write them."""

from __future__ import annotations

import numpy as np
import pytest

from kerasline.components.models.signatures import Signature, TensorSpec
from kerasline.components.serving.runtime import tensor_codec

FIELDS = {np.float32: (1, "float_val"), np.float64: (2, "double_val")}


def tensor(dtype, values, shape):
    from tensorflow.core.framework.tensor_pb2 import TensorProto

    number, field = FIELDS[dtype]
    made = TensorProto(dtype=number)
    for size in shape:
        made.tensor_shape.dim.add(size=size)
    getattr(made, field).extend(values)
    return made, TensorSpec("x:0", number, np.dtype(dtype), (None,) * len(shape))


@pytest.mark.parametrize("dtype", FIELDS)
@pytest.mark.parametrize("rows", [0, 1, 31, 32, 33, 5000])
def test_typed_fields_are_read_exactly(dtype, rows):
    values = np.random.default_rng(rows).normal(size=(rows, 2)).astype(dtype)
    values[: rows // 3] *= np.array([np.inf, -0.0], dtype)
    values[rows // 3 : rows // 2] = np.nan
    proto, spec = tensor(dtype, values.ravel(), values.shape)
    for given in (proto, type(proto).FromString(proto.SerializeToString())):
        found = tensor_codec.from_proto(given, "x", spec)
        assert found.dtype == dtype and found.flags.writeable
        np.testing.assert_array_equal(found, values)
        np.testing.assert_array_equal(np.signbit(found), np.signbit(values))


@pytest.mark.parametrize("dtype", FIELDS)
def test_fields_after_the_floats_are_ignored(dtype):
    values = np.arange(40, dtype=dtype)
    proto, spec = tensor(dtype, values, (40,))
    proto.string_val.append(b"\x2a\xa0\x01" + bytes(160))
    proto.uint64_val.extend([1, 2, 3])
    np.testing.assert_array_equal(tensor_codec.from_proto(proto, "x", spec), values)


@pytest.mark.parametrize("dtype", FIELDS)
def test_numbers_of_values_differ_from_the_shape_as_in_tensorflow(dtype):
    """`tf.make_ndarray` is stricter; Tensor::FromProto, by which TensorFlow Serving reads requests, is not."""
    proto, spec = tensor(dtype, np.arange(40.0), (43,))
    np.testing.assert_array_equal(tensor_codec.from_proto(proto, "x", spec), [*range(40), 39, 39, 39])
    proto, spec = tensor(dtype, np.arange(40.0), (39,))
    np.testing.assert_array_equal(tensor_codec.from_proto(proto, "x", spec), np.arange(39.0))
    proto, spec = tensor(dtype, np.arange(0.0), (3,))
    np.testing.assert_array_equal(tensor_codec.from_proto(proto, "x", spec), np.zeros(3))


@pytest.mark.parametrize("dtype", FIELDS)
def test_bytes_of_filled_elements_are_counted(dtype):
    proto, spec = tensor(dtype, np.arange(3.0), (1 << 30, 2))
    signature = Signature("serving_default", "", {"x": spec}, {})
    assert tensor_codec.filled_bytes({"x": proto}, signature) == (2**31 - 3) * np.dtype(dtype).itemsize
