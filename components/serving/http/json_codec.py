"""JSON to arrays and back, in TensorFlow Serving's row (`instances`) and column (`inputs`) forms.

Numbers keep their kind: an integer is taken for a float, a float is not for an integer, text for
neither. `NaN`, `Infinity` and `-Infinity` are read and written as bare tokens, as TensorFlow Serving
does. A float32 is written in the shortest form that reads back as the same float32.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import orjson

from kerasline.components.models.signatures import Signature, TensorSpec
from kerasline.components.serving.runtime.errors import RequestError, invalid

SHOWN = 120
_JSON_KINDS = {dict: "Object", list: "Array", str: "String", bool: "Bool", type(None): "Null"}
# A string, or a null: the strings are passed over whole, so that a null within one is none.
_STRING_OR_NULL = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|null')
# The kinds of arrays that a value of JSON may become, by the kind of dtype that it is for.
_KINDS = {"f": "fiu", "i": "iu", "u": "iu", "b": "b"}
_TOKENS = {"nan": b"NaN", "inf": b"Infinity", "-inf": b"-Infinity"}


def parse(body: bytes | bytearray) -> dict[str, Any]:
    """The document, which must be an object. Raises INVALID_ARGUMENT."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        document = _parse_with_tokens(body, error)
    if type(document) is not dict:
        raise invalid(f"JSON Value: {shown(document)} Is not object")
    return document


def signature_name(document: Mapping[str, Any]) -> str:
    name = document.get("signature_name", "")
    if type(name) is not str:
        raise invalid(
            f"JSON Value: {shown(document)} not formatted correctly. 'signature_name' key must be a string value."
        )
    return name


class Rows:
    """The `instances` of a request, to be made arrays: those of many requests at once, which is far cheaper."""

    __slots__ = ("rows", "_given", "_signature")

    def __init__(self, given: list[Any], signature: Signature):
        self.rows, self._given, self._signature = len(given), given, signature

    def arrays(self) -> list[np.ndarray]:
        """In the order of `signature.inputs`. Raises INVALID_ARGUMENT."""
        return _from_rows(self._given, self._signature)

    def arrays_with(self, others: Sequence[Rows]) -> list[np.ndarray]:
        """The arrays of these rows and then those of the others, of the same signature."""
        return _from_rows([row for one in (self, *others) for row in one._given], self._signature)


def predict_inputs(document: Mapping[str, Any], signature: Signature) -> tuple[Rows | list[np.ndarray], bool]:
    """The inputs, in the order of `signature.inputs` where they are arrays, and whether they came as rows.

    Raises INVALID_ARGUMENT; Rows do so later, when they are made arrays.
    """
    if "instances" in document:
        if "inputs" in document:
            raise invalid(
                f"JSON Value: {shown(document)} Not formatted correctly expecting only one of 'inputs' or "
                "'instances' keys to exist "
            )
        given = document["instances"]
        if type(given) is not list:
            raise invalid(f"JSON Value: {shown(given)} Excepting 'instances' to be an list/array")
        if not given:
            raise invalid("JSON Value: [] No values in 'instances' array")
        return Rows(given, signature), True
    if "inputs" in document:
        return _from_columns(document["inputs"], signature), False
    raise invalid("Missing 'inputs' or 'instances' key")


def predict_answer(names: Sequence[str], arrays: Sequence[np.ndarray], *, rows: bool) -> bytes:
    """The body of an answer, in the form of its request."""
    columns = [_writable(array, binary=name.endswith("_bytes")) for name, array in zip(names, arrays)]
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


def write(value: Any) -> bytes:
    """JSON of Python values and arrays; what JSON has no number for becomes a bare token."""
    text = orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
    if b"null" not in text:  # orjson's form of NaN and the infinities; no answer of ours has another null
        return text
    tokens = _tokens(value)
    return _STRING_OR_NULL.sub(lambda found: next(tokens) if found[0] == b"null" else found[0], text)


