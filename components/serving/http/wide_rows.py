"""Read JSON rows of many numbers directly into arrays.

The general parser creates a Python object for every number, which NumPy then converts. For a row of 784 numbers this
is as much work as the rest of the request. simdjson fills a buffer instead, in a third of the time. This module
accepts nothing that the general parser would reject. Any body that is not clearly rows of numbers is left to the
general parser, which reads it or reports the error.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from kerasline.components.models.signatures import Signature, TensorSpec

# Fewest numbers in a row for which this parser is faster.
WIDE = 16
# Integers from here on would be rounded twice: to float64, then to float32.
EXACT = 2.0**53
SIGNATURE_KEY = b'"signature_name"'

try:
    import simdjson
except ModuleNotFoundError:  # no wheel for this platform: use the general parser
    simdjson = None  # type: ignore[assignment]  # mypy knows the module only as present


def read(body: bytes, signature: Signature | None) -> list[np.ndarray] | None:
    """Return the arrays of a request's `instances`, in the order of `signature.inputs`.

    Args:
        signature: the signature to use if the request names none.

    Returns:
        None if the general parser must read this body.
    """
    if simdjson is None or signature is None or not takes_wide_rows(signature) or SIGNATURE_KEY in body:
        return None
    try:
        return _arrays(simdjson.Parser().parse(body), body, signature)
    except (ValueError, TypeError, KeyError, RuntimeError):
        return None


def takes_wide_rows(signature: Signature) -> bool:
    """Return whether all inputs are float32 or float64 of shape (None, n) with n of at least `WIDE`."""
    return bool(signature.inputs) and all(
        spec.dtype in (np.float32, np.float64) and spec.is_batched and _width(spec) >= WIDE
        for spec in signature.inputs.values()
    )


def _width(spec: TensorSpec) -> int:
    """Return n for an input of shape (None, n), otherwise 0."""
    return (spec.shape[1] or 0) if spec.shape is not None and len(spec.shape) == 2 else 0


def _arrays(document: Any, body: bytes, signature: Signature) -> list[np.ndarray] | None:
    if len(document) != 1:  # a repeated key counts twice
        return None
    rows: Any = document["instances"]
    inputs = signature.inputs
    # A buffer flattens nested lists, so there must be exactly one list for each row and input.
    if not isinstance(rows, simdjson.Array) or body.count(b"[") != 1 + len(rows) * len(inputs):
        return None
    arrays = [np.empty((len(rows), _width(spec)), spec.dtype) for spec in inputs.values()]
    for place, row in enumerate(rows):
        if isinstance(row, simdjson.Object):
            if len(row) != len(inputs):
                return None
            lists: list[Any] = [row[name] for name in inputs]
        elif len(inputs) == 1:
            lists = [row]
        else:
            return None
        for array, numbers in zip(arrays, lists):
            found = np.frombuffer(numbers.as_buffer(of_type="d"), np.float64)
            # The sum of squares bounds the largest number and is faster to compute.
            if len(found) != array.shape[1] or np.dot(found, found) >= EXACT**2:
                return None
            array[place] = found
    return arrays if len(rows) else None
