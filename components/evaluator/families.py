"""Which metrics an output has, by what it answers; and those that the user adds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from kerasline.components.core.errors import ParameterError, UserCodeError
from kerasline.components.core.user_code import call, name_of
from kerasline.components.metrics.base import Direction, Metrics, Rows, SumMetrics, divided
from kerasline.components.models.task import Output


class RowMean(SumMetrics):
    """The mean of a figure that each row has, such as the loss that the model was compiled with.

    Args:
        name: of the metric, and of the column of `Rows.columns`.
    """

    def __init__(self, name: str, direction: Direction) -> None:
        self._name = name
        self.directions: Mapping[str, Direction] = {name: direction}

    @property
    def key(self) -> str:
        return f"RowMean {self._name}"

    def sums(self, rows: Rows) -> np.ndarray:
        if self._name not in rows.columns:  # of answers that have none
            return np.stack([np.ones(len(rows)), np.full(len(rows), np.nan)], axis=1)
        figure = rows.columns[self._name].to_numpy(zero_copy_only=False)
        return np.stack([np.ones(len(rows)), figure.astype(np.float64)], axis=1)

    def values(self, sums: np.ndarray) -> dict[str, np.ndarray]:
        return {self._name: divided(sums[..., 1], sums[..., 0])}


class UsersMean(SumMetrics):
    """The mean of what a function of the user's gives for each row, of `(label, prediction)`."""

    def __init__(self, function: Callable[[np.ndarray, np.ndarray], Any], direction: Direction = None) -> None:
        self._function, self._name = function, getattr(function, "__name__", type(function).__name__)
        self.directions: Mapping[str, Direction] = {self._name: direction}

    @property
    def key(self) -> str:
        return f"UsersMean {self._name}"

    def sums(self, rows: Rows) -> np.ndarray:
        given = call(self._function, rows.label, rows.prediction)
        try:
            values = np.asarray(given, np.float64)
        except (TypeError, ValueError) as error:
            raise UserCodeError(f"{name_of(self._function)} must give a number a row: {error}") from error
        if values.shape != (len(rows),):
            raise UserCodeError(
                f"{name_of(self._function)} must give a number for each of {len(rows)} rows, it gave an array of "
                f"shape {values.shape}"
            )
        return np.stack([np.ones(len(rows)), values], axis=1)

    def values(self, sums: np.ndarray) -> dict[str, np.ndarray]:
        return {self._name: divided(sums[..., 1], sums[..., 0])}


class SummedBefore(SumMetrics):
    """Metrics whose sums were computed along with the predictions, and are kept in their place."""

    def __init__(self, family: SumMetrics) -> None:
        self._family = family
        self.directions, self.shares = family.directions, family.shares

    def sums(self, rows: Rows) -> np.ndarray:
        return rows.prediction.astype(np.float64)

    def values(self, sums: np.ndarray) -> dict[str, np.ndarray]:
        return self._family.values(sums)


def summed(output: Output, settings: Any) -> SumMetrics | None:
    """What is computed along with the predictions, since these are too large to be kept; or None."""
    if output.task != "tokens":
        return None
    from kerasline.components.metrics.tokens import TokenMetrics

    return TokenMetrics(settings.padding)


def families_of(output: Output, settings: Any, middle: Any) -> tuple[Metrics, ...]:
    """The metrics of what an output answers.

    Args:
        settings: the Evaluator's parameters.
        middle: numbers near the mean of the label, float64 (numbers,), for regressions.
    """
    if output.task == "binary":
        from kerasline.components.metrics.binary import BinaryLosses, BinaryScores, BinaryThresholds

        return BinaryThresholds(settings.decision_thresholds, settings.beta), BinaryScores(), BinaryLosses()
    if output.task == "multi_class":
        from kerasline.components.metrics.multi_class import Confidence, Confusion, MultiClassLosses

        classes = len(output.classes)
        return Confusion(classes), MultiClassLosses(min(settings.top_k, classes)), Confidence()
    if output.task == "multi_label":
        from kerasline.components.metrics.multi_label import MultiLabelMetrics

        return (MultiLabelMetrics(len(output.classes), threshold=settings.decision_thresholds[0]),)
    if output.task == "ranking":
        from kerasline.components.metrics.ranking import RankingMetrics

        return (RankingMetrics(settings.query, at=settings.ndcg_at),)
    if output.task == "text":
        from kerasline.components.metrics.text import TextMetrics

        return (TextMetrics(settings.text_metrics),)
    if output.task == "detection":
        from kerasline.components.metrics.detection import DetectionMetrics

        return (DetectionMetrics(settings.detection_columns, replicates=settings.replicates),)
    if output.task == "tokens":
        return (SummedBefore(summed(output, settings)),)
    from kerasline.components.metrics.regression import RegressionErrors, ResidualQuantiles

    return RegressionErrors(middle, settings.loss_quantiles), ResidualQuantiles()


def users_metrics(given: Sequence[Any]) -> tuple[Metrics, ...]:
    """The user's own: functions of the rows, and metrics of the kinds that there are."""
    return tuple(one if isinstance(one, Metrics) else UsersMean(one) for one in given if _is_own(one))


def check_names(families: Sequence[Metrics]) -> None:
    """Raises a ParameterError where two of an output's families cannot be told apart."""
    names: set[str] = set()
    keys: set[str] = set()
    for family in families:
        taken = names & set(family.directions) if isinstance(family, UsersMean) else {family.key} & keys
        if taken:
            raise ParameterError(f"Evaluator.metrics: there is a {taken.pop()!r} already; call the other one otherwise")
        names |= set(family.directions)
        keys.add(family.key)


def keras_metrics(given: Sequence[Any]) -> list[Any]:
    """Those that are Keras's, by name or description."""
    return [one for one in given if not _is_own(one)]


def _is_own(given: Any) -> bool:
    return isinstance(given, Metrics) or callable(given)


def kept_columns(outputs: Sequence[Output], settings: Any, columns: Sequence[str]) -> tuple[str, ...]:
    """The raw columns that metrics need, of those that there are."""
    found = [settings.query] if settings.query else []
    if any(output.task == "detection" for output in outputs):
        from kerasline.components.metrics.detection import COLUMNS

        found += [settings.detection_columns.get(name, name) for name in COLUMNS]
    return tuple(dict.fromkeys(name for name in found if name in columns))
