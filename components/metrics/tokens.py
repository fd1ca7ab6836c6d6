"""Metrics of sequences of tokens: next-token prediction or a label per token."""

from __future__ import annotations

import numpy as np

from kerasline.components.core.errors import DataError
from kerasline.components.metrics.base import Direction, Rows, SumMetrics, divided
from kerasline.components.metrics.binary import EPSILON


class TokenMetrics(SumMetrics):
    """Accuracy of tokens and of whole sequences, cross entropy and perplexity.

    - `token_accuracy`: the proportion of tokens whose most likely class is correct. The first wins ties.
    - `sequence_accuracy`: the proportion of rows whose tokens are all correct. Rows without tokens are ignored.
    - `cross_entropy`: the mean over tokens of -ln p, p the probability of the right class, kept `EPSILON` off 0
      and 1.
    - `perplexity`: exp(cross_entropy) (Jelinek et al., Journal of the Acoustical Society of America 62, 1977).

    The means are over the tokens of all rows; a row's weight is that of each of its tokens, unless tokens have weights
    of their own. The label is whole
    numbers (rows, length), or lists as an array of objects (rows,); the prediction probabilities
    (rows, length, classes), or arrays and lists of such as objects (rows,). Shorter lists are filled up with
    padding to the longest prediction.

    Args:
        ignore: the label of padding. Negative labels are always ignored, and shorter lists are padded
            with them.

    Raises:
        DataError: when computing: the shapes do not fit together, or a label is not among the classes.
    """

    directions: dict[str, Direction] = {
        "token_accuracy": "up",
        "sequence_accuracy": "up",
        "cross_entropy": "down",
        "perplexity": "down",
    }
    # Tokens of a row are not independent of each other, rows are.
    proportions = {"sequence_accuracy": (4, 3)}

    def __init__(self, ignore: int = -1):
        self.ignore = ignore

    def sums(self, rows: Rows) -> np.ndarray:
        if not len(rows):
            return np.zeros((0, 6))
        probability, label = _probabilities(rows.prediction), _labels(rows.label)
        label = _fitted(label, probability.shape[:2], ragged=rows.label.dtype == object)
        counted = (label >= 0) & (label != self.ignore)
        if (label[counted] >= probability.shape[2]).any():
            raise DataError(
                f"a label is {label[counted].max()}, but the predictions are of the "
                f"{probability.shape[2]} classes from 0 on"
            )
        right = (probability.argmax(axis=2) == label) & counted
        of_label = np.take_along_axis(probability, np.where(counted, label, 0)[..., np.newaxis], axis=2)[..., 0]
        surprise = -np.log(np.clip(of_label.astype(np.float64), EPSILON, 1 - EPSILON))
        weight = counted.astype(np.float64) if rows.weight is None or rows.weight.ndim == 1 else counted * rows.weight
        return np.column_stack(
            [
                np.ones(len(rows)),
                weight.sum(axis=1),
                (weight * right).sum(axis=1),
                counted.any(axis=1),
                counted.any(axis=1) & (right | ~counted).all(axis=1),
                np.where(counted, weight * surprise, 0).sum(axis=1),
            ]
        )

    def values(self, sums: np.ndarray) -> dict[str, np.ndarray]:
        _, tokens, right_tokens, sequences, right_sequences, surprise = np.moveaxis(sums, -1, 0)
        cross_entropy = divided(surprise, tokens)
        return {
            "token_accuracy": divided(right_tokens, tokens),
            "sequence_accuracy": divided(right_sequences, sequences),
            "cross_entropy": cross_entropy,
            "perplexity": np.exp(cross_entropy),
        }


def _probabilities(prediction: np.ndarray) -> np.ndarray:
    """Return probabilities, float (rows, length, classes)."""
    if prediction.dtype == object:
        prediction = _stacked([np.asarray(row, np.float64) for row in prediction])
    if prediction.ndim != 3 or not prediction.shape[2]:
        raise DataError(
            "predictions of tokens are probabilities (length, classes) a row, but have the shape "
            f"{prediction.shape[1:]}"
        )
    return prediction


def _stacked(rows: list[np.ndarray]) -> np.ndarray:
    """Return rows of several lengths as one array, padded with 0."""
    shapes = {row.shape[1:] for row in rows if row.size}
    if len(shapes) > 1:
        raise DataError(f"predictions of tokens have different shapes: {sorted(shapes)} a token")
    filled = np.zeros((len(rows), max(map(len, rows)), *(shapes.pop() if shapes else (1,))))
    for place, row in enumerate(rows):
        if row.size:
            filled[place, : len(row)] = row
    return filled


def _labels(label: np.ndarray) -> np.ndarray:
    """int64 (rows, length); lists filled up with -1."""
    if label.dtype != object:
        if label.ndim != 2:
            raise DataError(f"labels of tokens are (length,) a row, but have the shape {label.shape[1:]}")
        return label.astype(np.int64)
    lengths = np.array([0 if row is None else len(row) for row in label])
    filled = np.full((len(label), lengths.max(initial=0)), -1)
    values = [np.asarray(row) for row, length in zip(label, lengths) if length]
    if values:
        filled[np.arange(filled.shape[1]) < lengths[:, np.newaxis]] = np.concatenate(values)
    return filled


def _fitted(label: np.ndarray, shape: tuple[int, ...], *, ragged: bool) -> np.ndarray:
    """Return the labels in the shape of the predictions. Ragged labels are padded."""
    if ragged and label.shape[1] < shape[1]:
        label = np.pad(label, ((0, 0), (0, shape[1] - label.shape[1])), constant_values=-1)
    if label.shape != shape:
        raise DataError(f"labels of {label.shape[1]} tokens a row do not fit predictions of {shape[1]}")
    return label
