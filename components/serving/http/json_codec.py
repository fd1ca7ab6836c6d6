"""Convert JSON to arrays and back, in TensorFlow Serving's row (`instances`) and column (`inputs`) formats.

A float input accepts integers; an integer input does not accept floats; neither accepts text. `NaN`, `Infinity` and
`-Infinity` are read and written as bare tokens, and `Inf` is read, as in TensorFlow Serving. A float32 is written with
the fewest digits that read back as the same float32.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import orjson

from kerasline.components.models.signatures import Signature, TensorSpec
from kerasline.components.serving.runtime.errors import RequestError, invalid
from kerasline.components.serving.runtime.examples import Features
from kerasline.components.serving.runtime.signatures import check_shape

# Most lists, objects and keys in a document. Parsing them stops all other requests for some 0.1 microseconds each.
MAX_STRUCTURES = 2_000_000
_STRUCTURES = (b"[", b"{", b":")
# Convert longer lists in parts, between which other requests are answered.
PART_VALUES = 1 << 14
# The floats of a tf.Example are float32.
MAX_FLOAT32 = float(np.finfo(np.float32).max)
# Longest excerpt of a value in an error message.
EXCERPT_CHARACTERS = 120
_JSON_KINDS = {dict: "Object", list: "Array", str: "String", bool: "Bool", type(None): "Null"}
# A string or a null. Matching whole strings skips the word null inside them.
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"')
_STRING_OR_INF = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|\bInf\b')
_STRING_OR_NULL = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|null')
# Kinds of NumPy arrays that JSON values may form, by the kind of the input's dtype.
_KINDS = {"f": "fiu", "i": "iu", "u": "iu", "b": "b"}
_TOKENS = {"nan": b"NaN", "inf": b"Infinity", "-inf": b"-Infinity"}


def parse(body: bytes | bytearray) -> dict[str, Any]:
    """Parse the document, which must be an object. Raise INVALID_ARGUMENT otherwise."""
    body = body.removeprefix(codecs.BOM_UTF8)
    if len(body) > MAX_STRUCTURES and _count_structures(body) > MAX_STRUCTURES:
        raise RequestError(
            "INVALID_ARGUMENT",
            f"the JSON document has more than {MAX_STRUCTURES} lists, objects and keys; send fewer rows at once, or "
            "use gRPC",
            http_status=413,
        )
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        document = _parse_with_tokens(body, error)
    if type(document) is not dict:
        raise invalid(f"JSON Value: {excerpt(document)} Is not object")
    return document


def _count_structures(body: bytes | bytearray) -> int:
    """Return the number of lists, objects and keys. Count those in strings only if the document seems to have many."""
    count = sum(map(body.count, _STRUCTURES))
    return count if count <= MAX_STRUCTURES else sum(map(_STRING.sub(b"", body).count, _STRUCTURES))


def signature_name(document: Mapping[str, Any]) -> str:
    name = document.get("signature_name", "")
    if type(name) is not str:
        raise invalid(
            f"JSON Value: {excerpt(document)} not formatted correctly. 'signature_name' key must be a string value."
        )
    return name


class Rows:
    """The `instances` of a request, converted to arrays later: converting many requests at once is far cheaper."""

    __slots__ = ("rows", "_given", "_signature")

    def __init__(self, given: list[Any], signature: Signature):
        self.rows, self._given, self._signature = len(given), given, signature

    def arrays(self) -> list[np.ndarray]:
        """Return the arrays in the order of `signature.inputs`. Raise INVALID_ARGUMENT for wrong values."""
        return _from_rows(self._given, self._signature)

    def arrays_with(self, others: Sequence[Rows]) -> list[np.ndarray]:
        """Return the arrays of these rows followed by those of the others, which have the same signature."""
        return _from_rows([row for one in (self, *others) for row in one._given], self._signature)


def predict_inputs(document: Mapping[str, Any], signature: Signature) -> tuple[Rows | list[np.ndarray], bool]:
    """Return the inputs of a Predict request, and whether they came as rows.

    Returns:
        Rows for the row format, otherwise a list of arrays in the order of `signature.inputs`; and True for the row
        format.

    Raises:
        RequestError: INVALID_ARGUMENT. For rows with wrong values, this is raised on conversion to arrays.
    """
    if "instances" in document:
        if "inputs" in document:
            raise invalid(
                f"JSON Value: {excerpt(document)} Not formatted correctly expecting only one of 'inputs' or "
                "'instances' keys to exist "
            )
        given = document["instances"]
        if type(given) is not list:
            raise invalid(f"JSON Value: {excerpt(given)} Excepting 'instances' to be an list/array")
        if not given:
            raise invalid("JSON Value: [] No values in 'instances' array")
        return Rows(given, signature), True
    if "inputs" in document:
        return _from_columns(document["inputs"], signature), False
    raise invalid("Missing 'inputs' or 'instances' key")


def read_examples(document: Mapping[str, Any]) -> list[Features]:
    """Return the Examples of a Classify or Regress request, each including the features of `context`."""
    context = document.get("context")
    shared = {} if context is None else _example_features(context)
    if "examples" not in document:
        raise invalid(
            f"JSON Value: {excerpt(document)} When method is classify, key 'examples' is expected and was not found"
        )
    examples = document["examples"]
    if type(examples) is not list:
        raise invalid(f"JSON Value: {excerpt(examples)} Expecting 'examples' value to be an list/array")
    if not examples:
        raise invalid("JSON Value: [] 'examples' value is an empty array")
    return [{**shared, **_example_features(example)} for example in examples]


def predict_response(names: Sequence[str], arrays: Sequence[np.ndarray], *, rows: bool) -> bytes:
    """Return the body of a Predict response, in the format of the request."""
    columns = [_as_serializable(array, binary=name.endswith("_bytes")) for name, array in zip(names, arrays)]
    if not rows:
        value = columns[0] if len(columns) == 1 else dict(zip(names, columns))
        return write({"outputs": value})
    for name, array in zip(names, arrays):
        if array.ndim == 0:
            raise invalid(f"Tensor name: {name} has no shape information ")
        if len(array) != len(arrays[0]):
            raise invalid(f"Tensor name: {name} has inconsistent batch size: {len(array)} expecting: {len(arrays[0])}")
    if len(columns) == 1:
        return write({"predictions": columns[0]})
    return write({"predictions": [dict(zip(names, row)) for row in zip(*columns)]})


def only_row(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Return the values of arrays of one row, in the form of a row of `predictions`."""
    return {name: _as_serializable(array, binary=name.endswith("_bytes"))[0] for name, array in arrays.items()}


