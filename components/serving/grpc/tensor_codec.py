"""TensorProto to arrays and back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kerasline.components.models.signatures import Signature, TensorSpec
from kerasline.components.serving.http.json_codec import check_shape
from kerasline.components.serving.runtime.errors import invalid

# Which field of TensorProto holds the values of a tensorflow.DataType when tensor_content does not.
_FIELDS = {
    1: "float_val",
    2: "double_val",
    3: "int_val",
    4: "int_val",
    5: "int_val",
    6: "int_val",
    7: "string_val",
    8: "scomplex_val",
    9: "int64_val",
    10: "bool_val",
    14: "half_val",
    17: "int_val",
    18: "dcomplex_val",
    19: "half_val",
    22: "uint32_val",
    23: "uint64_val",
}
_STRING = 7
# Tags of float_val and double_val, fields 5 and 6, packed.
_TAGS = {1: b"\x2a", 2: b"\x32"}
MANY = 32
_HALF_KINDS = (14, 19)
_COMPLEX_KINDS = (8, 18)
# Those whose values are a tensor's values.
_PLAIN_FIELDS = {kind: field for kind, field in _FIELDS.items() if kind not in _HALF_KINDS + _COMPLEX_KINDS}
# A dimension of size one in a TensorShapeProto.
_ONE = b"\x12\x02\x08\x01"


class OneRow:
    """A value for each input, to be made arrays: those of many requests at once, which is far cheaper."""

    __slots__ = ("_values", "_signature")
    rows = 1

    def __init__(self, values: list[Any], signature: Signature):
        self._values, self._signature = values, signature

    def arrays(self) -> list[np.ndarray]:
        """In the order of `signature.inputs`. Raises INVALID_ARGUMENT."""
        return self.arrays_with(())

    def arrays_with(self, others: Sequence[OneRow]) -> list[np.ndarray]:
        """The arrays of this row and then those of the others, of the same signature."""
        columns = zip(self._values, *[one._values for one in others])
        return [
            _flat(column, spec).reshape(-1, *[1] * (len(spec.shape) - 1))
            for column, spec in zip(columns, self._signature.inputs.values())
        ]


def predict_inputs(inputs: Mapping[str, Any], signature: Signature) -> OneRow | list[np.ndarray]:
    """What a PredictRequest asks about, as `predict_arrays` has it or to be made so.

    Raises INVALID_ARGUMENT; OneRow does so later, for a value out of range.
    """
    _check_names(inputs, signature)
    values = _single_values(inputs, signature)
    return _arrays(inputs, signature) if values is None else OneRow(values, signature)


def predict_arrays(inputs: Mapping[str, Any], signature: Signature) -> list[np.ndarray]:
    """The arrays of a PredictRequest, in the order of `signature.inputs`. Raises INVALID_ARGUMENT."""
    _check_names(inputs, signature)
    return _arrays(inputs, signature)


def _arrays(inputs: Mapping[str, Any], signature: Signature) -> list[np.ndarray]:
    return [from_proto(inputs[name], name, spec) for name, spec in signature.inputs.items()]


def _check_names(inputs: Mapping[str, Any], signature: Signature) -> None:
    if len(inputs) != len(signature.inputs) or any(name not in inputs for name in signature.inputs):
        missing = sorted(set(signature.inputs) - set(inputs))
        sent = sorted(set(inputs) - set(signature.inputs))
        raise invalid(
            f"input size does not match signature: {len(inputs)}!={len(signature.inputs)} "
            f"len({{{','.join(sorted(inputs))}}}) != len({{{','.join(signature.inputs)}}}). "
            f"Sent extra: {{{','.join(sent)}}}. Missing but required: {{{','.join(missing)}}}."
        )


def _single_values(inputs: Mapping[str, Any], signature: Signature) -> list[Any] | None:
    """Each input's only value, where each is a tensor of one row and one value, of the right type and shape."""
    values = []
    for name, spec in signature.inputs.items():
        proto, shape, field = inputs[name], spec.shape, _PLAIN_FIELDS.get(spec.data_type)
        if not shape or shape.count(None) + shape.count(1) < len(shape) or field is None:
            return None
        if proto.dtype != spec.data_type or proto.tensor_content:
            return None
        found = getattr(proto, field)
        if len(found) != 1 or proto.tensor_shape.SerializeToString() != _ONE * len(shape):
            return None
        values.append(found[0])
    return values


