"""Checks of all labels and weights before training, because TensorFlow would report a bad one without its row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import keras
import numpy as np
import pyarrow as pa
import tensorflow as tf

from kerasline.components.core.artifacts import Examples
from kerasline.components.core.errors import DataError, one_line
from kerasline.components.data.label_columns import LabelReader
from kerasline.components.models import targets
from kerasline.components.models.compile_config import CompiledLoss, outputs_by_name
from kerasline.components.models.outputs import label_by_output
from kerasline.components.trainer.job import Job


def check_values(job: Job, model: keras.Model) -> None:
    """Check every label and weight of the training and the evaluation split.

    Raises:
        DataError: a value is missing or does not fit its loss. Names the value, the row and the split.
    """
    rules = _rules(job, model)
    if not rules:
        return
    reader = LabelReader.of(job.preprocessing, job.preprocessing.load(), [rule.name for rule in rules])
    for split in dict.fromkeys((job.settings.split, job.eval_split)):
        if split is not None:
            for first, batch, values in read_labels(reader, job.examples, split):
                for rule in rules:
                    rule.check(values[rule.name], batch, first, split, reader)


def read_labels(
    reader: LabelReader, examples: Examples, split: str
) -> Iterator[tuple[int, pa.RecordBatch, dict[str, np.ndarray]]]:
    """Yield the index of the first row, the raw columns, and the labels and weights by name, of batches of a split.

    Raises:
        DataError: a label is missing, or the preprocessing cannot compute it.
    """
    first = 0
    for batch in examples.batches(split, list(reader.inputs), reader.rows_per_batch):
        for name in reader.columns:
            if batch.column(name).null_count:
                row = int(np.argmax(batch.column(name).is_null().to_numpy(zero_copy_only=False)))
                raise DataError(
                    f"column {name!r}, the label or weight, is missing in row {first + row} of split {split!r}; "
                    "remove such rows from the data"
                )
        try:
            yield first, batch, reader.values(batch)
        except tf.errors.InvalidArgumentError as error:
            row = _first_failing_row(reader, batch)
            failing = _first_failing_label(reader, batch.slice(row, 1))
            raise DataError(
                f"the label of row {first + row} of split {split!r} cannot be computed from "
                f"{_raw_values(failing, batch, row)}: {_cause(error)}"
            ) from error
        first += batch.num_rows


@dataclass(frozen=True)
class _Rule:
    """What the values of a label or weight must be.

    Attributes:
        noun: "label" or "weight".
        name: its name.
        is_allowed: converts values to booleans of the same shape.
        expected, remedy: for the message.
    """

    noun: str
    name: str
    is_allowed: Callable[[np.ndarray], np.ndarray]
    expected: str
    remedy: str

    def check(self, values: np.ndarray, batch: pa.RecordBatch, first: int, split: str, reader: LabelReader) -> None:
        allowed = self.is_allowed(values)
        if allowed.all():
            return
        row = int(np.argmin(allowed.reshape(len(allowed), -1).all(axis=1)))
        value = values[row][~allowed[row]].flat[0]
        is_raw = self.name in reader.columns
        source = "" if is_raw else f" computed from {_raw_values(reader.alone(self.name), batch, row)}"
        raise DataError(
            f"{self.noun} {self.name!r} of row {first + row} of split {split!r}: expected {self.expected}, received "
            f"{value:g}{source}; {self.remedy}"
        )


def _rules(job: Job, model: keras.Model) -> list[_Rule]:
    weight, rules = job.preprocessing.facts["sample_weight"], []
    if weight:
        rules.append(_Rule("weight", weight, _is_weight, "a finite number of 0 or more", "correct or remove such rows"))
    losses = targets.checked_losses(model)
    if not job.preprocessing.labels or job.settings.function is not None or not losses:
        return rules
    outputs = outputs_by_name(model, model.output)
    label_of, has_class_weight = label_by_output(list(outputs), job.preprocessing), bool(job.settings.class_weight)
    for name, loss in losses.items():
        label = label_of[name]
        shape = tuple(job.preprocessing.label_specs[label].shape[1:])
        rules.append(_label_rule(label, shape, name, loss, outputs[name].shape[-1], has_class_weight))
    return rules


def _is_weight(values: np.ndarray) -> np.ndarray:
    is_padding = np.isnan(values) if values.ndim > 1 else np.zeros(values.shape, bool)
    return (np.isfinite(values) & (values >= 0)) | is_padding


def _label_rule(
    label: str, shape: Sequence[int | None], output: str, loss: CompiledLoss, units: int | None, has_class_weight: bool
) -> _Rule:
    kind = loss.kind
    remedy = "correct or remove such rows"
    if None in shape:
        remedy = "shorter lists are padded; leave the padding out by kerasline.losses.Masked(loss, padding=-1)"
    if kind == targets.CLASS_INDEX and units is not None:
        remedy = (
            f"number the classes from 0, as kerasline.layers.ClassIndex does in the preprocessing, or give output "
            f"{output!r} a unit for each class; the loss can skip one value, such as -1 for an unknown class or "
            "padding: SparseCategoricalCrossentropy(ignore_class=-1)"
        )
        if None in shape:
            remedy = "shorter lists are padded; skip them by SparseCategoricalCrossentropy(ignore_class=-1)"
        return _Rule(
            "label",
            label,
            lambda values: ((values >= 0) & (values < units) & (values == np.floor(values))) | loss.ignores(values),
            f"a class from 0 to {units - 1}, the units of output {output!r}",
            remedy,
        )
    if kind in targets.MARGINS:
        return _Rule(
            "label",
            label,
            lambda values: np.isin(values, (-1, 0, 1)) | loss.ignores(values),
            "-1 or 1, or 0 or 1",
            remedy,
        )
    if has_class_weight and units == 1:
        return _Rule(
            "label",
            label,
            lambda values: ((values >= 0) & (values == np.floor(values))) | loss.ignores(values),
            "a class: 0, 1, ...",
            remedy,
        )
    if kind in (*targets.BINARY, *targets.DISTRIBUTION):
        return _Rule(
            "label",
            label,
            lambda values: ((values >= 0) & (values <= 1)) | loss.ignores(values),
            f"numbers from 0 to 1 for {kind}",
            remedy,
        )
    return _Rule("label", label, lambda values: np.isfinite(values) | loss.ignores(values), "a finite number", remedy)


def _raw_values(reader: LabelReader, batch: pa.RecordBatch, row: int) -> str:
    assert reader.model is not None
    return ", ".join(f"column {name!r}: {str(batch.column(name)[row].as_py())[:80]!r}" for name in reader.model.input)


def _cause(error: tf.errors.InvalidArgumentError) -> str:
    if "found OOV values" in str(error):
        return (
            "the lookup does not know this value; leave such rows out, or give the lookup all classes; "
            "kerasline.layers.ClassIndex gives -1, which SparseCategoricalCrossentropy(ignore_class=-1) skips"
        )
    return one_line(error)


def _first_failing_row(reader: LabelReader, batch: pa.RecordBatch) -> int:
    """Return the first row whose labels cannot be computed, found by bisection."""
    low, high = 0, batch.num_rows
    while high - low > 1:
        middle = (low + high) // 2
        try:
            reader.values(batch.slice(low, middle - low))
            low = middle
        except tf.errors.InvalidArgumentError:
            high = middle
    return low


def _first_failing_label(reader: LabelReader, row: pa.RecordBatch) -> LabelReader:
    """Return a reader of the first label that cannot be computed in a row, or the same reader if each can alone."""
    assert reader.model is not None
    for name in reader.model.output:
        alone = reader.alone(name)
        try:
            alone.values(row)
        except tf.errors.InvalidArgumentError:
            return alone
    return reader
