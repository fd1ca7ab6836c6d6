"""How much a row of each class counts in the loss."""

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
    """The weights as a table.

    Args:
        weights: by class, its name or its number, where classes left out count 1; or "balanced": rows /
            (classes * rows of the class), as scikit-learn has it (King and Zeng, "Logistic regression
            in rare events data", 2001).

    Returns:
        float32 (classes,), or None where there are none.

    Raises:
        ParameterError: several labels, one that is not a class, or an unknown class.
    """
    if weights is None:
        return None
    if len(job.preprocessing.labels) != 1:
        raise ParameterError(f"{WHERE}: there are several labels; use Transform.sample_weight instead")
    if weights == "balanced":
        return _balanced(_counts(job))
    names = job.preprocessing.facts["class_names"] or []
    by_number = {_number(name, names): weight for name, weight in weights.items()}
    table = np.ones(max(len(names), max(by_number) + 1), np.float32)
    for number, weight in by_number.items():
        table[number] = weight
    return tf.constant(table)


def _number(name: str, names: list[str]) -> int:
    if name in names:
        return names.index(name)
    if name.isdecimal() and (not names or int(name) < len(names)):
        return int(name)
    raise ParameterError(f"{WHERE}: no class {name!r}; {nearest(name, names)}")


def _counts(job: Job) -> np.ndarray:
    """Rows of each class in the split."""
    data = dataset(job.examples, job.settings.split, job.preprocessing, batch_size=4096, work_dir=job.work_dir)
    total = np.zeros(0, np.int64)
    for _, label, *_ in data:
        if not label.dtype.is_integer and not np.array_equal(label, np.floor(label)):
            raise ParameterError(f"{WHERE}: the label is a number and no class")
        flat = tf.argmax(label, -1) if label.shape.rank == 2 and label.shape[1] > 1 else tf.reshape(label, [-1])
        counts = np.bincount(flat.numpy().astype(np.int64))
        size = max(len(total), len(counts))
        total = np.pad(total, (0, size - len(total))) + np.pad(counts, (0, size - len(counts)))
    return total


def _balanced(counts: np.ndarray) -> tf.Tensor:
    there = counts > 0
    table = np.ones(len(counts), np.float32)
    table[there] = counts.sum() / (there.sum() * counts[there])
    return tf.constant(table)
