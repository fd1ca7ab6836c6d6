"""Classify and Regress: from tf.Examples to a signature's inputs, from its outputs to classes and values.

TensorFlow Serving hands serialised Examples to the one string input of a signature made for it. So do
we; and where a signature takes named features, as Exporter's does, the Examples' features become them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kerasline.components.data.missing import missing_value
from kerasline.components.models.session import SavedModelSession
from kerasline.components.models.signatures import Signature, TensorSpec
from kerasline.components.serving.http.json_codec import decode_base64, is_base64, shown
from kerasline.components.serving.runtime.errors import RequestError, invalid

CLASSIFY_METHOD, REGRESS_METHOD = "tensorflow/serving/classify", "tensorflow/serving/regress"
CLASSES, SCORES, REGRESSIONS = "classes", "scores", "outputs"
Features = dict[str, list[Any]]  # an Example: each feature's values, all int, all float or all bytes


def from_json(document: Mapping[str, Any]) -> list[Features]:
    """The Examples of a REST request, each with the features of its `context`."""
    context = document.get("context")
    shared = {} if context is None else _features(context)
    if "examples" not in document:
        raise invalid(
            f"JSON Value: {shown(document)} When method is classify, key 'examples' is expected and was not found"
        )
    examples = document["examples"]
    if type(examples) is not list:
        raise invalid(f"JSON Value: {shown(examples)} Expecting 'examples' value to be an list/array")
    if not examples:
        raise invalid("JSON Value: [] 'examples' value is an empty array")
    return [{**shared, **_features(example)} for example in examples]


def from_proto(given: Any) -> list[Features]:
    """The Examples of a gRPC request's `Input`."""
    kind = given.WhichOneof("kind")
    if kind is None:
        raise invalid("Input is empty.")
    chosen = getattr(given, kind)
    if not chosen.examples:
        raise invalid("Input is empty.")
    shared = _proto_features(chosen.context) if kind == "example_list_with_context" else {}
    return [{**shared, **_proto_features(example)} for example in chosen.examples]


def to_inputs(examples: Sequence[Features], signature: Signature, *, fills_missing: bool) -> list[np.ndarray]:
    """The arrays in the order of `signature.inputs`."""
    if takes_serialised(signature):
        made = np.empty(len(examples), object)
        made[:] = [_serialised(example) for example in examples]
        return [made]
    return [_column(examples, name, spec, fills_missing) for name, spec in signature.inputs.items()]


def takes_serialised(signature: Signature) -> bool:
    if len(signature.inputs) != 1:
        return False
    (spec,) = signature.inputs.values()
    return spec.is_string and (spec.shape is None or len(spec.shape) == 1)


def classes(
    session: SavedModelSession, signature: Signature, outputs: Sequence[np.ndarray], count: int
) -> tuple[list[list[str]] | None, np.ndarray | None]:
    """Labels and scores, each of shape (examples, classes), or None where the model gives none."""
    if signature.method == REGRESS_METHOD:
        raise invalid(f"Expected classification signature method_name to be {CLASSIFY_METHOD}. Was: {signature.method}")
    named = dict(zip(signature.outputs, outputs))
    labels, scores = named.get(CLASSES), named.get(SCORES)
    if labels is None and scores is None:
        scores = _only_float(signature, named, "classification")
    for kind, found in (("classes", labels), ("scores", scores)):
        if found is not None and (found.ndim != 2 or len(found) != count):
            raise invalid(f"Expected {kind} Tensor shape: [batch_size num_classes] but got {list(found.shape)}")
    if labels is not None:
        return [[_text(one) for one in row] for row in labels.tolist()], scores
    names = session.class_names
    if names and scores is not None and len(names) == scores.shape[1]:
        return [names] * count, scores
    return None, scores


def values(signature: Signature, outputs: Sequence[np.ndarray], count: int) -> np.ndarray:
    """The regressions, of shape (examples,)."""
    if signature.method == CLASSIFY_METHOD:
        raise invalid(f"Expected regression signature method_name to be {REGRESS_METHOD}. Was: {signature.method}")
    named = dict(zip(signature.outputs, outputs))
    found = named.get(REGRESSIONS)
    if found is None:
        found = _only_float(signature, named, "regression")
    if not (found.ndim == 1 or (found.ndim == 2 and found.shape[1] == 1)) or len(found) != count:
        raise invalid(
            f"Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got {list(found.shape)}"
        )
    return found.reshape(-1)


def _features(example: Any) -> Features:
    if type(example) is not dict:
        kinds = {list: "Array", str: "String", type(None): "Null", bool: "Bool"}
        raise invalid(f"Example must be JSON object but got JSON {kinds.get(type(example), 'Number')}")
    return {name: _feature(name, value if type(value) is list else [value]) for name, value in example.items()}


