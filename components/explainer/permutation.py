"""Permutation importance: the worsening of a metric when a raw column is permuted among the rows.

Breiman, "Random forests", 2001; as "model reliance", a U-statistic: Fisher, Rudin and Dominici, "All models
are wrong, but many are useful", 2019. Columns are permuted before the preprocessing.
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
from kerasline.components.explainer.progress import record_start, report_progress
from kerasline.components.explainer.sample import load_sample
from kerasline.components.explainer.subject import Target, load_subject


@dataclass(frozen=True)
class Importance:
    """The worsening of the metric for a column, with a normal interval.

    Attributes:
        by_repeat: the worsening for each permutation.
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


def importances(target: Target, sample: Path, *, repeats: int, seed: int, context: Context) -> list[Importance]:
    """Compute the importance of every column that the features use, the most important first.

    Args:
        sample: the folder of the sample.
        repeats: permutations of each column.
    """
    features = list(load_subject(target).features.input)
    progress = context.work_dir / "permutations"
    accumulate = functools.partial(
        _importance, target=target, sample=sample, repeats=repeats, seed=seed, progress=progress
    )
    with report_progress(progress, "permutation importance", len(features), context.report):
        found = fold(features, accumulate, operator.add, context) or []
    return sorted(found, key=lambda one: (-one.importance, one.feature))


def permutations(rows: int, repeats: int, seed: int) -> np.ndarray:
    """Return the source row of each row, int64 (repeats, rows). The same permutations are used for every column.

    They equal those of scikit-learn's `permutation_importance` with this `random_state`, so that results are
    comparable to the last digit. Each permutation shuffles the result of the previous one.
    """
    random = np.random.RandomState(np.random.RandomState(seed).randint(np.iinfo(np.int32).max + 1))
    shuffled, places, found = np.arange(rows), np.arange(rows), []
    for _ in range(repeats):
        random.shuffle(shuffled)
        places = places[shuffled]
        found.append(places)
    return np.array(found)


def worsening(after: np.ndarray, before: np.ndarray, lower_is_better: bool) -> np.ndarray:
    """Return the worsening of the metric of each row."""
    return after - before if lower_is_better else before - after


def importance_of(feature: str, worse: np.ndarray, places: np.ndarray, weight: np.ndarray) -> Importance:
    """Compute the mean worsening with its interval.

    Both rows and permutations are random, and each value has an influence through the row that loses it and the row
    that receives it. The mean over pairs of rows is a U-statistic, whose variance is that of the sum of both
    influences (Hajek projection: van der Vaart, 1998, chapters 11 and 12). Each influence is a mean over few
    permutations, whose noise makes the interval somewhat wider. If few rows contribute most of the worsening, the
    coverage is lower than stated, as for normal intervals of skewed means in general.

    Args:
        worse: worsening of each row, float64 (repeats, rows).
        places: source row of each row's value, int64 (repeats, rows).
        weight: float64 (rows,).
    """
    rows = worse.shape[1]
    by_repeat = (worse * weight).sum(1) / weight.sum()
    importance = float(by_repeat.mean())
    influence = weight * (worse - importance) * (rows / weight.sum())
    received = np.zeros_like(influence)
    np.put_along_axis(received, places, influence, axis=1)
    low, high = around(importance, (influence + received).mean(0))
    if not worse.any():
        low = high = importance = 0.0
    return Importance(feature, importance, low, high, tuple(by_repeat.tolist()))


def _importance(
    feature: str, target: Target, sample: Path, repeats: int, seed: int, progress: Path
) -> list[Importance]:
    record_start(progress, feature)
    subject, drawn = load_subject(target), load_sample(sample)
    places, label = permutations(drawn.rows, repeats, seed), drawn.row_values.label
    column, worse = drawn.table.column(feature), np.empty((repeats, drawn.rows))
    for chunk in drawn.chunks(subject):
        part = slice(*chunk)
        for repeat in range(repeats):
            raw = drawn.raw(subject, chunk, {feature: column.take(places[repeat, part])})
            after, before = subject.metric_values(subject.metric, raw, label[part]), drawn.row_values.metric[part]
            worse[repeat, part] = worsening(after, before, subject.metric.lower_is_better)
    return [importance_of(feature, worse, places, drawn.row_values.weight)]
