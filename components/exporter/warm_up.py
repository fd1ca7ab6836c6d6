"""The requests that TensorFlow Serving answers for itself before it lets a new model answer anybody.

`assets.extra/tf_serving_warmup_requests`, a TFRecord of `PredictionLog`s
(https://www.tensorflow.org/tfx/serving/saved_model_warmup). The few messages around TensorFlow's own
`TensorProto` are written here field by field: the package that has them, tensorflow-serving-api, wants the
distribution `tensorflow` beside whichever one is installed.
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
from kerasline.components.data.feed import feed
from kerasline.components.data.missing import missing_value
from kerasline.components.exporter.serving import EXAMPLES, RAW, Written
from kerasline.components.exporter.tf_examples import tf_examples

FILE = "assets.extra/tf_serving_warmup_requests"
BATCHES = (1, 64)
MOST_BYTES = 4 << 20  # of a request


def sample(specs: Mapping[str, Any], examples: Examples | None, split: str) -> dict[str, np.ndarray]:
    """Up to 64 rows of raw features: the first of the split, or one where all is missing."""
    rows = max(1, min(max(BATCHES), MOST_BYTES // max(_row_bytes(specs), 1)))
    for batch in examples.batches(split, rows=rows) if examples is not None else ():
        if batch.num_rows:
            return feed(batch.slice(0, rows), specs)
    shapes = {name: (1, *(size or 1 for size in spec.shape[1:])) for name, spec in specs.items()}
    return {name: np.full(shapes[name], _nothing(spec), _dtype(spec)) for name, spec in specs.items()}


def repeated(arrays: Mapping[str, np.ndarray], rows: int) -> dict[str, np.ndarray]:
    """So many rows, from the first one on, over and over."""
    return {name: array[np.arange(rows) % len(array)] for name, array in arrays.items()}


def write_warm_up(folder: Path, written: Written, rows: Mapping[str, np.ndarray]) -> str | None:
    """Writes requests of one row and of several for the signatures that take raw features.

    Returns:
        Why there are none: a request that the model fails to answer would keep it from being served.
    """
    requests = []
    for signature in (RAW, EXAMPLES):
        for size in dict.fromkeys(min(batch, _most_rows(rows)) for batch in BATCHES):
            if signature not in written.signatures:
                continue
            function, _ = written.signatures[signature]
            raw: dict[str, Any] = repeated(rows, size)
            inputs = {"examples": np.array(tf_examples(raw), object)} if signature == EXAMPLES else raw
            tensors = {name: tf.constant(array) for name, array in inputs.items()}
            try:
                function(tensors["examples"] if signature == EXAMPLES else tensors)
            except (tf.errors.OpError, ValueError) as error:
                return f"the model does not answer {signature} on a row as it may come: {one_line(error)}"
            requests.append(_prediction_log(signature, tensors))
    (folder / FILE).parent.mkdir()
    with tf.io.TFRecordWriter(str(folder / FILE)) as writer:
        for request in requests:
            writer.write(request)
    return None


def _most_rows(rows: Mapping[str, np.ndarray]) -> int:
    row = sum(array[:1].nbytes for array in rows.values())
    return max(1, MOST_BYTES // max(row, 1))


def _prediction_log(signature: str, inputs: Mapping[str, tf.Tensor]) -> bytes:
    """PredictionLog.predict_log.request, of tensorflow_serving/apis/prediction_log.proto and predict.proto."""
    model_spec = _field(3, signature.encode())
    entries = b"".join(
        _field(2, _field(1, name.encode()) + _field(2, tf.make_tensor_proto(tensor).SerializeToString()))
        for name, tensor in inputs.items()
    )
    return _field(6, _field(1, _field(1, model_spec) + entries))


def _field(number: int, value: bytes) -> bytes:
    """A field of bytes in protobuf's wire format (https://protobuf.dev/programming-guides/encoding)."""
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _varint(number: int) -> bytes:
    parts = []
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    return bytes([*parts, number])


def _nothing(spec: Any) -> Any:
    try:
        return missing_value(tf.as_dtype(spec.dtype).name)
    except ValueError:
        return 0


def _dtype(spec: Any) -> Any:
    return object if spec.dtype == tf.string else tf.as_dtype(spec.dtype).as_numpy_dtype


def _row_bytes(specs: Mapping[str, Any]) -> int:
    return sum(8 * math.prod(size or 1 for size in spec.shape[1:]) for spec in specs.values())
