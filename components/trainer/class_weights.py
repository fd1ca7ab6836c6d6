"""The weight of each class in the loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import tensorflow as tf

from kerasline.components.core.errors import ParameterError, nearest
from kerasline.components.data.training_input import dataset
from kerasline.components.trainer.job import Job

WHERE = "Trainer.class_weight"


def class_weights(job: Job, weights: Mapping[str, float] | Literal["balanced"] | None) -> tf.Tensor | None:
    """Return the weight of each class.

    Args:
        job: the training.
        weights: weights by class name or index, where missing classes have weight 1. "balanced" gives each class
            rows / (classes * rows of the class), as scikit-learn does (King and Zeng, "Logistic regression in rare
            events data", 2001).

    Returns:
        float32 (classes,), or None if there are no weights.

    Raises:
        ParameterError: there are several labels, the label is not a class, or a class is unknown.
    """
    if weights is None:
        return None
    if len(job.preprocessing.labels) != 1:
        raise ParameterError(f"{WHERE}: not supported with several labels; use Transform.sample_weight instead")
    if weights == "balanced":
        return _balanced(_class_counts(job))
    names = job.preprocessing.facts["class_names"] or []
    by_index = {_class_index(name, names): weight for name, weight in weights.items()}
    table = np.ones(max(len(names), max(by_index) + 1), np.float32)
    for index, weight in by_index.items():
        table[index] = weight
    return tf.constant(table)


def _class_index(name: str, names: list[str]) -> int:
    if name in names:
        return names.index(name)
    if name.isdecimal() and (not names or int(name) < len(names)):
        return int(name)
    raise ParameterError(f"{WHERE}: no class {name!r}; {nearest(name, names)}")


def _class_counts(job: Job) -> np.ndarray:
    """Return the number of rows of each class in the training split."""
    data = dataset(job.examples, job.settings.split, job.preprocessing, batch_size=4096, work_dir=job.work_dir)
    total = np.zeros(0, np.int64)
    for _, label, *_ in data:
        if not label.dtype.is_integer and not np.array_equal(label, np.floor(label)):
            raise ParameterError(f"{WHERE}: expected a label with class indices, received fractional numbers")
        is_one_hot = label.shape.rank == 2 and label.shape[1] > 1
        classes = tf.argmax(label, -1) if is_one_hot else tf.reshape(label, [-1])
        counts = np.bincount(classes.numpy().astype(np.int64))
        size = max(len(total), len(counts))
        total = np.pad(total, (0, size - len(total))) + np.pad(counts, (0, size - len(counts)))
    return total


def _balanced(counts: np.ndarray) -> tf.Tensor:
    is_present = counts > 0
    table = np.ones(len(counts), np.float32)
    table[is_present] = counts.sum() / (is_present.sum() * counts[is_present])
    return tf.constant(table)
