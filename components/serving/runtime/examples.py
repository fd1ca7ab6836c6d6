"""Classify and Regress: convert tf.Examples to inputs of a signature, and its outputs to classes or regressions.

A signature with a single string input receives serialized Examples, as in TensorFlow Serving. For a signature with
named inputs, such as Exporter writes, each feature of the Examples is fed to the input of its name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kerasline.components.data.missing import missing_value
from kerasline.components.models.session import SavedModelSession
from kerasline.components.models.signatures import Signature, TensorSpec
from kerasline.components.serving.runtime.errors import RequestError, invalid

CLASSIFY_METHOD, REGRESS_METHOD = "tensorflow/serving/classify", "tensorflow/serving/regress"
CLASSES, SCORES, REGRESSIONS = "classes", "scores", "outputs"
Features = dict[str, list[Any]]  # values of an Example by feature: all int, all float or all bytes


def to_inputs(examples: Sequence[Features], signature: Signature, *, fills_missing: bool) -> list[np.ndarray]:
    """Return arrays in the order of `signature.inputs`. `fills_missing` pads missing values as Transform does."""
    if _takes_serialized(signature):
        array = np.empty(len(examples), object)
        array[:] = [_serialized(example) for example in examples]
        return [array]
    return [
        signature.defaults[name]
        if name in signature.defaults and not any(name in example for example in examples)
        else _column(examples, name, spec, fills_missing)
        for name, spec in signature.inputs.items()
    ]


def _takes_serialized(signature: Signature) -> bool:
    if len(signature.inputs) != 1:
        return False
    (spec,) = signature.inputs.values()
    return spec.is_string and (spec.shape is None or len(spec.shape) == 1)


def classes(
    session: SavedModelSession, signature: Signature, outputs: Sequence[np.ndarray], count: int
) -> tuple[list[list[str]] | None, np.ndarray | None]:
    """Return labels and scores, each of shape (examples, classes), or None if the model has none.

    A single score is that of the second of two classes.
    """
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
        if labels.dtype != object:
            raise invalid(f"Expected classes Tensor of DT_STRING. Got: {labels.dtype}")
        if scores is not None and scores.shape != labels.shape:
            raise invalid(
                f"Tensors class and score should match in dim_size(1). Got {labels.shape[1]} vs. {scores.shape[1]}"
            )
        return [[_text(one) for one in row] for row in labels.tolist()], scores
    names, width = session.class_names, scores.shape[1] if scores is not None else 0
    if names and len(names) == 2 and width == 1:
        names = names[1:]
    return ([names] * count if names and len(names) == width else None), scores


def regressions(signature: Signature, outputs: Sequence[np.ndarray], count: int) -> np.ndarray:
    """Return the regressions, of shape (examples,)."""
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


def _serialized(example: Features) -> bytes:
    from tensorflow.core.example import example_pb2

    proto = example_pb2.Example()
    for name, given in example.items():
        feature = proto.features.feature[name]
        if given:
            kind = {int: "int64_list", float: "float_list", bytes: "bytes_list"}[type(given[0])]
            getattr(feature, kind).value.extend(given)
    return proto.SerializeToString(deterministic=True)


def _column(examples: Sequence[Features], name: str, spec: TensorSpec, fills_missing: bool) -> np.ndarray:
    """Return one input from the feature of its name, of shape (examples, *other dimensions of the input)."""
    if spec.shape is None or not spec.is_batched:
        raise invalid(f"input {name} of shape {spec.text()} cannot be built from tf.Examples")
    sizes = spec.shape[1:]
    if sum(size is None for size in sizes) > 1:
        raise invalid(f"input {name} of shape {spec.text()} cannot be built from tf.Examples")
    rows = [example.get(name, []) for example in examples]
    length = max(map(len, rows)) if None in sizes else math.prod(size for size in sizes if size is not None)
    if None in sizes and length % math.prod(size for size in sizes if size):
        raise invalid(f"Feature: {name} has {length} values, which do not fit the shape {spec.text()}")
    filling = _filling(spec) if fills_missing else []
    flat: list[Any] = []
    for row in rows:
        if not row and not filling:
            raise invalid(f"Feature: {name} (data type: {spec.dtype}) is required but could not be found.")
        if len(row) > length or (len(row) < length and not filling):
            raise invalid(f"Feature: {name}: expected {length} values, received {len(row)}")
        flat += row + filling * (length - len(row))
    fixed = [-1 if size is None else size for size in sizes]
    return _typed(flat, name, spec).reshape(len(examples), *fixed)


def _filling(spec: TensorSpec) -> list[Any]:
    """Return a list of the fill value of a missing value, or an empty list if there is none."""
    try:
        return [missing_value("string" if spec.is_string else str(spec.dtype))]
    except ValueError:
        return []


def _typed(flat: list[Any], name: str, spec: TensorSpec) -> np.ndarray:
    kinds = {type(one) for one in flat}
    if spec.is_string and kinds <= {bytes}:
        array = np.empty(len(flat), object)
        array[:] = flat
        return array
    if spec.dtype.kind in "f" and kinds <= {int, float}:
        return np.array(flat, np.float64).astype(spec.dtype)
    if spec.dtype.kind in "iub" and kinds <= {int}:
        array = np.array(flat, np.int64)
        if spec.dtype.kind != "b" and not np.array_equal(array, array.astype(spec.dtype)):
            raise invalid(f"Feature: {name} has a value out of the range of {spec.dtype}")
        return array.astype(spec.dtype)
    received = ", ".join(sorted({int: "int64", float: "float", bytes: "bytes"}[kind] for kind in kinds))
    expected = "string" if spec.is_string else spec.dtype
    raise invalid(f"Feature: {name}: Data types don't match. Data type: {received} but expected type: {expected}")


def _only_float(signature: Signature, named: Mapping[str, np.ndarray], purpose: str) -> np.ndarray:
    floats = [array for array in named.values() if array.dtype.kind == "f"]
    if len(floats) != 1:
        raise RequestError(
            "FAILED_PRECONDITION",
            f"signature {signature.name} has {len(floats)} float outputs among {', '.join(named)}; {purpose} "
            "needs exactly one, or the names of TensorFlow Serving (classes, scores, outputs)",
        )
    return floats[0]


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")