def from_proto(proto: Any, name: str, spec: TensorSpec) -> np.ndarray:
    """The array of a TensorProto, which must have the input's dtype and shape.

    Fewer values than the shape has places are allowed: the last one fills the rest, as in TensorFlow.
    """
    if proto.dtype != spec.data_type:
        raise invalid(f"input {name}: {_type_name(proto.dtype)} given, {_type_name(spec.data_type)} wanted")
    shape = tuple(dim.size for dim in proto.tensor_shape.dim)
    if proto.tensor_shape.unknown_rank or any(size < 0 for size in shape):
        raise invalid(f"input {name}: a tensor without a known shape")
    check_shape(shape, name, spec)
    size = math.prod(shape)
    content = proto.tensor_content
    if content:
        if spec.is_string or len(content) != size * spec.dtype.itemsize:
            raise invalid(f"input {name}: tensor_content of {len(content)} bytes for shape {list(shape)}")
        return np.frombuffer(content, spec.dtype).reshape(shape)
    values = getattr(proto, _FIELDS.get(spec.data_type, "float_val"))
    flat = _floats(proto, values, spec) if spec.data_type in _TAGS else _flat(values, spec)
    if len(flat) != size:
        if not len(flat) or len(flat) > size or size > max(1024, 64 * proto.ByteSize()):
            raise invalid(f"input {name}: {len(flat)} values for shape {list(shape)}")
        flat = np.concatenate([flat, np.repeat(flat[-1:], size - len(flat))])
    return flat.reshape(shape)


def to_proto(array: np.ndarray, data_type: int, proto: Any) -> None:
    """Fills a TensorProto. Values go into the typed fields, as TensorFlow Serving's do by default."""
    proto.dtype = data_type
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    if data_type in _HALF_KINDS:
        proto.half_val.extend(array.view(np.uint16).ravel().tolist())
    elif data_type in _COMPLEX_KINDS or data_type not in _FIELDS:
        proto.tensor_content = array.tobytes()
    else:
        getattr(proto, _FIELDS[data_type]).extend(array.ravel().tolist())


def fill_outputs(
    outputs: Mapping[str, Any], signature: Signature, arrays: Sequence[np.ndarray], wanted: Sequence[str]
) -> None:
    """Fills a PredictResponse's outputs: all, or those of the request's output_filter."""
    for name in wanted:
        if name not in signature.outputs:
            raise invalid(
                f"output tensor alias not found in signature: {name} Outputs expected to be in the set "
                f"{{{','.join(signature.outputs)}}}."
            )
    for (name, spec), array in zip(signature.outputs.items(), arrays):
        if not wanted or name in wanted:
            to_proto(array, spec.data_type, outputs[name])


def _floats(proto: Any, values: Any, spec: TensorSpec) -> np.ndarray:
    """The values of float_val or double_val; of many, without making a Python object of each.

    They are written after all else: a tag, their size, and then as they lie in memory, little-endian
    (https://protobuf.dev/programming-guides/encoding/#packed).
    """
    count = len(values)
    if count >= MANY:
        stored = spec.dtype.newbyteorder("<")
        size = count * stored.itemsize
        text = proto.SerializeToString()
        head = _TAGS[spec.data_type] + _varint(size)
        if text.startswith(head, len(text) - size - len(head)):
            return np.frombuffer(text, stored, count, len(text) - size).astype(spec.dtype)
    return _flat(values, spec)


def _varint(number: int) -> bytes:
    """https://protobuf.dev/programming-guides/encoding/#varints"""
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes([*found, number])


def _flat(values: Any, spec: TensorSpec) -> np.ndarray:
    if spec.data_type == _STRING:
        made = np.empty(len(values), object)
        made[:] = list(values)
        return made
    if spec.data_type in _HALF_KINDS:
        return np.array(values, np.uint16).view(spec.dtype)
    if spec.data_type in _COMPLEX_KINDS:
        pairs = np.array(values, np.float32 if spec.data_type == 8 else np.float64)
        return pairs.view(spec.dtype) if len(pairs) % 2 == 0 else pairs[:0].astype(spec.dtype)
    try:
        return np.array(values, spec.dtype)
    except OverflowError:
        raise invalid(f"a value is out of the range of {spec.dtype}") from None


def _type_name(number: int) -> str:
    import tensorflow as tf

    try:
        return f"DT_{tf.as_dtype(number).name.upper().replace('FLOAT32', 'FLOAT').replace('FLOAT64', 'DOUBLE')}"
    except TypeError:
        return f"data type {number}"
