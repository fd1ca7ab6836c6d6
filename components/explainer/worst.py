"""The rows that a model gets most wrong, of a whole split; what is kept on the way is those few alone."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from kerasline.components.core.artifacts import Examples
from kerasline.components.core.component import Context
from kerasline.components.data.fold import fold
from kerasline.components.data.row_groups import row_groups
from kerasline.components.explainer.progress import begun, watched
from kerasline.components.explainer.subject import Question, opened


@dataclass
class Worst:
    """The rows of the highest loss; of equal losses, the first.

    Attributes:
        most: how many are kept.
        losses: float64 (kept,), the highest first. What is no number is higher than any. Of a metric of which
            more is better, its negative.
        places: int64 (kept,): where they stand in the split.
    """

    most: int
    losses: np.ndarray = field(default_factory=lambda: np.zeros(0))
    places: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    def add(self, losses: np.ndarray, places: np.ndarray) -> Worst:
        """Takes in rows."""
        losses, places = np.concatenate([self.losses, losses]), np.concatenate([self.places, places])
        ranked = np.where(np.isnan(losses), np.inf, losses)
        kept = np.lexsort((places, -ranked))[: self.most]
        self.losses, self.places = losses[kept], places[kept]
        return self

    def merge(self, other: Worst) -> Worst:
        return self.add(other.losses, other.places)


def worst_rows(question: Question, examples: Examples, split: str, most: int, context: Context) -> Worst:
    """Searches a whole split; rows of no weight are left out."""
    elements = [(*group, examples.rows(split)) for group in row_groups(examples, split)]
    progress = context.work_dir / "worst"
    accumulate = functools.partial(_of_group, question=question, most=most, progress=progress)
    with watched(progress, "worst rows, part", len(elements), context.report):
        return fold(elements, accumulate, Worst.merge, context) or Worst(most)


def _of_group(element: tuple[str, int, int, int, int], question: Question, most: int, progress: Any) -> Worst:
    shard, group, first, rows, of = element
    begun(progress, f"rows {first:,} to {first + rows:,} of {of:,}")
    subject, worst = opened(question), Worst(most)
    with pq.ParquetFile(shard) as file:
        for batch in file.iter_batches(subject.rows_at_once, row_groups=[group], columns=subject.columns):
            label, weight = subject.given(batch)
            measured = subject.measured(subject.errors, subject.raw(batch), label)
            losses = measured if subject.errors.less else -measured
            counted = weight > 0
            worst.add(losses[counted], (first + np.arange(len(losses)))[counted])
            first += len(losses)
    return worst
