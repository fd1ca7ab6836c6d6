"""Warm-up requests, which TensorFlow Serving answers before it serves a new model.

They are `PredictionLog` protos in a TFRecord file, `assets.extra/tf_serving_warmup_requests`
(https://www.tensorflow.org/tfx/serving/saved_model_warmup). The messages around `TensorProto` are encoded here, because
the package that defines them, tensorflow-serving-api, depends on the distribution `tensorflow` even if another one such
as `tensorflow-cpu` is installed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from kerasline.components.core.artifacts import Examples
from kerasline.components.core.errors import one_line
from kerasline.components.data.missing import has_missing_value, missing_value
from kerasline.components.data.model_inputs import feed
from kerasline.components.exporter.served_model import EXAMPLES, RAW, Written
from kerasline.components.exporter.tf_examples import tf_examples
from kerasline.components.models.versions import WARM_UP

MAX_REQUEST_BYTES = 4 << 20


def sample_rows(specs: Mapping[str, Any], examples: Examples | None, split: str, most: int) -> dict[str, np.ndarray]:
    """Return up to `most` rows of raw features, the first of the split. Without examples one of missing values."""
    rows = max(1, min(most, MAX_REQUEST_BYTES // max(_row_bytes(specs), 1)))
    for batch in examples.batches(split, rows=rows) if examples is not None else ():
        if batch.num_rows:
            return feed(batch.slice(0, rows), specs)
    shapes = {name: (1, *(size or 1 for size in spec.shape[1:])) for name, spec in specs.items()}
    return {name: np.full(shapes[name], _missing(spec), _dtype(spec)) for name, spec in specs.items()}


def repeat_rows(arrays: Mapping[str, np.ndarray], rows: int) -> dict[str, np.ndarray]:
    """Return `rows` rows, repeating the given ones cyclically."""
    return {name: array[np.arange(rows) % len(array)] for name, array in arrays.items()}


def write_warm_up(folder: Path, written: Written, rows: Mapping[str, np.ndarray], most: int) -> str | None:
    """Write requests of one row and of `most` rows for the signatures that take raw features.

    Returns:
        None, or why no requests were written. TensorFlow Serving does not serve a model that fails on one.
    """
    requests = []
    for signature in (RAW, EXAMPLES):
        for size in sorted({1, min(most, _max_rows(rows))}):
            if signature not in written.signatures:
                continue
            function, _ = written.signatures[signature]
            raw: dict[str, Any] = repeat_rows(rows, size)
            inputs = {"examples": np.array(tf_examples(raw), object)} if signature == EXAMPLES else raw
            tensors = {name: tf.constant(array) for name, array in inputs.items()}
            try:
                function(tensors["examples"] if signature == EXAMPLES else tensors)
            except (tf.errors.OpError, ValueError) as error:
                return f"the model does not answer {signature} for a possible row: {one_line(error)}"
            requests.append(_prediction_log(signature, tensors))
    (folder / WARM_UP).parent.mkdir()
    with tf.io.TFRecordWriter(str(folder / WARM_UP)) as writer:
        for request in requests:
            writer.write(request)
    return None


def _max_rows(rows: Mapping[str, np.ndarray]) -> int:
    row = sum(array[:1].nbytes for array in rows.values())
    return max(1, MAX_REQUEST_BYTES // max(row, 1))


def _prediction_log(signature: str, inputs: Mapping[str, tf.Tensor]) -> bytes:
    """Encode PredictionLog.predict_log.request (tensorflow_serving/apis/prediction_log.proto and predict.proto)."""
    model_spec = _field(3, signature.encode())
    entries = b"".join(
        _field(2, _field(1, name.encode()) + _field(2, tf.make_tensor_proto(tensor).SerializeToString()))
        for name, tensor in inputs.items()
    )
    return _field(6, _field(1, _field(1, model_spec) + entries))


def _field(number: int, value: bytes) -> bytes:
    """Encode a field of bytes in protobuf's wire format (https://protobuf.dev/programming-guides/encoding)."""
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _varint(number: int) -> bytes:
    parts = []
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    return bytes([*parts, number])


def _missing(spec: Any) -> Any:
    name = tf.as_dtype(spec.dtype).name
    return missing_value(name) if has_missing_value(name) else 0


def _dtype(spec: Any) -> Any:
    return object if spec.dtype == tf.string else tf.as_dtype(spec.dtype).as_numpy_dtype


def _row_bytes(specs: Mapping[str, Any]) -> int:
    return sum(8 * math.prod(size or 1 for size in spec.shape[1:]) for spec in specs.values())