def write(value: Any) -> bytes:
    """Serialize Python values and arrays. Write NaN and the infinities as bare tokens."""
    text = orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
    if b"null" not in text:  # orjson writes NaN and the infinities as null; responses have no other null
        return text
    tokens = _tokens(value)
    return _STRING_OR_NULL.sub(lambda found: next(tokens) if found[0] == b"null" else found[0], text)


def _parse_with_tokens(body: bytes | bytearray, error: orjson.JSONDecodeError) -> Any:
    """Parse with the standard library, which is slower but accepts NaN and Infinity."""
    if not body:
        raise invalid("JSON Parse error: The document is empty") from error
    if b"NaN" in body or b"Inf" in body:
        try:
            return json.loads(_STRING_OR_INF.sub(lambda found: b"Infinity" if found[0] == b"Inf" else found[0], body))
        except RecursionError:
            raise invalid("JSON Parse error: nested too deeply") from error
        except (ValueError, UnicodeDecodeError):
            pass
    raise invalid(f"JSON Parse error: {error.msg} at offset: {error.pos}") from error


def _from_rows(rows: list[Any], signature: Signature) -> list[np.ndarray]:
    inputs, defaults = signature.inputs, signature.defaults
    if type(rows[0]) is dict and not is_base64(rows[0]):
        given = [name for name in inputs if name in rows[0] or name not in defaults] if defaults else inputs
        try:
            columns = {name: [row[name] for row in rows] for name in given}
            count = len(given)
            exact = all([len(row) == count for row in rows])
        except (KeyError, TypeError, IndexError):
            exact = False
        if not exact:
            raise _key_mismatch(rows, signature)
        return [
            to_array(columns[name], name, spec) if name in columns else defaults[name] for name, spec in inputs.items()
        ]
    if len(inputs) != 1:
        raise invalid(
            "instances is a plain list, but expecting list of objects as multiple input tensors required "
            "as per tensorinfo_map"
        )
    ((name, spec),) = inputs.items()
    return [to_array(rows, name, spec)]


