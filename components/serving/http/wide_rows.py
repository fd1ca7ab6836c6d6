"""Rows of many numbers, read straight into arrays.

The general parser makes a Python object of every number, and NumPy then reads each of these: of a row of 784
numbers that is as much work as all the rest of a request. simdjson writes them into a buffer instead, in a
third of the time. It reads nothing that the general parser would refuse: whatever is not plainly rows of
numbers, however little it differs, is left to that one, which answers it or says what is wrong.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from kerasline.components.models.signatures import Signature

WIDE = 16
# Whole numbers from here on are rounded to a float64 before they are to a float32.
EXACT = 2.0**53
SIGNATURE_KEY = b'"signature_name"'

try:
    import simdjson
except ModuleNotFoundError:  # no wheel for this platform: all is left to the general parser
    simdjson = None


def read(body: bytes, signature: Signature | None) -> list[np.ndarray] | None:
    """The arrays of a request's `instances`, in the order of `signature.inputs`, or None.

    Args:
        signature: the one that is asked for where the request names none.
    """
    if simdjson is None or signature is None or not takes_wide_rows(signature) or SIGNATURE_KEY in body:
        return None
    try:
        return _arrays(simdjson.Parser().parse(body), body, signature)
    except (ValueError, TypeError, KeyError, RuntimeError):
        return None


def takes_wide_rows(signature: Signature) -> bool:
    """Whether all inputs are float32 or float64 of shape (None, many)."""
    return all(
        spec.dtype in (np.float32, np.float64)
        and spec.shape is not None
        and len(spec.shape) == 2
        and spec.shape[0] is None
        and (spec.shape[1] or 0) >= WIDE
        for spec in signature.inputs.values()
    )


def _arrays(document: Any, body: bytes, signature: Signature) -> list[np.ndarray] | None:
    if len(document) != 1:  # keys given twice count twice
        return None
    rows, inputs = document["instances"], signature.inputs
    # A buffer has the numbers of lists within lists as well: there must be no list but a row's of each input.
    if not isinstance(rows, simdjson.Array) or body.count(b"[") != 1 + len(rows) * len(inputs):
        return None
    made = [np.empty((len(rows), spec.shape[1]), spec.dtype) for spec in inputs.values()]
    for place, row in enumerate(rows):
        if isinstance(row, simdjson.Object):
            if len(row) != len(inputs):
                return None
            lists = [row[name] for name in inputs]
        elif len(inputs) == 1:
            lists = [row]
        else:
            return None
        for array, numbers in zip(made, lists):
            found = np.frombuffer(numbers.as_buffer(of_type="d"), np.float64)
            # No number is larger than the root of the sum of the squares, which is quicker than the largest.
            if len(found) != array.shape[1] or np.dot(found, found) >= EXACT**2:
                return None
            array[place] = found
    return made if len(rows) else None
