"""Compute all metrics, with bootstrap replicates, for all rows and every slice in one pass over the predictions."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from kerasline.components.core.component import Context
from kerasline.components.data.fold import fold
from kerasline.components.data.partial_results import split_into_parts
from kerasline.components.metrics.base import CellMetrics, Metrics, Rows, StateMetrics, SumMetrics
from kerasline.components.metrics.cell_counts import CellCounts
from kerasline.components.metrics.resampling import Resampling
from kerasline.components.metrics.slices import SliceTable

# Rows resampled at a time, so that their counts fit into the processor's cache.
ROWS_AT_ONCE = 8192
# Up to this many rows take less than a second, about as long as Beam needs to start.
MOST_ROWS_IN_PROCESS = 1 << 18
# Maximum number of pairs of cells of two models before they are coarsened, and then of cells of each model. Only the
# standard errors of differences depend on them.
MOST_PAIRS, MOST_CELLS_OF_A_MODEL = 1 << 14, 1 << 9


@dataclass(frozen=True)
class Measure:
    """The measurement to make.

    Attributes:
        families: metric families by output.
        slices: slices to measure.
        resampling: bootstrap replicates.
        weighted: whether rows have weights.
        answers: prefix of the evaluated columns: `prediction`, or the name of another model.
        baseline: prefix of the columns to compare with, row by row; or None.
        columns: raw columns that metrics need.
        partitions: number of sets of files to read together (see `models.prediction_files.Plan.query`), or 0 if rows
            are independent.
    """

    families: Mapping[str, tuple[Metrics, ...]]
    slices: SliceTable
    resampling: Resampling
    weighted: bool
    answers: str = "prediction"
    baseline: str | None = None
    columns: tuple[str, ...] = ()
    partitions: int = 0

    @property
    def models(self) -> list[str]:
        """Prefixes of the columns of the models that are measured."""
        return [self.answers, *([self.baseline] if self.baseline else [])]


@dataclass
class Measured:
    """Mergeable sums of a measurement.

    Attributes:
        rows: float64 (groups, 2), number of rows and sum of weights of each group.
        tallies: sums, cell counts or states by output, family and model.
        pairs: joint counts of the cells of both models by output and family, for cell metrics.
    """

    rows: np.ndarray
    tallies: dict[tuple[str, str, str], Any]  # SumTally, CellCounts, or states by group
    pairs: dict[tuple[str, str], CellCounts]

    def merge(self, other: Measured) -> Measured:
        self.rows += other.rows
        both: list[tuple[dict[Any, Any], dict[Any, Any]]] = [(self.tallies, other.tallies), (self.pairs, other.pairs)]
        for mine, theirs in both:
            for key, tally in theirs.items():
                if key not in mine:
                    mine[key] = tally
                elif isinstance(tally, dict):
                    for group, state in tally.items():
                        if group in mine[key]:
                            mine[key][group].merge(state)
                        else:
                            mine[key][group] = state
                else:
                    mine[key].merge(tally)
        return self


class SumTally:
    """Sums of a `SumMetrics`, in float64.

    Attributes:
        sums: (groups, k), weighted.
        plain: (groups, k), each unit counting once.
        replicates: (groups, replicates, k), weighted.
    """

    def __init__(self, groups: int, width: int, replicates: int) -> None:
        self.sums = np.zeros((groups, width))
        self.plain = np.zeros((groups, width))
        self.replicates = np.zeros((groups, replicates, width))

    def merge(self, other: SumTally) -> None:
        self.sums += other.sums
        self.plain += other.plain
        self.replicates += other.replicates


@dataclass(frozen=True)
class _Piece:
    """Unit of work: some row groups of a file, or some whole files as one batch."""

    files: tuple[str, ...]
    row_groups: tuple[int, ...] = ()


def measure(folder: Path, files: Sequence[str], request: Measure, context: Context) -> Measured:
    """Measure the predictions in some files of a folder.

    Raises:
        DataError: a metric cannot be computed from the values.
    """
    paths = [folder / file for file in files]
    if request.partitions:
        ends = [f"-{part}.parquet" for part in range(request.partitions)]
        sets = [tuple(str(path) for path in paths if path.name.endswith(end)) for end in ends]
        pieces = [_Piece(found) for found in sets if found]
    else:
        pieces = [_Piece((part.shard,), part.groups) for part in split_into_parts(paths)]
    here = _are_few(paths)
    found = fold(pieces, functools.partial(measure_piece, request=request), Measured.merge, context, in_process=here)
    return found or _no_rows(request)


def _are_few(paths: Sequence[Path]) -> bool:
    """Return whether there are at most `MOST_ROWS_IN_PROCESS` rows, opening only as many files as necessary."""
    left = MOST_ROWS_IN_PROCESS
    for path in paths:
        left -= pq.read_metadata(path).num_rows
        if left < 0:
            return False
    return True


def measure_piece(piece: _Piece, request: Measure) -> Measured:
    found = _no_rows(request)
    for batch in _batches(piece):
        _measure_batch(batch, request, found)
    return found


def measure_batch(batch: pa.RecordBatch, request: Measure) -> Measured:
    """Measure predictions in memory, with the columns of a file of predictions."""
    found = _no_rows(request)
    _measure_batch(batch, request, found)
    return found


def _no_rows(request: Measure) -> Measured:
    return Measured(np.zeros((len(request.slices.names), 2)), {}, {})


def _batches(piece: _Piece) -> Iterator[pa.RecordBatch]:
    if not piece.row_groups:
        table = pa.concat_tables([pq.read_table(file) for file in piece.files], promote_options="default")
        yield from table.unify_dictionaries().combine_chunks().to_batches()
        return
    with pq.ParquetFile(piece.files[0]) as file:
        yield from file.iter_batches(ROWS_AT_ONCE, row_groups=list(piece.row_groups), use_threads=False)


def _measure_batch(batch: pa.RecordBatch, request: Measure, found: Measured) -> None:
    number = batch.column("row").to_numpy()
    weight = batch.column("weight").to_numpy() if request.weighted else None
    labels = {name: batch.column(f"slice.{name}") for name in request.slices.slices}
    labels = {n: c.dictionary_decode() if pa.types.is_dictionary(c.type) else c for n, c in labels.items()}
    cuts = [_Cut.of(group) for group in request.slices.groups(labels, batch.num_rows)]
    for cut in cuts:
        for group, places in cut.parts:
            found.rows[group] += len(places), len(places) if weight is None else weight[places].sum()
    columns = {name: batch.column(f"column.{name}") for name in request.columns}
    resampled = _Resampled(request.resampling, number)
    for output, families in request.families.items():
        rows_of = {}
        for model in (one for one in request.models if f"{one}.{output}" in batch.schema.names):
            rows_of[model] = rows_of_output(batch, output, model, weight, columns)
        baseline = rows_of[request.baseline].prediction if request.baseline in rows_of else None
        compared = {m: replace(rows, baseline=baseline) for m, rows in rows_of.items() if m == request.answers}
        for family in families:
            rows = compared if family.compares_with_baseline else rows_of
            _add(family, output, rows, cuts, resampled, request, found)


def rows_of_output(
    batch: pa.RecordBatch, output: str, model: str, weight: np.ndarray | None, columns: Mapping[str, pa.Array]
) -> Rows:
    """Return the labels and predictions of one output and one model."""
    names, number = batch.schema.names, batch.column("row").to_numpy()
    label = as_array(batch.column(f"label.{output}")) if f"label.{output}" in names else number
    loss = f"loss.{output}" if model == "prediction" else f"loss.{model}.{output}"
    further = {"loss": batch.column(loss), "loss_count": batch.column(f"loss_count.{output}")} if loss in names else {}
    answer = batch.column(f"{model}.{output}")
    if isinstance(answer, pa.StructArray):  # a prediction of several columns
        further |= {answer.type.field(k).name: answer.field(k) for k in range(answer.type.num_fields)}
        return Rows(label, number, weight, number, {**columns, **further})
    return Rows(label, as_array(answer), weight, number, {**columns, **further})


@dataclass(frozen=True)
class _Cut:
    """The rows of a batch, grouped by the slices of one slicing.

    Attributes:
        group: int64 (rows,), group of each row.
        parts: each group that has rows, with their indices.
    """

    group: np.ndarray
    parts: list[tuple[int, np.ndarray]]

    @classmethod
    def of(cls, group: np.ndarray) -> _Cut:
        if not group.any():
            return cls(group, [(0, np.arange(len(group)))])
        order = np.argsort(group, kind="stable")
        found, starts = np.unique(group[order], return_index=True)
        parts = zip(found.tolist(), np.split(order, starts[1:]))
        return cls(group, [(one, places) for one, places in parts if one >= 0])


class _Resampled:
    """Bootstrap counts of the rows of a batch, computed at first use."""

    def __init__(self, resampling: Resampling, number: np.ndarray) -> None:
        self._resampling, self._number = resampling, number

    @functools.cached_property
    def rows(self) -> np.ndarray:
        return self._resampling.counts(self._number).astype(np.float32)

    def of(self, places: np.ndarray | None) -> np.ndarray:
        """Return float32 (units, replicates), the counts of the units at these rows."""
        return self.rows if places is None else self.rows[places]


def _add(
    family: Metrics,
    output: str,
    rows_of: Mapping[str, Rows],
    cuts: Sequence[_Cut],
    resampled: _Resampled,
    request: Measure,
    found: Measured,
) -> None:
    groups = len(request.slices.names)
    cells = {}
    for model, rows in rows_of.items():
        key = (output, family.key, model)
        if isinstance(family, SumMetrics):
            sums = family.sums(rows)
            if key not in found.tallies:
                found.tallies[key] = SumTally(groups, sums.shape[1], request.resampling.replicates)
            weight = None if family.weighs_rows else rows.weight
            _add_sums(found.tallies[key], sums, family.unit_rows(rows), weight, cuts, resampled, request)
        elif isinstance(family, CellMetrics):
            cells[model] = family.cells(rows)
            counts = found.tallies.setdefault(
                key, CellCounts(groups, family.max_exact_cells, family.coarsen, family.coarsening_levels)
            )
            _add_cells(counts, cells[model].reshape(-1, 1), rows.weight, cuts)
        elif isinstance(family, StateMetrics):
            _add_states(found.tallies.setdefault(key, {}), family, rows, cuts)
    if isinstance(family, CellMetrics) and not family.row_groups and request.baseline in cells:
        both = np.stack([cells[model].reshape(-1) for model in request.models], axis=1)
        made = CellCounts(
            groups, MOST_PAIRS, family.coarsen, family.coarsening_levels, most_values=MOST_CELLS_OF_A_MODEL
        )
        counts = found.pairs.setdefault((output, family.key), made)
        _add_cells(counts, both, rows_of[request.answers].weight, cuts)


def _add_sums(
    tally: SumTally,
    sums: np.ndarray,
    places: np.ndarray | None,
    weight: np.ndarray | None,
    cuts: Sequence[_Cut],
    resampled: _Resampled,
    request: Measure,
) -> None:
    weight = weight if places is None or weight is None else weight[places]
    counts = resampled.of(places) if request.resampling.replicates else None
    for cut in cuts:
        parts = cut.parts if places is None else _Cut.of(cut.group[places]).parts
        for group, units in parts:
            mine = (
                _Units(sums, weight, counts)
                if len(units) == len(sums)
                else _Units(
                    sums[units],
                    None if weight is None else weight[units],
                    None if counts is None else counts[units],
                )
            )
            tally.plain[group] += mine.sums.sum(axis=0)
            tally.sums[group] += mine.weighted()
            if counts is not None:
                tally.replicates[group] += mine.resampled()


class _Units(NamedTuple):
    """Units: float64 (units, k), float64 (units,) or None, float32 (units, replicates) or None."""

    sums: np.ndarray
    weight: np.ndarray | None
    counts: np.ndarray | None

    def weighted(self) -> np.ndarray:
        return self.sums.sum(axis=0) if self.weight is None else self.weight @ self.sums

    def resampled(self) -> np.ndarray:
        """Return the weighted sums of each replicate, float64 (replicates, k).

        The product is computed in float32 for speed, after centring each column, so that differences of large sums,
        such as in R², keep their precision.
        """
        assert self.counts is not None
        middle = self.sums.mean(axis=0)
        weight = np.ones(len(self.sums)) if self.weight is None else self.weight
        about = (self.sums - middle) * weight[:, np.newaxis]
        both = self.counts.T @ np.column_stack([weight, about]).astype(np.float32)
        both = both.astype(np.float64)
        return both[:, 1:] + both[:, :1] * middle


def _add_cells(counts: CellCounts, cells: np.ndarray, weight: np.ndarray | None, cuts: Sequence[_Cut]) -> None:
    """Count cells (rows * m, numbers), m per row."""
    for cut in cuts:
        each = len(cells) // max(len(cut.group), 1)
        group = np.repeat(cut.group, each) if each > 1 else cut.group
        weights = weight if weight is None or each == 1 else np.repeat(weight, each)
        counts.add(group, cells, weights)


def _add_states(states: dict[int, Any], family: StateMetrics, rows: Rows, cuts: Sequence[_Cut]) -> None:
    for cut in cuts:
        for group, places in cut.parts:
            if group not in states:
                states[group] = family.new_state()
            states[group].add(rows if len(places) == len(rows) else rows.take(places))


def as_array(column: pa.Array) -> np.ndarray:
    """Convert a column to an array (rows, ...), with texts and lists as objects."""
    if isinstance(column, pa.FixedShapeTensorArray):
        return column.to_numpy_ndarray()
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type) or pa.types.is_struct(column.type):
        values = np.empty(len(column), object)
        values[:] = column.to_pylist()
        return values
    return column.to_numpy(zero_copy_only=False)
