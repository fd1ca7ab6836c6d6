"""What kind of question an output of a model answers, and its answers as metrics take them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from kerasline.components.core.errors import DataError

Task = Literal["binary", "multi_class", "multi_label", "regression", "ranking", "tokens", "text", "detection"]


@dataclass(frozen=True)
class Output:
    """One output of a model, and what is true of it.

    Attributes:
        name: of the output.
        task: what it answers.
        classes: what whole-numbered classes are called; of a binary answer those of 0 and 1.
        from_logits: whether a classifier's scores are logits.
    """

    name: str
    task: Task
    classes: tuple[str, ...] | None = None
    from_logits: bool = False

    def label(self, values: np.ndarray) -> np.ndarray:
        """Labels as metrics take them: whole numbers (rows,) for classes, 0 and 1 for binary ones,
        float64 (rows,) for numbers; others as they are.

        Raises:
            DataError: a binary label is neither 0 nor 1; one of several classes is none of them.
        """
        if self.task == "multi_class":
            if values.ndim > 1 and values.shape[-1] > 1:
                return values.argmax(axis=-1).astype(np.int64)
            return self._classes_of(self._one_a_row(values, "label"))
        if self.task == "binary":
            flat = self._one_a_row(values, "label")
            if not np.isin(flat, (0, 1)).all():
                found = flat[~np.isin(flat, (0, 1))][0]
                raise DataError(
                    f"the label of output {self.name!r} holds {found:g}, where a binary answer is 0 or 1; "
                    f'set Evaluator.task={{"{self.name}": "regression"}} if it is a number'
                )
            return flat.astype(np.int64)
        if self.task in ("regression", "ranking"):
            return _flat(values.astype(np.float64))
        return values

    def prediction(self, values: np.ndarray) -> np.ndarray:
        """Answers as metrics take them: probabilities for classes, numbers (rows,) where there is one."""
        if self.task in ("binary", "multi_label"):
            values = _sigmoid(values) if self.from_logits else values
            return self._one_a_row(values, "prediction") if self.task == "binary" else values
        if self.task in ("multi_class", "tokens"):
            return _softmax(values) if self.from_logits else values
        if self.task in ("regression", "ranking"):
            return _flat(values)
        return values

    def _classes_of(self, values: np.ndarray) -> np.ndarray:
        classes = len(self.classes or ())
        wrong = ~((values >= 0) & (values < classes))
        if classes and wrong.any():
            raise DataError(
                f"the label of output {self.name!r} holds {values[wrong][0]:g}, where classes are 0 to "
                f"{classes - 1}; a label that training did not see may be -1: leave such rows out, or give the "
                "label's lookup all classes"
            )
        return values.astype(np.int64)

    def _one_a_row(self, values: np.ndarray, what: str) -> np.ndarray:
        if values.size != len(values):
            raise DataError(
                f"the {what} of output {self.name!r} has the shape {values.shape[1:]} a row, where one number is "
                f"wanted of task {self.task!r}; set Evaluator.task to another"
            )
        return values.reshape(len(values))


def task_of(loss: Any, tensor: Any, class_names: Any) -> Task:
    """What an output answers, by the loss that it was trained with.

    Args:
        loss: a `CompiledLoss`, or None.
        tensor: the output, symbolic.
        class_names: of its label, where they are known.
    """
    kind, width = "" if loss is None else loss.kind, tensor.shape[-1] if len(tensor.shape) > 1 else 1
    if "binary" in kind:
        return "binary" if width == 1 else "multi_label"
    if "categorical" in kind or (isinstance(class_names, (list, tuple)) and width == len(class_names) > 1):
        return "tokens" if len(tensor.shape) > 2 else "multi_class"
    return "regression"


def _flat(values: np.ndarray) -> np.ndarray:
    """(rows, 1) as (rows,); several numbers a row as they are."""
    return values.reshape(len(values)) if values.ndim > 1 and values[:1].size <= 1 else values


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    small = np.exp(-np.abs(logits.astype(np.float64)))  # never overflows
    return np.where(logits >= 0, 1 / (1 + small), small / (1 + small))


def _softmax(logits: np.ndarray) -> np.ndarray:
    logits = logits.astype(np.float64)
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)
