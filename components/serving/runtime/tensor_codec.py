"""Convert TensorProtos and Examples to arrays and back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kerasline.components.models.signatures import Signature, TensorSpec
from kerasline.components.serving.runtime.errors import invalid
from kerasline.components.serving.runtime.examples import Features
from kerasline.components.serving.runtime.signatures import check_shape

# Field of TensorProto that holds values of each tensorflow.DataType if tensor_content is empty.
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
# Wire-format tags of the packed fields float_val (5) and double_val (6).
_TAGS = {1: b"\x2a", 2: b"\x32"}
# From this many floats on, read the serialized bytes instead of one Python object per value.
MANY = 32
_HALF_KINDS = (14, 19)
_COMPLEX_KINDS = (8, 18)
# Fields whose values are the values of the tensor.
_PLAIN_FIELDS = {kind: field for kind, field in _FIELDS.items() if kind not in _HALF_KINDS + _COMPLEX_KINDS}
# Convert longer fields in parts, between which other requests are answered.
PART_VALUES = 1 << 14
# A dimension of size 1 in a serialized TensorShapeProto.
_ONE = b"\x12\x02\x08\x01"


class OneRow:
    """One value for each input, converted to arrays later: converting many requests at once is far cheaper."""

    __slots__ = ("_values", "_signature")
    rows = 1

    def __init__(self, values: list[Any], signature: Signature):
        self._values, self._signature = values, signature

    def arrays(self) -> list[np.ndarray]:
        """Return the arrays in the order of `signature.inputs`. Raise INVALID_ARGUMENT for a value out of range."""
        return self.arrays_with(())

    def arrays_with(self, others: Sequence[OneRow]) -> list[np.ndarray]:
        """Return the arrays of this row followed by those of the others, which have the same signature."""
        columns = zip(self._values, *[one._values for one in others])
        return [
            _flat(column, spec).reshape(-1, *[1] * (len(spec.shape or ()) - 1))
            for column, spec in zip(columns, self._signature.inputs.values())
        ]


def check_names(inputs: Mapping[str, Any], signature: Signature) -> None:
    """Raise INVALID_ARGUMENT for missing inputs without a default, and for unknown inputs."""
    missing = [name for name in signature.inputs if name not in inputs and name not in signature.defaults]
    extra = [] if len(inputs) <= len(signature.inputs) and not missing else sorted(set(inputs) - set(signature.inputs))
    if missing or extra:
        raise invalid(
            f"input size does not match signature: {len(inputs)}!={len(signature.inputs)} "
            f"len({{{','.join(sorted(inputs))}}}) != len({{{','.join(signature.inputs)}}}). "
            f"Sent extra: {{{','.join(extra)}}}. Missing but required: {{{','.join(missing)}}}."
        )


def single_row(inputs: Mapping[str, Any], signature: Signature) -> OneRow | None:
    """Return the inputs of a PredictRequest if each is a tensor of one value of the right type and shape, or None."""
    values = []
    for name, spec in signature.inputs.items():
        if name not in inputs:  # it has a default
            return None
        proto, shape, field = inputs[name], spec.shape, _PLAIN_FIELDS.get(spec.data_type)
        if not shape or shape.count(None) + shape.count(1) < len(shape) or field is None:
            return None
        if proto.dtype != spec.data_type or proto.tensor_content:
            return None
        found = getattr(proto, field)
        if len(found) != 1 or proto.tensor_shape.SerializeToString() != _ONE * len(shape):
            return None
        values.append(found[0])
    return OneRow(values, signature)


def filled_bytes(inputs: Mapping[str, Any], signature: Signature) -> int:
    """Return the size of the elements that the request does not contain, and that the last value or zeros fill."""
    total = 0
    for name, proto in inputs.items():
        spec = signature.inputs[name]
        if not proto.tensor_content:
            size = math.prod(max(0, dim.size) for dim in proto.tensor_shape.dim)
            total += max(0, size - len(getattr(proto, _field(spec)))) * spec.dtype.itemsize
    return total


def predict_arrays(inputs: Mapping[str, Any], signature: Signature) -> list[np.ndarray]:
    """Return the arrays of a PredictRequest, which `check_names` accepts, in the order of `signature.inputs`.

    Raises:
        RequestError: INVALID_ARGUMENT for another dtype or shape.
    """
    return [
        from_proto(inputs[name], name, spec) if name in inputs else signature.defaults[name]
        for name, spec in signature.inputs.items()
    ]


def read_examples(given: Any) -> list[Features]:
    """Return the Examples of a request's `Input`, each including the features of the context."""
    kind = given.WhichOneof("kind")
    if kind is None:
        raise invalid("Input is empty.")
    chosen = getattr(given, kind)
    if not chosen.examples:
        raise invalid("Input is empty.")
    shared = _proto_features(chosen.context) if kind == "example_list_with_context" else {}
    return [{**shared, **_proto_features(example)} for example in chosen.examples]


