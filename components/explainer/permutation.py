"""Permutation importance: how much worse a model answers when a raw column is permuted among the rows.

Breiman, "Random forests", 2001; as "model reliance", a U-statistic: Fisher, Rudin and Dominici, "All models
are wrong, but many are useful", 2019. Columns are permuted before the preprocessing, which is inside.
"""

from __future__ import annotations

import functools
import operator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kerasline.components.core.component import Context
from kerasline.components.data.fold import fold
from kerasline.components.explainer.intervals import around
from kerasline.components.explainer.progress import begun, watched
from kerasline.components.explainer.sample import opened_sample
from kerasline.components.explainer.subject import Question, opened


@dataclass(frozen=True)
class Importance:
    """Of one column: by how much the metric is worse, with a normal interval.

    Attributes:
        by_repeat: the same of each permutation.
    """

    feature: str
    importance: float
    low: float
    high: float
    by_repeat: tuple[float, ...]

    def as_json(self) -> dict[str, Any]:
        return {
            "feature": self.feature,
            "importance": self.importance,
            "low": self.low,
            "high": self.high,
            "by_repeat": list(self.by_repeat),
        }


def importances(question: Question, sample: Path, *, repeats: int, seed: int, context: Context) -> list[Importance]:
    """Of every column that the features need, the most important first.

    Args:
        sample: the folder of the rows.
        repeats: permutations of each column.
    """
    features = list(opened(question).features.input)
    progress = context.work_dir / "permutations"
    accumulate = functools.partial(
        _importance, question=question, sample=sample, repeats=repeats, seed=seed, progress=progress
    )
    with watched(progress, "permutation importance", len(features), context.report):
        found = fold(features, accumulate, operator.add, context) or []
    return sorted(found, key=lambda one: (-one.importance, one.feature))


def permutations(rows: int, repeats: int, seed: int) -> np.ndarray:
    """Which row's value each row gets, int64 (repeats, rows): the same for every column.

    They are those of scikit-learn's `permutation_importance` with this `random_state`, so that the two can be
    compared to the last digit: each shuffles what the one before it left.
    """
    random = np.random.RandomState(np.random.RandomState(seed).randint(np.iinfo(np.int32).max + 1))
    shuffled, places, found = np.arange(rows), np.arange(rows), []
    for _ in range(repeats):
        random.shuffle(shuffled)
        places = places[shuffled]
        found.append(places)
    return np.array(found)


def worsening(measured: np.ndarray, before: np.ndarray, less: bool) -> np.ndarray:
    """By how much rows are answered worse."""
    return measured - before if less else before - measured


def importance_of(feature: str, worse: np.ndarray, places: np.ndarray, weight: np.ndarray) -> Importance:
    """The mean worsening with its interval.

    Rows and permutations both are drawn by chance, and a value counts twice: for the row that loses it and the
    row that gets it. The mean over pairs of rows is a U-statistic, whose variance is that of the sum of both
    influences (its Hajek projection: van der Vaart, 1998, chapters 11 and 12). Each influence is a mean over few
    permutations, whose noise makes the interval somewhat wider. Where few rows carry most of the worsening, it
    holds less often than it says, as normal intervals of skewed means do.

    Args:
        worse: of each row, float64 (repeats, rows).
        places: whose value it got, int64 (repeats, rows).
        weight: float64 (rows,).
    """
    rows = worse.shape[1]
    by_repeat = (worse * weight).sum(1) / weight.sum()
    importance = float(by_repeat.mean())
    influence = weight * (worse - importance) * (rows / weight.sum())
    lent = np.zeros_like(influence)
    np.put_along_axis(lent, places, influence, axis=1)
    low, high = around(importance, (influence + lent).mean(0))
    if not worse.any():
        low = high = importance = 0.0
    return Importance(feature, importance, low, high, tuple(by_repeat.tolist()))


def _importance(
    feature: str, question: Question, sample: Path, repeats: int, seed: int, progress: Path
) -> list[Importance]:
    begun(progress, feature)
    subject, rows = opened(question), opened_sample(sample)
    places, label = permutations(rows.rows, repeats, seed), rows.given.label
    column, worse = rows.table.column(feature), np.empty((repeats, rows.rows))
    for chunk in rows.chunks(subject):
        part = slice(*chunk)
        for repeat in range(repeats):
            raw = rows.raw(subject, chunk, {feature: column.take(places[repeat, part])})
            measured = subject.measured(subject.metric, raw, label[part])
            worse[repeat, part] = worsening(measured, rows.given.measured[part], subject.metric.less)
    return [importance_of(feature, worse, places, rows.given.weight)]
