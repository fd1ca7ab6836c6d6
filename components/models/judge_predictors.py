"""Call judges with answers of a served model: pictures and sounds, as files or as numbers."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pyarrow as pa
import tensorflow as tf

from kerasline.components.core.artifacts import Artifact, Preprocessing
from kerasline.components.core.error_places import describe_failure
from kerasline.components.core.errors import DataError, ParameterError
from kerasline.components.core.keras_compat import source_node
from kerasline.components.data.arrow_types import is_bytes
from kerasline.components.data.label_columns import check_no_nulls
from kerasline.components.data.model_inputs import feed_column
from kerasline.components.decoding.images import encode_png
from kerasline.components.metrics.measuring import as_array
from kerasline.components.models.compile_config import outputs_by_name
from kerasline.components.models.judges import PREPROCESSING
from kerasline.components.models.predictors import SavedModelPredictor
from kerasline.components.models.preprocessed_model import PreprocessedModel
from kerasline.components.models.tasks import Output
from kerasline.components.preprocessing.layers.image import ImageDecoding

# Rows per call of a judge, whose activations may be larger than those of the judged model.
ROWS_AT_ONCE = 256
ANSWER = "answer"  # Name of the only output of a judge's network.


@dataclass(frozen=True)
class Judge:
    """A model that judges an answer. It holds paths only, so that it can be sent to Beam workers.

    Attributes:
        name: name of the judge.
        path: folder of the `Model` or `SavedModel` artifact.
        preprocessing: folder of the `Preprocessing` artifact of a Keras model, or None for a SavedModel.
        output: the output that is evaluated. See `Output.judge_output`.
    """

    name: str
    path: Path
    preprocessing: Path | None
    output: str | None

    @classmethod
    def of(cls, output: Output, judges: Mapping[str, Artifact]) -> Judge:
        """Return the judge of an output, given the artifacts by edge."""
        preprocessing = judges.get(output.name + PREPROCESSING)
        folder = preprocessing.path if preprocessing is not None else None
        return cls(output.name, judges[output.name].path, folder, output.judge_output)

    @property
    def input(self) -> keras.KerasTensor:
        """Symbolic tensor of the column that it takes."""
        (tensor,) = _loaded(self)[0].values()
        return tensor

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Return its answers, (rows, ...), to files or numbers, (rows, ...).

        Files are decoded to pixels from 0 to 255 for a judge that takes numbers, and pixels are encoded as PNG for one
        that takes files. Numbers are passed unchanged.

        Raises:
            DataError: the values do not fit its input.
        """
        inputs, call = _loaded(self)
        (name,) = inputs
        parts = [values[first : first + ROWS_AT_ONCE] for first in range(0, len(values), ROWS_AT_ONCE)]
        try:
            return np.concatenate([call({name: self._fitted(part)}) for part in parts])
        except tf.errors.InvalidArgumentError as error:
            raise DataError(f"Evaluator.judges.{self.name}: {describe_failure(error)}") from error

    def of_column(self, batch: pa.RecordBatch, column: str) -> np.ndarray:
        """Return its answers to the values of a raw column."""
        check_no_nulls(batch, [column])
        if is_bytes(batch.schema.field(column).type) or self.input.dtype == "string":
            return self(as_array(batch.column(column)))
        return self(feed_column(batch, column, self.input).dense())

    def _fitted(self, values: np.ndarray) -> np.ndarray:
        tensor = self.input
        shape, takes_files = tuple(tensor.shape[1:]), tensor.dtype == "string"
        if values.dtype == object and not takes_files:
            values = self._decoded(values, shape)
        elif takes_files and values.dtype != object:
            values = self._encoded(values)
        if takes_files:
            return values.reshape(len(values), *shape)
        fits = len(shape) == values.ndim - 1 and all(a in (None, b) for a, b in zip(shape, values.shape[1:]))
        if not fits:
            raise DataError(
                f"Evaluator.judges.{self.name}: expected values of shape {shape} per row, received {values.shape[1:]}"
            )
        return values.astype(tensor.dtype)

    def _decoded(self, files: np.ndarray, shape: tuple[int | None, ...]) -> np.ndarray:
        if len(shape) != 3 or shape[2] not in (1, 3, 4):
            raise DataError(
                f"Evaluator.judges.{self.name}: expected a model that takes files or pictures of shape (height, width, "
                f"channels), received one that takes shape {shape}"
            )
        files = files.reshape(-1)
        size: Any = shape[:2]
        if None in size:
            size = tf.io.decode_image(files[0], expand_animations=False).shape[:2]
        channels: Any = shape[2]
        return ImageDecoding(tuple(size), channels)(files).numpy()

    def _encoded(self, pixels: np.ndarray) -> np.ndarray:
        if pixels.ndim == 3:
            pixels = pixels[..., np.newaxis]
        if pixels.ndim != 4:
            raise DataError(
                f"Evaluator.judges.{self.name}: expected pictures or files for a model that takes files, received "
                f"numbers of shape {pixels.shape[1:]} per row"
            )
        return encode_png(pixels).numpy()


Arrays = Mapping[str, np.ndarray]


@functools.lru_cache(maxsize=4)
def _loaded(judge: Judge) -> tuple[Mapping[str, keras.KerasTensor], Callable[[Arrays], np.ndarray]]:
    """Return the inputs of a judge, and the function from arrays by name to its answers."""
    if judge.preprocessing is None:
        predictor = SavedModelPredictor(judge.path)
        return predictor.inputs, lambda raw: predictor(raw)[str(judge.output)]
    held = PreprocessedModel.load(judge.path, judge.preprocessing)
    held = held.only(Preprocessing(judge.preprocessing).features)
    network = keras.Model(held.model.input, {ANSWER: _tensor(held.model, judge.output)})
    held = replace(held, model=network)
    call = held.compiled(lambda raw: held.predict(held.prepare(raw))[ANSWER])
    return held.preprocessing.input, lambda raw: call({name: tf.constant(one) for name, one in raw.items()}).numpy()


def _tensor(model: keras.Model, output: str | None) -> keras.KerasTensor:
    """Return an output of a model, or that of a layer, or what the last layer with weights takes."""
    outputs = outputs_by_name(model, model.output)
    if output in outputs:
        return outputs[output]
    if output is not None:
        return model.get_layer(output).output
    node = source_node(next(iter(outputs.values())))
    while not getattr(node.operation, "weights", ()) and node.input_tensors:
        node = source_node(node.input_tensors[0])
    if not node.input_tensors:
        raise ParameterError(f"Evaluator.judge_outputs: no layer of {model.name} has weights; name one of its layers")
    return node.input_tensors[0]