def _parse_with_tokens(body: bytes | bytearray, error: orjson.JSONDecodeError) -> Any:
    """The standard library's parser knows NaN and Infinity; it is slower."""
    if not body:
        raise invalid("JSON Parse error: The document is empty") from error
    if b"NaN" in body or b"Infinity" in body:
        try:
            return json.loads(body)
        except RecursionError:
            raise invalid("JSON Parse error: nested too deeply") from error
        except (ValueError, UnicodeDecodeError):
            pass
    raise invalid(f"JSON Parse error: {error.msg} at offset: {error.pos}") from error


def _from_rows(rows: list[Any], signature: Signature) -> list[np.ndarray]:
    inputs = signature.inputs
    if type(rows[0]) is dict and not is_base64(rows[0]):
        try:
            columns = [[row[name] for row in rows] for name in inputs]
            count = len(inputs)
            exact = all([len(row) == count for row in rows])
        except (KeyError, TypeError, IndexError):
            exact = False
        if not exact:
            raise _unlike_signature(rows, signature)
        return [array(column, name, spec) for column, (name, spec) in zip(columns, inputs.items())]
    if len(inputs) != 1:
        raise invalid(
            "instances is a plain list, but expecting list of objects as multiple input tensors required "
            "as per tensorinfo_map"
        )
    ((name, spec),) = inputs.items()
    return [array(rows, name, spec)]


def _unlike_signature(rows: list[Any], signature: Signature) -> RequestError:
    """What is wrong with the first row whose keys are not the signature's inputs."""
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
                f"Failed to process element: {number} of 'instances' list. JSON object: {shown(row)} "
                f"keys must be equal to: {','.join(sorted(names))}"
            )
    return invalid("'instances' do not have the signature's inputs")


def _from_columns(value: Any, signature: Signature) -> list[np.ndarray]:
    inputs = signature.inputs
    if type(value) is not dict or is_base64(value):
        if len(inputs) != 1:
            raise invalid(
                "inputs is a plain value/list, but expecting an object as multiple input tensors required "
                "as per tensorinfo_map"
            )
        ((name, spec),) = inputs.items()
        return [array(value, name, spec)]
    for name in inputs:
        if name not in value:
            raise invalid(f"Missing named input: {name} in 'inputs' object.")
    for name in value:
        if name not in inputs:
            raise invalid(f"JSON object: does not have named input: {name}")
    return [array(value[name], name, spec) for name, spec in inputs.items()]


def array(value: Any, name: str, spec: TensorSpec) -> np.ndarray:
    """A JSON value as an array of the input's dtype and shape. Raises INVALID_ARGUMENT."""
    try:
        with np.errstate(over="raise"):
            made = _texts(value) if spec.is_string else _numbers(value, spec.dtype)
    except FloatingPointError:
        raise invalid(f"input {name}: Cannot convert JSON value to {spec.dtype} without loss of precision.") from None
    except (ValueError, OverflowError) as error:  # NumPy's word for lists of unequal length
        raise invalid(f"input {name}: lists of unequal length or depth, or numbers too large") from error
    except RequestError as error:
        raise invalid(f"input {name}: {error}") from None
    check_shape(made.shape, name, spec)
    return made


def check_shape(shape: tuple[int, ...], name: str, spec: TensorSpec) -> None:
    wanted = spec.shape
    if wanted is None or shape == wanted:
        return
    if len(shape) != len(wanted) or any(w is not None and s != w for s, w in zip(shape, wanted)):
        given = "[" + ",".join(map(str, shape)) + "]"
        raise invalid(f"input {name}: shape {given} given, {spec.text()} wanted")


def _numbers(value: Any, dtype: np.dtype) -> np.ndarray:
    kinds = _KINDS.get("f" if dtype.name == "bfloat16" else dtype.kind)
    if kinds is None:
        raise RequestError("UNIMPLEMENTED", f"JSON has no form for {dtype}; use gRPC")
    # Of texts among numbers NumPy would make texts of all, each as long as the longest.
    given = np.array(value) if _holds_numbers(value) else None
    if given is None or (given.dtype.kind not in kinds and given.size):
        odd = _first_odd(value, kinds)
        kind = _JSON_KINDS.get(type(odd), "Number")
        raise invalid(f"JSON Value: {shown(odd)} Type: {kind} is not of expected type: {dtype}")
    return _within(given, dtype) if dtype.kind in "iu" else given.astype(dtype)


