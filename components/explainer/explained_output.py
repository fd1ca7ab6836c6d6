"""The meaning of a model's output, and its labels and predictions as text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from kerasline.components.models.compile_config import CompiledLoss
from kerasline.components.models.tasks import TASKS, classes_of_units, has_margins, infer_task


@dataclass(frozen=True)
class ExplainedOutput:
    """The output that is explained.

    Attributes:
        task: key of `kerasline.components.models.tasks.TASKS`.
        units: size of the last axis.
        classes: names of the classes, or None.
        from_logits: whether the scores are logits, or margins of a hinge loss.
        loss: the compiled loss, or None.
    """

    task: str
    units: int
    classes: tuple[str, ...] | None
    from_logits: bool
    loss: CompiledLoss | None

    @classmethod
    def of(cls, loss: CompiledLoss | None, label: Any, output: Any, names: Sequence[str] | None) -> ExplainedOutput:
        """Infer the task from loss, label and shapes.

        Args:
            label: symbolic tensor (rows, ...).
            output: symbolic tensor (rows, ...).
            names: names of the classes, or None.
        """
        units = output.shape[-1] if len(output.shape) > 1 else 1
        kind = loss.kind if loss else ""
        task = infer_task(kind, label, output, names)
        scores = TASKS[task].probabilities
        classes = classes_of_units(names, units) if scores else None
        from_logits = loss is not None and scores and (loss.from_logits or has_margins(kind))
        return cls(task, units, classes, from_logits, loss)

    @property
    def one_class(self) -> bool:
        return TASKS[self.task].one_class

    def scores(self, prediction: tf.Tensor) -> tf.Tensor:
        """Return probabilities if the model returns logits or margins, else its output as float32."""
        prediction = tf.cast(prediction, tf.float32)
        if not self.from_logits:
            return prediction
        return tf.nn.softmax(prediction) if self.one_class else tf.sigmoid(prediction)

    def by_unit(self, prediction: tf.Tensor) -> tf.Tensor:
        """Return the scores of each row, float32 (rows, units), averaged over the axes between, such as time."""
        scores = self.scores(prediction)
        return tf.reduce_mean(tf.reshape(scores, [tf.shape(scores)[0], -1, self.units]), axis=1)

    def unit_name(self, unit: int) -> str | None:
        """Return the class of a unit, or None if there is only one unit."""
        if self.units == 1:
            return None
        return self.classes[unit] if self.classes else str(unit)

    def label_as_text(self, label: np.ndarray) -> str:
        """Return the label of one row as text."""
        if self.one_class:
            held = label.reshape(-1, self.units) if label.ndim and label.shape[-1] == self.units else label.reshape(-1)
            return ", ".join(self._class(int(number)) for number in (held.argmax(-1) if held.ndim == 2 else held)[:10])
        if self.task == "multi_label":
            return self._positive_classes(label.reshape(-1))
        if self.task == "binary" and label.size == 1:
            return self._class(int(label.item() > 0.5))
        return numbers_as_text(label)

    def prediction_as_text(self, scores: np.ndarray) -> tuple[str, float]:
        """Return the prediction of one row as text, and its score: of the predicted class, of class 1, or the number.

        Args:
            scores: float array (units,).
        """
        if self.one_class:
            best = int(scores.argmax())
            return self._class(best), float(scores[best])
        if self.task == "multi_label":
            return self._positive_classes(scores), float(scores.max())
        if self.task == "binary" and self.classes:
            return self._class(int(scores[0] > 0.5)), float(scores[0])
        return numbers_as_text(scores), float(scores[0])

    def _class(self, number: int) -> str:
        return self.classes[number] if self.classes and 0 <= number < len(self.classes) else str(number)

    def _positive_classes(self, values: np.ndarray) -> str:
        return ", ".join(self._class(int(number)) for number in np.flatnonzero(values > 0.5)) or "none"


def numbers_as_text(values: np.ndarray) -> str:
    """Return up to ten numbers with four digits each."""
    flat = np.asarray(values).reshape(-1)
    text = ", ".join(f"{value:.4g}" for value in flat[:10].tolist())
    return text + (", …" if flat.size > 10 else "")