def from_proto(proto: Any, name: str, spec: TensorSpec) -> np.ndarray:
    """Return the array of a TensorProto, which must have the dtype and shape of the input.

    As in TensorFlow, the last value fills the rest if there are fewer values than elements, zeros or empty texts fill
    a tensor without values, and values beyond the last element are ignored. `filled_bytes` limits how much is filled.
    """
    if proto.dtype != spec.data_type:
        raise invalid(f"input {name}: expected {_type_name(spec.data_type)}, received {_type_name(proto.dtype)}")
    shape = tuple(dim.size for dim in proto.tensor_shape.dim)
    if proto.tensor_shape.unknown_rank or any(size < 0 for size in shape):
        raise invalid(f"input {name}: expected a tensor of known shape, received an unknown one")
    check_shape(shape, name, spec)
    size = math.prod(shape)
    content = proto.tensor_content
    if content:
        if spec.is_string or len(content) != size * spec.dtype.itemsize:
            raise invalid(f"input {name}: tensor_content of {len(content)} bytes for shape {list(shape)}")
        return np.frombuffer(content, spec.dtype).reshape(shape)
    values = getattr(proto, _field(spec))
    flat = _floats(proto, values, spec) if spec.data_type in _TAGS else _flat(values, spec)
    if len(flat) < size:
        filling = flat[-1:] if len(flat) else np.array([b""], object) if spec.is_string else np.zeros(1, spec.dtype)
        flat = np.concatenate([flat, np.repeat(filling, size - len(flat))])
    return flat[:size].reshape(shape)


def _field(spec: TensorSpec) -> str:
    return _FIELDS.get(spec.data_type, "float_val")


def to_proto(array: np.ndarray, data_type: int, proto: Any) -> None:
    """Fill a TensorProto. Values go into the typed fields, as in TensorFlow Serving by default."""
    proto.dtype = data_type
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    if data_type in _HALF_KINDS:
        proto.half_val.extend(array.view(np.uint16).ravel().tolist())
    elif data_type in _COMPLEX_KINDS or data_type not in _FIELDS:
        proto.tensor_content = array.tobytes()
    else:
        getattr(proto, _FIELDS[data_type]).extend(array.ravel().tolist())


def check_output_filter(output_filter: Sequence[str], signature: Signature) -> None:
    """Raise INVALID_ARGUMENT for unknown outputs, and for one that is named twice."""
    for number, name in enumerate(output_filter):
        if name not in signature.outputs:
            raise invalid(
                f"output tensor alias not found in signature: {name} Outputs expected to be in the set "
                f"{{{','.join(signature.outputs)}}}."
            )
        if name in output_filter[:number]:
            raise invalid(f"duplicate output tensor alias: {name}")


def fill_outputs(
    outputs: Mapping[str, Any], signature: Signature, arrays: Sequence[np.ndarray], output_filter: Sequence[str]
) -> None:
    """Fill the outputs of a PredictResponse: all, or those in the request's output_filter."""
    for (name, spec), array in zip(signature.outputs.items(), arrays):
        if not output_filter or name in output_filter:
            to_proto(array, spec.data_type, outputs[name])


def _floats(proto: Any, values: Any, spec: TensorSpec) -> np.ndarray:
    """Return the values of float_val or double_val, without a Python object for each if there are many.

    Serialized, they are at the end of the message: tag, size in bytes, then the little-endian values
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


def _proto_features(example: Any) -> Features:
    features: Features = {}
    for name, feature in example.features.feature.items():
        kind = feature.WhichOneof("kind")
        features[name] = list(getattr(feature, kind).value) if kind else []
    return features


def _varint(number: int) -> bytes:
    """https://protobuf.dev/programming-guides/encoding/#varints"""
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes([*found, number])


def _flat(values: Any, spec: TensorSpec) -> np.ndarray:
    if spec.data_type == _STRING:
        texts = np.empty(len(values), object)
        texts[:] = list(values)
        return texts
    if spec.data_type in _HALF_KINDS:
        return np.array(values, np.uint16).view(spec.dtype)
    if spec.data_type in _COMPLEX_KINDS:
        pairs = np.array(values, np.float32 if spec.data_type == 8 else np.float64)
        return pairs.view(spec.dtype) if len(pairs) % 2 == 0 else pairs[:0].astype(spec.dtype)
    try:
        if len(values) <= PART_VALUES:
            return np.array(values, spec.dtype)
        starts = range(0, len(values), PART_VALUES)
        return np.concatenate([np.array(values[start : start + PART_VALUES], spec.dtype) for start in starts])
    except OverflowError:
        raise invalid(f"a value is out of the range of {spec.dtype}") from None


def _type_name(number: int) -> str:
    import tensorflow as tf

    try:
        return f"DT_{tf.as_dtype(number).name.upper().replace('FLOAT32', 'FLOAT').replace('FLOAT64', 'DOUBLE')}"
    except TypeError:
        return f"data type {number}"