def _holds_numbers(value: Any) -> bool:
    """Whether there are only numbers and booleans in nested lists."""
    pending = [value]
    while pending:
        one = pending.pop()
        if type(one) is list:
            try:
                sum(one)  # five times quicker than to look at the type of each
            except TypeError:
                pending += one
            except OverflowError:  # numbers all the same
                pass
        elif not isinstance(one, (int, float)):
            return False
    return True


def _within(given: np.ndarray, dtype: np.dtype) -> np.ndarray:
    if given.dtype != dtype and given.size:
        bounds = np.iinfo(dtype)
        if int(given.min()) < bounds.min or int(given.max()) > bounds.max:
            raise invalid(f"JSON Value: {given.max()} Type: Number is not of expected type: {dtype}")
    return given.astype(dtype)


def _first_odd(value: Any, kinds: str) -> Any:
    """The first value that is not of the wanted kinds, for the error's message."""
    types = [kind for kind, code in ((bool, "b"), (int, "i"), (float, "f")) if code in kinds]
    pending = [value]
    while pending:
        one = pending.pop()
        if type(one) is list:
            pending.extend(reversed(one))
        elif type(one) not in types:
            return one
    return value


def _texts(value: Any) -> np.ndarray:
    given = np.array(value, dtype=object)
    flat = [_as_bytes(one) for one in given.ravel().tolist()]
    made = np.empty(len(flat), object)
    made[:] = flat
    return made.reshape(given.shape)


def _as_bytes(value: Any) -> bytes:
    if type(value) is str:
        try:
            return value.encode()
        except UnicodeEncodeError:
            raise invalid("a text holds half of a surrogate pair") from None
    if is_base64(value):
        return decode_base64(value)
    kind = _JSON_KINDS.get(type(value), "Number")
    if kind == "Array":
        raise invalid("lists of unequal length or depth")
    if kind == "Object":
        raise invalid(f"JSON Value: {shown(value)} not formatted correctly for base64 data")
    raise invalid(f"JSON Value: {shown(value)} Type: {kind} is not of expected type: string")


def is_base64(value: Any) -> bool:
    return type(value) is dict and len(value) == 1 and type(value.get("b64")) is str


def decode_base64(value: Mapping[str, str]) -> bytes:
    text = value["b64"]
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise invalid("Unable to base64 decode") from None


def _writable(array: np.ndarray, *, binary: bool) -> Any:
    kind = array.dtype.kind
    if kind in "OSU":
        return _text_lists(array.tolist(), binary)
    if kind not in "fiub":
        if array.dtype.name != "bfloat16":
            raise RequestError("UNIMPLEMENTED", f"JSON has no form for {array.dtype}; use gRPC")
        array = array.astype(np.float32)
    return np.ascontiguousarray(array) if array.ndim else array[()]


def _text_lists(value: Any, binary: bool) -> Any:
    if type(value) is list:
        return [_text_lists(one, binary) for one in value]
    if not binary:
        try:
            return value.decode()
        except UnicodeDecodeError:
            pass  # bytes that are no text, under a name without `_bytes`: JSON can only hold them so
    return {"b64": base64.b64encode(value).decode()}


def _tokens(value: Any) -> Iterator[bytes]:
    """What is written for each number that JSON has none for, in their order."""
    if isinstance(value, (dict, list)):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _tokens(one)
    elif isinstance(value, (float, np.ndarray, np.generic)):
        numbers = np.ravel(value)
        if numbers.dtype.kind == "f":
            yield from (_TOKENS[str(float(one))] for one in numbers[~np.isfinite(numbers)])


def shown(value: Any) -> str:
    """The beginning of a value as JSON; of a large one, only its kind and size."""
    if isinstance(value, (dict, list)) and len(value) > 8:
        return f"{_JSON_KINDS[type(value)]} of {len(value)}"
    text = repr(value) if isinstance(value, float) else _json_or_repr(value)
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."


def _json_or_repr(value: Any) -> str:
    try:
        return orjson.dumps(value, default=str, option=orjson.OPT_SERIALIZE_NUMPY).decode()
    except (TypeError, ValueError, RecursionError):
        return type(value).__name__
