"""The rows of a split with the largest loss. Only the current worst rows are kept in memory."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from kerasline.components.core.artifacts import Examples
from kerasline.components.core.component import Context
from kerasline.components.data.fold import fold
from kerasline.components.data.row_groups import row_groups
from kerasline.components.data.worst_rows import Worst
from kerasline.components.explainer.progress import record_start, report_progress
from kerasline.components.explainer.subject import Target, load_subject


def worst_rows(target: Target, examples: Examples, split: str, most: int, context: Context) -> Worst:
    """Find the worst rows of a split. Rows without weight are ignored."""
    elements = [(*group, examples.rows(split)) for group in row_groups(examples, split)]
    progress = context.work_dir / "worst"
    accumulate = functools.partial(_of_group, target=target, most=most, progress=progress)
    with report_progress(progress, "worst rows, part", len(elements), context.report):
        return fold(elements, accumulate, Worst.merge, context) or Worst(most)


def _of_group(element: tuple[str, int, int, int, int], target: Target, most: int, progress: Any) -> Worst:
    shard, group, first, rows, total = element
    record_start(progress, f"rows {first:,} to {first + rows:,} of {total:,}")
    subject, worst = load_subject(target), Worst(most)
    with pq.ParquetFile(shard) as file:
        for batch in file.iter_batches(subject.rows_at_once, row_groups=[group], columns=subject.columns):
            label, weight = subject.labels_and_weights(batch)
            values = subject.metric_values(subject.errors, subject.raw(batch), label)
            losses = values if subject.errors.lower_is_better else -values
            counted = weight > 0
            worst.add(losses[counted], (first + np.arange(len(losses)))[counted])
            first += len(losses)
    return worst