def _key_mismatch(rows: list[Any], signature: Signature) -> RequestError:
    """Return the error for the first row whose keys do not match the inputs of the signature."""
    names = set(signature.inputs)
    for number, row in enumerate(rows):
        if type(row) is not dict:
            return invalid(f"Expecting object but got list at item {number} of input list")
        for name in row:
            if name not in names:
                return invalid(
                    f"Failed to process element: {number} key: {name} of 'instances' list. Error: "
                    f"INVALID_ARGUMENT: JSON object: does not have named input: {name}"
                )
        if set(row) != names:
            return invalid(
                f"Failed to process element: {number} of 'instances' list. JSON object: {excerpt(row)} "
                f"keys must be equal to: {','.join(sorted(names))}"
            )
    return invalid("'instances' do not match the inputs of the signature")


def _from_columns(value: Any, signature: Signature) -> list[np.ndarray]:
    inputs = signature.inputs
    if type(value) is not dict or is_base64(value):
        if len(inputs) != 1:
            raise invalid(
                "inputs is a plain value/list, but expecting an object as multiple input tensors required "
                "as per tensorinfo_map"
            )
        ((name, spec),) = inputs.items()
        return [to_array(value, name, spec)]
    for name in inputs:
        if name not in value and name not in signature.defaults:
            raise invalid(f"Missing named input: {name} in 'inputs' object.")
    return [
        to_array(value[name], name, spec) if name in value else signature.defaults[name]
        for name, spec in inputs.items()
    ]


def to_array(value: Any, name: str, spec: TensorSpec) -> np.ndarray:
    """Convert a JSON value to an array with the dtype and shape of the input. Raise INVALID_ARGUMENT otherwise."""
    try:
        with np.errstate(over="raise"):
            converted = _texts(value) if spec.is_string else _numbers(value, spec.dtype)
    except FloatingPointError:
        raise invalid(f"input {name}: Cannot convert JSON value to {spec.dtype} without loss of precision.") from None
    except (ValueError, OverflowError) as error:  # raised by NumPy for lists of unequal length
        raise invalid(f"input {name}: lists of unequal length or depth, or numbers too large") from error
    except RequestError as error:
        raise RequestError(error.code, f"input {name}: {error}") from None
    if converted.ndim == 1 and spec.shape == (None, 1):
        converted = converted[:, None]  # a value for each row, as Exporter feeds a column of values
    check_shape(converted.shape, name, spec)
    return converted


def _numbers(value: Any, dtype: np.dtype) -> np.ndarray:
    kinds = _KINDS.get("f" if dtype.name == "bfloat16" else dtype.kind)
    if kinds is None:
        raise RequestError("UNIMPLEMENTED", f"JSON cannot represent {dtype}; use gRPC")
    # Given one string among numbers, NumPy would convert all to strings as long as the longest.
    given = _as_array(value) if _has_only_numbers(value) else None
    if given is None or (given.dtype.kind not in kinds and given.size):
        for mismatch in _mismatches(value, kinds):
            kind = _JSON_KINDS.get(type(mismatch), "Number")
            raise invalid(f"JSON Value: {excerpt(mismatch)} Type: {kind} is not of expected type: {dtype}")
        given = np.array(value, dtype)  # for numbers beyond and below 2**63, NumPy's own choice is float64
    return _as_integers(given, dtype) if dtype.kind in "iu" else given.astype(dtype)


def _as_array(value: Any) -> np.ndarray:
    if type(value) is not list or len(value) <= PART_VALUES:
        return np.array(value)
    parts = [np.array(value[start : start + PART_VALUES]) for start in range(0, len(value), PART_VALUES)]
    return np.concatenate(parts)


def _has_only_numbers(value: Any) -> bool:
    """Return whether nested lists contain only numbers and booleans."""
    pending = [value]
    while pending:
        one = pending.pop()
        if type(one) is list:
            try:
                sum(one)  # five times faster than checking each type
            except TypeError:
                pending += one
            except OverflowError:  # still numbers
                pass
        elif not isinstance(one, (int, float)):
            return False
    return True


def _as_integers(given: np.ndarray, dtype: np.dtype) -> np.ndarray:
    if given.dtype != dtype and given.size:
        bounds = np.iinfo(dtype)
        if int(given.min()) < bounds.min or int(given.max()) > bounds.max:
            raise invalid(f"JSON Value: {given.max()} Type: Number is not of expected type: {dtype}")
    return given.astype(dtype)


def _mismatches(value: Any, kinds: str) -> Iterator[Any]:
    """Yield the values in nested lists that are not of the expected kinds, in order."""
    types = [kind for kind, code in ((bool, "b"), (int, "i"), (float, "f")) if code in kinds]
    pending = [value]
    while pending:
        one = pending.pop()
        if type(one) is list:
            pending.extend(reversed(one))
        elif type(one) not in types:
            yield one


