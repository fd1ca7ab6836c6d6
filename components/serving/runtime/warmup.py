"""Warm up a version before it answers: the first execution of a graph is many times slower than later ones."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from kerasline.components.models.session import SavedModelSession
from kerasline.components.models.signatures import Signature
from kerasline.components.models.versions import WARM_UP
from kerasline.components.serving.runtime import examples, tensor_codec
from kerasline.components.serving.runtime.errors import RequestError, invalid
from kerasline.components.serving.runtime.signatures import find_signature

log = logging.getLogger(__name__)
MAX_REQUESTS = 1000  # as in TensorFlow Serving
KEPT_REQUESTS = 4


@dataclass
class WarmUp:
    """What executions before the first request have shown.

    Attributes:
        seconds: duration of one row in the last execution of each signature, by name.
        recorded: the first recorded requests of each signature, arrays in the order of its inputs.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    recorded: dict[str, list[list[np.ndarray]]] = field(default_factory=dict)


def warm_up(session: SavedModelSession, folder: Path, *, invent: Collection[str]) -> WarmUp:
    """Execute the requests recorded in `assets.extra/tf_serving_warmup_requests`, a TFRecord file of PredictionLog.

    Args:
        invent: signatures to execute with a row of zeros and empty strings unless a request is recorded.

    Raises:
        RequestError: a recorded request is damaged, or does not fit its signature.
        Exception: the model rejects a recorded request.
    """
    done = WarmUp()
    file = folder / WARM_UP
    for signature, arrays in _recorded(session, file) if file.is_file() else ():
        rows = max([1, *(len(array) for array in arrays if array.ndim)])
        done.seconds[signature.name] = _timed(session, signature, arrays) / rows
        kept = done.recorded.setdefault(signature.name, [])
        if len(kept) < KEPT_REQUESTS:
            kept.append(arrays)
    for name in invent:
        if name not in done.seconds:
            try:
                done.seconds[name] = _timed(session, session.signatures[name], _zeros(session.signatures[name]))
            except Exception as error:  # the model may legitimately reject a row of zeros
                log.debug("%s: signature %s not warmed up: %s", folder, name, error)
    return done


def _recorded(session: SavedModelSession, file: Path) -> Iterator[tuple[Signature, list[np.ndarray]]]:
    import tensorflow as tf
    from google.protobuf.message import DecodeError

    from kerasline.components.serving.runtime.messages import messages

    records = tf.data.TFRecordDataset(str(file)).as_numpy_iterator()
    for number in itertools.count():
        try:
            record = next(records, None)
        except tf.errors.DataLossError as error:
            raise RequestError("DATA_LOSS", f"{file}: expected a TFRecord file: {error.message}") from error
        if record is None:
            return
        if number >= MAX_REQUESTS:
            raise invalid(f"{file}: more than {MAX_REQUESTS} warm-up requests")
        try:
            yield from _requests(session, messages().PredictionLog.FromString(record))
        except DecodeError as error:
            raise invalid(f"{file}: record {number} is not a PredictionLog") from error
        except RequestError as error:
            raise RequestError(error.code, f"{file}: record {number}: {error}") from error


def _requests(session: SavedModelSession, recorded: Any) -> Iterator[tuple[Signature, list[np.ndarray]]]:
    """Yield signature and arrays of each execution of a PredictionLog. A MultiInference request has several."""
    kind = recorded.WhichOneof("log_type")
    if kind is None:  # TensorFlow Serving ignores such a record too
        return
    if kind == "session_run_log":
        raise RequestError("UNIMPLEMENTED", "Unsupported log_type for warmup: SessionRun")
    request = getattr(recorded, kind).request
    if kind == "predict_log":
        signature = find_signature(session, request.model_spec.signature_name)
        tensor_codec.check_names(request.inputs, signature)
        yield signature, tensor_codec.predict_arrays(request.inputs, signature)
        return
    given = tensor_codec.read_examples(request.input)
    for task in request.tasks if kind == "multi_inference_log" else (request,):
        signature = find_signature(session, task.model_spec.signature_name)
        yield signature, examples.to_inputs(given, signature, fills_missing=session.fills_missing)


def _zeros(signature: Signature) -> list[np.ndarray]:
    arrays = []
    for spec in signature.inputs.values():
        shape = [1 if size is None else size for size in spec.shape or ()]
        arrays.append(np.full(shape, b"", object) if spec.is_string else np.zeros(shape, spec.dtype))
    return arrays


def _timed(session: SavedModelSession, signature: Signature, arrays: list[np.ndarray]) -> float:
    started = time.monotonic()
    session.call(signature, arrays)
    return time.monotonic() - started
