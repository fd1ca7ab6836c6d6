"""The model to explain: from raw columns to predictions, labels and weights."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
import pyarrow as pa
import tensorflow as tf

from kerasline.components.core.artifacts import Model, Preprocessing
from kerasline.components.data.label_columns import LabelReader
from kerasline.components.data.model_inputs import feed, rows_per_batch
from kerasline.components.explainer.checks import label_and_output
from kerasline.components.explainer.explained_output import ExplainedOutput
from kerasline.components.explainer.row_metrics import RowMetric, has_row_values, row_metric
from kerasline.components.models.compile_config import compiled_losses, output_names, outputs_by_name
from kerasline.components.models.outputs import label_class_names
from kerasline.components.models.preprocessed_model import PreprocessedModel

MOST_ROWS_AT_ONCE = 8192
MOST_ACTIVATION_BYTES = 256 << 20

Raw = dict[str, tf.Tensor]


@dataclass(frozen=True)
class Target:
    """The model and the output to explain, in a form that can be sent to other processes.

    Attributes:
        model, preprocessing, examples: folders of the artifacts.
        output: name of the output, or None for the first one with a label.
        metric: the metric of each row, see `row_metric`.
        direction: "minimize" or "maximize". If None, it is inferred from the name of the metric.
    """

    model: Path
    preprocessing: Path
    examples: Path
    output: str | None = None
    metric: str | Callable | None = None
    direction: Literal["minimize", "maximize", None] = None


@functools.lru_cache(maxsize=4)
def load_subject(target: Target) -> Subject:
    """Load the model of a target, once per process."""
    return Subject(target)


class Subject:
    """A model with its preprocessing.

    Attributes:
        served: the model behind the part of its preprocessing that computes its features.
        output: name of the output to explain.
        explained: the meaning of that output.
        metric: the metric of each row.
        errors: the metric that finds the worst rows: the compiled loss, or the metric if the loss has no row values.
        columns: all raw columns that predictions, labels and weights need.
        rows_at_once: number of rows whose activations and gradients fit into memory.

    Raises:
        ParameterError: the output or the metric does not exist.
        DataError: there is no label.
    """

    def __init__(self, target: Target) -> None:
        prepared = Preprocessing(target.preprocessing)
        artifact = Model(target.model)
        # Loaded anew: gradients replace calls of its layers while they are traced, perhaps beside another stage.
        whole = PreprocessedModel.load(target.model, target.preprocessing)
        self.served = whole.only(prepared.features)
        self._label, self.output = label_and_output(output_names(self.model), prepared, target.output)
        self._weight: str | None = prepared.facts["sample_weight"]
        names = [name for name in (self._label, self._weight) if name]
        self._labels = LabelReader.of(prepared, whole.preprocessing, names)
        self.columns = list({**self.features.input, **self._labels.inputs})
        self.explained = ExplainedOutput.of(
            compiled_losses(self.model).get(self.output),
            self._labels.spec(self._label),
            outputs_by_name(self.model, self.model.output)[self.output],
            label_class_names(prepared, self._label),
        )
        self.metric = row_metric(target.metric, target.direction, self.explained)
        self.errors = self.metric
        if self.metric.name != "loss" and self._has_row_losses():
            self.errors = row_metric("loss", None, self.explained)
        self.training_flops: int | None = (artifact.summary.get("flops") or {}).get("training")
        self.rows_at_once = _rows_at_once(self.features, artifact.summary)
        self.signature = self.served.raw_specs
        self._predicted = self.served.compiled(self.predict_raw)
        self._scored = self.served.compiled(lambda raw: self.explained.by_unit(self.predict_raw(raw)))
        self._metrics: dict[str, Callable] = {}

    @property
    def model(self) -> keras.Model:
        return self.served.model

    @property
    def features(self) -> keras.Model:
        """Keras model from raw columns to the inputs of the model, both by name."""
        return self.served.preprocessing

    def raw(self, batch: pa.RecordBatch | pa.Table) -> Raw:
        """Return the columns of some rows as inputs of the preprocessing."""
        return self.tensors(feed(batch, self.features.input))

    def tensors(self, fed: Mapping[str, np.ndarray]) -> Raw:
        specs = self.signature
        return {name: tf.cast(values, specs[name].dtype) for name, values in fed.items()}

    def labels_and_weights(self, batch: pa.RecordBatch | pa.Table) -> tuple[np.ndarray, np.ndarray]:
        """Return the labels of some rows, and their weights, float64 (rows,), which are 1 by default.

        Raises:
            DataError: a label or weight is missing.
        """
        found = self._labels.values(batch)
        weight = np.ones(batch.num_rows) if self._weight is None else found[self._weight]
        return found[self._label], weight.astype(np.float64).reshape(-1)

    def predict_raw(self, raw: Raw) -> tf.Tensor:
        """Return the predictions of the output, given raw columns."""
        return self.predict(self.prepare(raw))

    def prepare(self, raw: Raw) -> dict[str, tf.Tensor]:
        """Return the preprocessed features."""
        return self.served.prepare(raw)

    def predict(self, features: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Return the predictions of the output, given preprocessed features."""
        return self.served.predict(features)[self.output]

    def scores(self, raw: Raw) -> np.ndarray:
        """Return a score for each class, or the predicted numbers; float64 (rows, units)."""
        return self._scored(raw).numpy().astype(np.float64)

    def metric_values(self, metric: RowMetric, raw: Raw, label: np.ndarray) -> np.ndarray:
        """Return the metric of each row, float64 (rows,)."""
        if not metric.in_graph:
            return metric.of_arrays(label, self._predicted(raw).numpy())
        if metric.name not in self._metrics:
            form = tf.TensorSpec((None, *label.shape[1:]), label.dtype)
            function = lambda raw, label: metric.function(label, self.predict_raw(raw))  # noqa: E731
            self._metrics[metric.name] = self.served.compiled(function, form)
        return self._metrics[metric.name](raw, label).numpy().astype(np.float64)

    def _has_row_losses(self) -> bool:
        loss, output = self.explained.loss, outputs_by_name(self.model, self.model.output)[self.output]
        return loss is not None and has_row_values(loss.loss, self._labels.spec(self._label), output)


def _rows_at_once(features: keras.Model, summary: Mapping[str, Any]) -> int:
    tensors = {**features.input, **{f"output {name}": tensor for name, tensor in features.output.items()}}
    rows = min(rows_per_batch(tensors), MOST_ROWS_AT_ONCE)
    sizes = {int(batch): size for batch, size in (summary.get("activation_bytes") or {}).items()}
    if sizes:
        largest = max(sizes)
        rows = min(rows, int(MOST_ACTIVATION_BYTES / max(sizes[largest] / largest, 1)))
    return max(rows, 1)
