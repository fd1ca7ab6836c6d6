"""What the numbers that a model gives mean: scores of classes, or numbers; and how to say it in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import tensorflow as tf

from kerasline.components.evaluator.compiled import CompiledLoss

Task = Literal["binary", "multi_class", "multi_label", "regression"]


@dataclass(frozen=True)
class Answers:
    """What an output gives.

    Attributes:
        task: binary: one score; multi_class: one for each class, of which one holds; multi_label: of which any
            may hold; regression: numbers.
        units: the size of its last axis.
        classes: their names, where they have some.
        from_logits: whether the loss turns its numbers into probabilities.
        loss: what was compiled for it, or None.
    """

    task: Task
    units: int
    classes: tuple[str, ...] | None
    from_logits: bool
    loss: CompiledLoss | None

    @classmethod
    def of(cls, loss: CompiledLoss | None, label: Any, output: Any, names: Sequence[str] | None) -> Answers:
        """By loss and label.

        Args:
            label, output: symbolic tensors (rows, ...).
            names: of the classes, or None.
        """
        units = output.shape[-1] if len(output.shape) > 1 else 1
        task = _task(loss.kind if loss else "", label, output, units, names)
        wanted = 2 if task == "binary" else units
        classes = tuple(names) if names and len(names) == wanted and task != "regression" else None
        from_logits = loss is not None and loss.from_logits and task != "regression"
        return cls(task, units, classes, from_logits, loss)

    def scores(self, prediction: tf.Tensor) -> tf.Tensor:
        """Probabilities where the model gives logits; else what it gives."""
        prediction = tf.cast(prediction, tf.float32)
        if not self.from_logits:
            return prediction
        return tf.nn.softmax(prediction) if self.task == "multi_class" else tf.sigmoid(prediction)

    def by_unit(self, prediction: tf.Tensor) -> tf.Tensor:
        """The scores of each row, float32 (rows, units): the mean over any axes between, such as time."""
        scores = self.scores(prediction)
        return tf.reduce_mean(tf.reshape(scores, [tf.shape(scores)[0], -1, self.units]), axis=1)

    def unit_name(self, unit: int) -> str | None:
        """What a unit is the score of; None where there is but one."""
        if self.units == 1:
            return None
        return self.classes[unit] if self.classes else str(unit)

    def label_in_words(self, label: np.ndarray) -> str:
        """One row's label."""
        if self.task == "multi_class":
            held = label.reshape(-1, self.units) if label.ndim and label.shape[-1] == self.units else label.reshape(-1)
            return ", ".join(self._class(int(number)) for number in (held.argmax(-1) if held.ndim == 2 else held)[:10])
        if self.task == "multi_label":
            return self._those_that_hold(label.reshape(-1))
        if self.task == "binary" and label.size == 1:
            return self._class(int(label.item() > 0.5))
        return numbers_in_words(label)

    def prediction_in_words(self, scores: np.ndarray) -> tuple[str, float]:
        """One row's prediction, and its score: of the class it names, of class 1, or the number.

        Args:
            scores: (units,).
        """
        if self.task == "multi_class":
            best = int(scores.argmax())
            return self._class(best), float(scores[best])
        if self.task == "multi_label":
            return self._those_that_hold(scores), float(scores.max())
        if self.task == "binary" and self.classes:
            return self._class(int(scores[0] > 0.5)), float(scores[0])
        return numbers_in_words(scores), float(scores[0])

    def _class(self, number: int) -> str:
        return self.classes[number] if self.classes and 0 <= number < len(self.classes) else str(number)

    def _those_that_hold(self, values: np.ndarray) -> str:
        return ", ".join(self._class(int(number)) for number in np.flatnonzero(values > 0.5)) or "none"


def numbers_in_words(values: np.ndarray) -> str:
    """Some numbers, at most ten, to four digits."""
    flat = np.asarray(values).reshape(-1)
    told = ", ".join(f"{value:.4g}" for value in flat[:10].tolist())
    return told + (", …" if flat.size > 10 else "")


def _task(kind: str, label: Any, output: Any, units: int, names: Sequence[str] | None) -> Task:
    if units > 1 and "binary" in kind:
        return "multi_label"
    if units > 1:
        integers = "int" in str(label.dtype) and (len(label.shape) < len(output.shape) or label.shape[-1] == 1)
        named = names is not None and len(names) == units
        return "multi_class" if "categorical" in kind or integers or named else "regression"
    return "binary" if "binary" in kind or (names is not None and len(names) == 2) else "regression"