def _texts(value: Any) -> np.ndarray:
    given = np.array(value, dtype=object)
    flat = [_as_bytes(one) for one in given.ravel().tolist()]
    converted = np.empty(len(flat), object)
    converted[:] = flat
    return converted.reshape(given.shape)


def _as_bytes(value: Any) -> bytes:
    if type(value) is str:
        try:
            return value.encode()
        except UnicodeEncodeError:
            raise invalid("a string contains a lone surrogate") from None
    if is_base64(value):
        return decode_base64(value)
    kind = _JSON_KINDS.get(type(value), "Number")
    if kind == "Array":
        raise invalid("lists of unequal length or depth")
    if kind == "Object":
        raise invalid(f"JSON Value: {excerpt(value)} not formatted correctly for base64 data")
    raise invalid(f"JSON Value: {excerpt(value)} Type: {kind} is not of expected type: string")


def is_base64(value: Any) -> bool:
    return type(value) is dict and len(value) == 1 and type(value.get("b64")) is str


def decode_base64(value: Mapping[str, str]) -> bytes:
    text = "".join(value["b64"].split())
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise invalid("Unable to base64 decode") from None


def _example_features(example: Any) -> Features:
    if type(example) is not dict:
        raise invalid(f"Example must be JSON object but got JSON {_JSON_KINDS.get(type(example), 'Number')}")
    return {name: _feature(name, value if type(value) is list else [value]) for name, value in example.items()}


def _feature(name: str, given: list[Any]) -> list[Any]:
    values = [_feature_value(name, one) for one in given]
    if values and any(type(one) is not type(values[0]) for one in values):
        kind = {int: "int64", float: "float", bytes: "bytes"}[type(values[0])]
        raise invalid(f"Unexpected element type in feature: {name} expecting type: {kind}")
    return values


def _feature_value(name: str, value: Any) -> Any:
    if type(value) is bool:
        return int(value)
    if type(value) is int:
        if not -(2**63) <= value < 2**63:
            raise invalid(f"Feature: {name} has uint64 element. Only int64 is supported.")
        return value
    if type(value) is float:
        if MAX_FLOAT32 < abs(value) < float("inf"):
            raise invalid(f"Cannot convert JSON value: {value} to float without loss of precision.")
        return value
    if type(value) is str:
        return value.encode("utf-8", "surrogatepass")
    if is_base64(value):
        return decode_base64(value)
    raise invalid(f"Feature: {name} has element with unexpected JSON type: {_JSON_KINDS[type(value)]}")


def _as_serializable(array: np.ndarray, *, binary: bool) -> Any:
    kind = array.dtype.kind
    if kind in "OSU":
        return _text_lists(array.tolist(), binary)
    if kind not in "fiub":
        if array.dtype.name != "bfloat16":
            raise invalid(f"Failed to write JSON value for tensor type: {array.dtype}; use gRPC")
        array = array.astype(np.float32)
    return np.ascontiguousarray(array) if array.ndim else array[()]


def _text_lists(value: Any, binary: bool) -> Any:
    if type(value) is list:
        return [_text_lists(one, binary) for one in value]
    if not binary:
        try:
            return value.decode()
        except UnicodeDecodeError:
            pass  # not UTF-8, although the name lacks `_bytes`: JSON can hold it only as base64
    return {"b64": base64.b64encode(value).decode()}


def _tokens(value: Any) -> Iterator[bytes]:
    """Yield the token of each non-finite number, in order."""
    if isinstance(value, (dict, list)):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _tokens(one)
    elif isinstance(value, (float, np.ndarray, np.generic)):
        numbers = np.ravel(value)
        if numbers.dtype.kind == "f":
            yield from (_TOKENS[str(float(one))] for one in numbers[~np.isfinite(numbers)])


def excerpt(value: Any) -> str:
    """Return the beginning of a value as JSON, or the kind and size of a large one."""
    if isinstance(value, (dict, list)) and len(value) > 8:
        return f"{_JSON_KINDS[type(value)]} of {len(value)}"
    text = repr(value) if isinstance(value, float) else _json_or_repr(value)
    return text if len(text) <= EXCERPT_CHARACTERS else text[:EXCERPT_CHARACTERS] + "..."


def _json_or_repr(value: Any) -> str:
    try:
        return orjson.dumps(value, default=str, option=orjson.OPT_SERIALIZE_NUMPY).decode()
    except (TypeError, ValueError, RecursionError):
        return type(value).__name__