def _feature(name: str, given: list[Any]) -> list[Any]:
    made = [_value(name, one) for one in given]
    if made and any(type(one) is not type(made[0]) for one in made):
        kind = {int: "int64", float: "float", bytes: "bytes"}[type(made[0])]
        raise invalid(f"Unexpected element type in feature: {name} expecting type: {kind}")
    return made


def _value(name: str, value: Any) -> Any:
    if type(value) is bool:
        return int(value)
    if type(value) is int:
        if not -(2**63) <= value < 2**63:
            raise invalid(f"Feature: {name} has uint64 element. Only int64 is supported.")
        return value
    if type(value) is float:
        return value
    if type(value) is str:
        return value.encode("utf-8", "surrogatepass")
    if is_base64(value):
        return decode_base64(value)
    kind = {dict: "Object", list: "Array", type(None): "Null"}[type(value)]
    raise invalid(f"Feature: {name} has element with unexpected JSON type: {kind}")


def _proto_features(example: Any) -> Features:
    made = {}
    for name, feature in example.features.feature.items():
        kind = feature.WhichOneof("kind")
        made[name] = list(getattr(feature, kind).value) if kind else []
    return made


def _serialised(example: Features) -> bytes:
    from tensorflow.core.example import example_pb2

    proto = example_pb2.Example()
    for name, given in example.items():
        feature = proto.features.feature[name]
        if given:
            kind = {int: "int64_list", float: "float_list", bytes: "bytes_list"}[type(given[0])]
            getattr(feature, kind).value.extend(given)
    return proto.SerializeToString(deterministic=True)


def _column(examples: Sequence[Features], name: str, spec: TensorSpec, fills_missing: bool) -> np.ndarray:
    """One input from the feature of its name; shape (examples, *the input's other dimensions)."""
    if spec.shape is None or not spec.is_batched:
        raise invalid(f"input {name} of shape {spec.text()} cannot be made from tf.Examples")
    sizes = spec.shape[1:]
    if sum(size is None for size in sizes) > 1:
        raise invalid(f"input {name} of shape {spec.text()} cannot be made from tf.Examples")
    rows = [example.get(name, []) for example in examples]
    length = max(map(len, rows)) if None in sizes else math.prod(sizes)
    if None in sizes and length % math.prod(size for size in sizes if size):
        raise invalid(f"Feature: {name} has {length} values, which fill no {spec.text()}")
    filling = _filling(spec) if fills_missing else []
    flat = []
    for row in rows:
        if not row and not filling:
            raise invalid(f"Feature: {name} (data type: {spec.dtype}) is required but could not be found.")
        if len(row) > length or (len(row) < length and not filling):
            raise invalid(f"Feature: {name} has {len(row)} values, {length} wanted")
        flat += row + filling * (length - len(row))
    fixed = [-1 if size is None else size for size in sizes]
    return _typed(flat, name, spec).reshape(len(examples), *fixed)


def _filling(spec: TensorSpec) -> list[Any]:
    """What stands for a missing value, if anything does, as one or no element."""
    try:
        return [missing_value("string" if spec.is_string else str(spec.dtype))]
    except ValueError:
        return []


def _typed(flat: list[Any], name: str, spec: TensorSpec) -> np.ndarray:
    kinds = {type(one) for one in flat}
    if spec.is_string and kinds <= {bytes}:
        made = np.empty(len(flat), object)
        made[:] = flat
        return made
    if spec.dtype.kind in "f" and kinds <= {int, float}:
        return np.array(flat, np.float64).astype(spec.dtype)
    if spec.dtype.kind in "iub" and kinds <= {int}:
        made = np.array(flat, np.int64)
        if spec.dtype.kind != "b" and not np.array_equal(made, made.astype(spec.dtype)):
            raise invalid(f"Feature: {name} has a value out of the range of {spec.dtype}")
        return made.astype(spec.dtype)
    given = ", ".join(sorted({int: "int64", float: "float", bytes: "bytes"}[kind] for kind in kinds))
    wanted = "string" if spec.is_string else spec.dtype
    raise invalid(f"Feature: {name}: Data types don't match. Data type: {given} but expected type: {wanted}")


def _only_float(signature: Signature, named: Mapping[str, np.ndarray], purpose: str) -> np.ndarray:
    floats = [array for array in named.values() if array.dtype.kind == "f"]
    if len(floats) != 1:
        raise RequestError(
            "FAILED_PRECONDITION",
            f"signature {signature.name} has {len(floats)} outputs of floats, {', '.join(named)}; {purpose} "
            "needs one, or TensorFlow Serving's names (classes, scores, outputs)",
        )
    return floats[0]


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")
