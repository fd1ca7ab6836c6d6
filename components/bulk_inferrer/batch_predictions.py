"""Predict a batch of rows, and find the rows for which that fails.

Most rows that cannot be fed are found by checking whole columns. Other failures, of feeding or of the model, are found
by bisection: a batch of which k rows fail takes about 2 k log2(rows) calls.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import tensorflow as tf

from kerasline.components.core.errors import ArtifactError, DataError, one_line
from kerasline.components.data.arrow_arrays import as_arrow, as_lists, as_texts
from kerasline.components.data.model_inputs import feed
from kerasline.components.data.unfeedable_rows import unfeedable
from kerasline.components.models.predictors import SavedModelPredictor

Failed = list[tuple[int, str]]  # index of a row in its batch, and the reason
Outputs = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Job:
    """What to predict.

    Attributes:
        outputs: outputs of the model in the order of the columns. TensorFlow's own order varies.
        kept: columns of the examples to copy.
        prefix: prefix of the output columns.
        texts: outputs that are texts, not bytes.
        batch_size: number of rows per call of the model.
        quarantine: whether to quarantine rows that fail, instead of failing.
        folder: folder for the shards.
    """

    predictor: SavedModelPredictor
    outputs: tuple[str, ...]
    kept: tuple[str, ...]
    prefix: str
    texts: tuple[str, ...]
    batch_size: int
    quarantine: bool
    folder: Path


@dataclass(frozen=True)
class BatchPredictions:
    """The predictions of a batch.

    Attributes:
        columns: columns by output, without the rows that failed.
        places: indices of the predicted rows, int64.
        failed: the rows that failed, in order.
    """

    columns: dict[str, pa.Array]
    places: np.ndarray
    failed: Failed

    @property
    def rows(self) -> int:
        return len(self.places)


def predict_batch(batch: pa.RecordBatch, job: Job) -> BatchPredictions:
    """Predict the rows of a batch."""
    inputs = job.predictor.inputs
    failed: Failed = unfeedable(batch, inputs)
    places = np.delete(np.arange(batch.num_rows), [place for place, _ in failed])
    good = batch.take(pa.array(places)) if failed else batch
    parts: list[tuple[np.ndarray, Outputs]] = []

    def predict(part: pa.RecordBatch, where: np.ndarray) -> None:
        parts.append((where, _predict(part, job.predictor)))

    for start in range(0, good.num_rows, job.batch_size):
        part, where = good.slice(start, job.batch_size), places[start : start + job.batch_size]
        failed += [(int(where[place]), reason) for place, reason in _bisect(predict, part, where)]
    predicted_places = np.concatenate([where for where, _ in parts]) if parts else np.zeros(0, np.int64)
    return BatchPredictions(_columns([outputs for _, outputs in parts], job), predicted_places, sorted(failed))


def _bisect(predict: Callable[[pa.RecordBatch, np.ndarray], None], part: pa.RecordBatch, where: np.ndarray) -> Failed:
    """Predict all rows that the model accepts, in few calls, and return the others."""
    failed: Failed = []
    waiting = [(0, part.num_rows)]
    while waiting:
        start, stop = waiting.pop()
        try:
            predict(part.slice(start, stop - start), where[start:stop])
        except (DataError, tf.errors.InvalidArgumentError, tf.errors.OutOfRangeError, ValueError) as error:
            if stop - start == 1:
                failed.append((start, one_line(error)))
            else:
                middle = (start + stop) // 2
                waiting += [(middle, stop), (start, middle)]  # the first half is next
    return failed


def _predict(part: pa.RecordBatch, predictor: SavedModelPredictor) -> Outputs:
    outputs = predictor(feed(part, predictor.inputs))
    for name, values in outputs.items():
        if values.shape[:1] != (part.num_rows,):
            shape = "x".join(map(str, values.shape)) or "a single value"
            raise ArtifactError(
                f"{predictor.path}: the output {name!r} is {shape} for {part.num_rows} rows; expected one entry per row"
            )
    return outputs


def _columns(parts: list[Outputs], job: Job) -> dict[str, pa.Array]:
    """Return the outputs as columns. One number per row becomes a column of numbers."""
    if not parts:  # an empty batch has the same columns
        empty = job.predictor(
            {
                name: np.zeros((0, *(n or 1 for n in t.shape[1:])), object if t.dtype == "string" else t.dtype)
                for name, t in job.predictor.inputs.items()
            }
        )
        parts = [empty]
    found, shapes = {}, job.predictor.output_shapes
    for name in job.outputs:
        arrays = [outputs[name] for outputs in parts]
        shape = shapes[name]
        if shape is None or None in shape[1:]:  # the shape may vary by batch
            column = pa.concat_arrays([as_lists(values) for values in arrays])
        else:
            values = np.concatenate(arrays)
            column = as_arrow(values[:, 0] if values.shape[1:] == (1,) else values)
        found[name] = as_texts(column) if name in job.texts else column
    return found
