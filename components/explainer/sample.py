"""The sample of rows to explain, in a file that workers map into memory."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from kerasline.components.core.artifacts import Examples
from kerasline.components.core.errors import DataError
from kerasline.components.data.model_inputs import feed
from kerasline.components.data.row_groups import rows_at
from kerasline.components.explainer.subject import Raw, Subject

ROWS, ROW_VALUES = "rows.arrow", "row_values.npz"
# Cache the model inputs as tensors if the sample has at most this size.
MOST_BYTES_CACHED = 64 << 20


@dataclass(frozen=True)
class RowValues:
    """Labels, weights and metric of the sample's rows, each (rows, ...).

    Attributes:
        label: the label as in training.
        weight: float64 (rows,).
        metric: the metric of each row, float64 (rows,).
    """

    label: np.ndarray
    weight: np.ndarray
    metric: np.ndarray


class Sample:
    """The sample in a folder that `draw` has written."""

    def __init__(self, folder: Path) -> None:
        self.table = pa.ipc.open_file(pa.memory_map(str(folder / ROWS))).read_all()
        self.rows = self.table.num_rows
        with np.load(folder / ROW_VALUES) as arrays:
            self.row_values = RowValues(**arrays)
        self._cached: dict[tuple[int, int], Raw] = {}

    def chunks(self, subject: Subject) -> list[tuple[int, int]]:
        """Return the first row and the end of each batch of predictions."""
        return _chunks(self.rows, subject.rows_at_once)

    def raw(self, subject: Subject, chunk: tuple[int, int], replaced: Mapping[str, pa.Array] = {}) -> Raw:
        """Return the model inputs of a chunk, with some columns replaced."""
        cached = self._cached.get(chunk)
        if cached is None:
            cached = subject.raw(self.table.slice(chunk[0], chunk[1] - chunk[0]))
            if self.table.nbytes <= MOST_BYTES_CACHED:
                self._cached[chunk] = cached
        if not replaced:
            return cached
        inputs = {name: subject.features.input[name] for name in replaced}
        return {**cached, **subject.tensors(feed(pa.table(dict(replaced)), inputs))}

    def metric(self, subject: Subject) -> np.ndarray:
        """Compute the metric of every row."""
        label = self.row_values.label
        parts = [
            subject.metric_values(subject.metric, self.raw(subject, c), label[slice(*c)]) for c in self.chunks(subject)
        ]
        return np.concatenate(parts)


@functools.lru_cache(maxsize=4)
def load_sample(folder: Path) -> Sample:
    """Return the sample of a folder, loaded once per process."""
    return Sample(folder)


def draw(subject: Subject, examples: Examples, split: str, *, most: int, seed: int, folder: Path) -> Sample:
    """Sample up to `most` rows without replacement, in the order of the split.

    Raises:
        ArtifactError: the split does not exist.
        DataError: the split has no rows, or all weights are zero.
    """
    rows = examples.rows(split)
    if not rows:
        raise DataError(f"{examples.path}: split {split!r} has no rows")
    random = np.random.RandomState(seed)
    places = np.arange(rows) if rows <= most else np.sort(random.choice(rows, most, replace=False))
    folder.mkdir(parents=True)
    writer, labels, weights = None, [], []
    for table in rows_at(examples, split, places, subject.columns):
        writer = writer or pa.ipc.new_file(str(folder / ROWS), table.schema)
        writer.write_table(table)
        for start in range(0, table.num_rows, subject.rows_at_once):
            label, weight = subject.labels_and_weights(table.slice(start, subject.rows_at_once))
            labels.append(label)
            weights.append(weight)
    if writer is not None:
        writer.close()
    weight = np.concatenate(weights)
    if not weight.sum() > 0:
        raise DataError(f"{examples.path}: the weights of all rows of split {split!r} are zero")
    values: dict[str, Any] = {"label": np.concatenate(labels), "weight": weight, "metric": np.zeros(0)}
    np.savez(folder / ROW_VALUES, **values)
    np.savez(folder / ROW_VALUES, **{**values, "metric": Sample(folder).metric(subject)})
    return load_sample(folder)


def _chunks(rows: int, at_once: int) -> list[tuple[int, int]]:
    return [(start, min(start + at_once, rows)) for start in range(0, rows, at_once)]
