"""The weight of each class in the loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasline.components.core.errors import ParameterError, nearest
from kerasline.components.data.label_columns import LabelReader
from kerasline.components.models import targets
from kerasline.components.models.compile_config import outputs_by_name
from kerasline.components.trainer.job import Job
from kerasline.components.trainer.label_values import read_labels

WHERE = "Trainer.class_weight"


@dataclass(frozen=True)
class ClassWeights:
    """The weight of each class.

    Attributes:
        weights: float32 (classes,). Classes beyond it have weight 1.
        has_columns: whether labels have a number for each class (one-hot, multi-hot) instead of a class index.
        has_margins: whether the labels -1 and 0 both are class 0.
    """

    weights: np.ndarray
    has_columns: bool
    has_margins: bool

    def of_labels(self, label: tf.Tensor) -> tf.Tensor:
        """Return the weight of each label: float32 of the label's shape without its last axis of classes or size 1.

        With a column for each class it is the mean of the classes' weights, weighted by the columns; 1 if all are 0.
        """
        if self.has_columns:
            shares = tf.cast(label, tf.float32)
            total = tf.reduce_sum(shares, axis=-1)
            weighted = tf.linalg.matvec(shares, tf.constant(self.weights))
            return tf.where(total > 0, tf.math.divide_no_nan(weighted, total), 1.0)
        if label.shape.rank > 1 and label.shape[-1] == 1:
            label = tf.squeeze(label, -1)
        index = tf.cast(label, tf.int32)
        index = tf.maximum(index, 0) if self.has_margins else index
        classes = len(self.weights)
        # XLA would clip an index out of range to that of another class.
        index = tf.where((index >= 0) & (index < classes), index, classes)
        return tf.gather(tf.constant(np.append(self.weights, np.float32(1))), index)


def class_weights(job: Job, model: keras.Model) -> ClassWeights | None:
    """Return the weights that `Trainer.class_weight` sets, or None.

    "balanced" gives each class rows / (classes * rows of the class), as scikit-learn does (King and Zeng, "Logistic
    regression in rare events data", 2001).

    Raises:
        ParameterError: there are several labels, or a class is unknown.
    """
    requested = job.settings.class_weight
    if requested is None:
        return None
    if len(job.preprocessing.labels) != 1:
        number = "several labels" if job.preprocessing.labels else "no label"
        raise ParameterError(f"{WHERE}: not supported with {number}; use Transform.sample_weight instead")
    units, has_columns, has_margins = _label_form(job, model)
    if requested == "balanced":
        return ClassWeights(_balanced(_class_counts(job, has_columns, has_margins)), has_columns, has_margins)
    names = job.preprocessing.facts["class_names"] or []
    by_index = {_class_index(str(name), names, units): weight for name, weight in requested.items()}
    weights = np.ones(max(len(names), *(index + 1 for index in by_index)), np.float32)
    if has_columns and units is not None:
        weights = np.ones(units, np.float32)
    for index, weight in by_index.items():
        weights[index] = weight
    return ClassWeights(weights, has_columns, has_margins)


def _label_form(job: Job, model: keras.Model) -> tuple[int | None, bool, bool]:
    """Return the number of classes, or None if unknown, and whether labels have columns and margins."""
    (label,) = job.preprocessing.labels
    shape = tuple(job.preprocessing.label_specs[label].shape[1:])
    losses = targets.checked_losses(model)
    if len(losses) > 1:
        raise ParameterError(f"{WHERE}: not supported with several outputs; use Transform.sample_weight instead")
    if not losses:
        has_columns = len(shape) == 1 and shape[-1] not in (1, None)
        return (shape[-1] if has_columns else None), has_columns, False
    ((name, loss),) = losses.items()
    output = tuple(outputs_by_name(model, model.output)[name].shape[1:])
    units = output[-1] if output else 1
    if units == 1:
        return (2 if loss.kind in (*targets.BINARY, *targets.MARGINS) else None), False, loss.kind in targets.MARGINS
    return units, loss.kind != targets.CLASS_INDEX and len(shape) == len(output), False


def _class_index(name: str, names: Sequence[str], classes: int | None) -> int:
    if name in names:
        return names.index(name)
    limit = len(names) or classes
    if name.isdecimal() and (limit is None or int(name) < limit):
        return int(name)
    known = nearest(name, names) if names else f"expected a class from 0 to {(limit or 1) - 1}"
    raise ParameterError(f"{WHERE}: no class {name!r}; {known}")


def _class_counts(job: Job, has_columns: bool, has_margins: bool) -> np.ndarray:
    """Return the number of rows of each class in the training split."""
    (label,) = job.preprocessing.labels
    reader = LabelReader.of(job.preprocessing, job.preprocessing.load(), [label])
    total: Any = np.zeros(0)
    for _, _, values in read_labels(reader, job.examples, job.settings.split):
        found = values[label]
        if has_columns:
            counts = found.reshape(-1, found.shape[-1]).sum(axis=0, dtype=np.float64)
        else:
            index = found.reshape(-1).astype(np.int64)
            index = np.maximum(index, 0) if has_margins else index[index >= 0]
            counts = np.bincount(index).astype(np.float64)
        size = max(len(total), len(counts))
        total = np.pad(total, (0, size - len(total))) + np.pad(counts, (0, size - len(counts)))
    return total


def _balanced(counts: np.ndarray) -> np.ndarray:
    is_present = counts > 0
    weights = np.ones(len(counts), np.float32)
    weights[is_present] = counts.sum() / (is_present.sum() * counts[is_present])
    return weights
