"""Assigning rows to splits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kerasline.components.core.errors import DataError, nearest
from kerasline.components.data.hashing import row_hashes
from kerasline.components.data.shards import ExamplesWriter
from kerasline.components.example_gen.exact_shares import Assignment, Counts, assign_groups, assign_rows

_GOLDEN = (5**0.5 - 1) / 2


@dataclass(frozen=True)
class SplitRule:
    """How rows are assigned to splits.

    Attributes:
        by: `hash`: by a hash of the row or of the key columns, so that equal rows are always in the same split,
            whatever the other data; the sizes are met in the long run. `group`: rows with equal key columns stay
            together, and the sizes are as exact as that allows. `ratio`: in turn, so that the sizes are exact to a few
            rows. `column`: by the key column, which names the split.
        sizes: relative sizes by split, such as `{"train": 8, "eval": 1, "test": 1}`. By column, only the names count.
        key: the columns to hash, by default all, or the one column that names the split.
        stratify: column in each of whose values the sizes are exact, or None.
        data_name: what to call the data in messages.
        assigned: the result of counting, which `group` and `stratify` need: by stratum, or under None for all rows.
    """

    by: str
    sizes: Mapping[str, float]
    key: Sequence[str] | None
    stratify: str | None
    data_name: str
    assigned: Mapping[int | None, Assignment] | None = None

    @property
    def needs_counts(self) -> bool:
        return self.by == "group" or self.stratify is not None

    @property
    def keeps_groups(self) -> bool:
        """Whether the rows of a unit may be in several strata, because the key decides what stays together."""
        return self.by == "group" or (self.key is not None and self.stratify not in self.key)

    @property
    def shares(self) -> np.ndarray:
        """The sizes as shares with sum 1, float64 (splits,)."""
        sizes = np.array(list(self.sizes.values()), float)
        return sizes / sizes.sum()

    def new_counts(self) -> Counts:
        return Counts(self.stratify)

    def count(self, batch: pa.RecordBatch, counts: Counts) -> None:
        """Add the rows of a batch to the counts.

        Raises:
            DataError: the data has no such column, or `stratify` has lists or too many values.
        """
        self.check_columns(batch.schema)
        counts.add(row_hashes(batch, self.key), self.strata(batch))

    def strata(self, batch: pa.RecordBatch) -> np.ndarray:
        """Return a hash of each row's stratum, uint64 (rows,)."""
        return np.zeros(batch.num_rows, np.uint64) if self.stratify is None else row_hashes(batch, [self.stratify])

    def counted(self, counts: Counts) -> SplitRule:
        """Return the rule for data whose rows were all counted."""
        if not counts.strata:
            return replace(self, assigned={})
        if self.keeps_groups:
            return replace(self, assigned={None: assign_groups(counts, self.shares)})
        return replace(self, assigned=assign_rows(counts, self.shares))

    def check_columns(self, schema: pa.Schema) -> None:
        """Raise a DataError if the data lacks a column of the rule, or rows cannot be stratified by its type."""
        named = [(name, "split_key") for name in self.key or ()]
        named += [(self.stratify, "stratify")] if self.stratify is not None else []
        for name, parameter in named:
            if name not in schema.names:
                raise DataError(
                    f"{self.data_name}: no column {name!r}, which ExampleGen.{parameter} names; "
                    f"{nearest(name, schema.names)}"
                )
        kind = None if self.stratify is None else schema.field(self.stratify).type
        if kind is not None and (pa.types.is_nested(kind) or isinstance(kind, pa.BaseExtensionType)):
            raise DataError(
                f"{self.data_name}: ExampleGen.stratify takes a column with one value per row, and "
                f"{self.stratify!r} is {kind}"
            )

    def new_splitter(self) -> Splitter:
        """Return a splitter that starts at the first row of a part of the data."""
        return Splitter(self)


class Splitter:
    """Writes each row to its split, in the order of the rows.

    Raises:
        DataError: the data has no such key column, or one of its values names no split.
    """

    def __init__(self, rule: SplitRule) -> None:
        self._rule = rule
        self._names = list(rule.sizes)
        self._bounds = np.cumsum(rule.shares)[:-1] if rule.sizes else np.empty(0)
        self._rows = 0  # number of rows written, by ratio

    def write(self, batch: pa.RecordBatch, writer: ExamplesWriter) -> None:
        """Write the rows of the next batch to their splits."""
        self._rule.check_columns(batch.schema)
        assigned = self._assign(batch)
        for index, name in enumerate(self._names):
            rows = np.flatnonzero(assigned == index)
            if len(rows):
                writer.write(name, batch.take(pa.array(rows)))

    def _assign(self, batch: pa.RecordBatch) -> np.ndarray:
        """Return the index of each row's split, shape (rows,)."""
        if self._rule.assigned is not None:
            return self._assign_as_counted(batch, self._rule.assigned)
        if self._rule.by == "column":
            return self._assign_by_column(batch)
        if self._rule.by == "ratio":
            # Multiples of the golden ratio fill [0, 1) as evenly as any sequence (Knuth, TAOCP 3, 6.4).
            fraction: np.ndarray = np.arange(self._rows, self._rows + batch.num_rows) * _GOLDEN % 1
            self._rows += batch.num_rows
            return np.searchsorted(self._bounds, fraction, side="right")
        return self._assign_by_hash(row_hashes(batch, self._rule.key))

    def _assign_by_hash(self, hashes: np.ndarray) -> np.ndarray:
        # The upper 53 bits as a number in [0, 1): a float64 holds no more without rounding.
        return np.searchsorted(self._bounds, (hashes >> np.uint64(11)) * 2.0**-53, side="right")

    def _assign_as_counted(self, batch: pa.RecordBatch, assigned: Mapping[int | None, Assignment]) -> np.ndarray:
        hashes = row_hashes(batch, self._rule.key)
        if None in assigned:
            return assigned[None].of(hashes)
        strata, splits = self._rule.strata(batch), self._assign_by_hash(hashes)
        for stratum in np.unique(strata).tolist():
            if stratum in assigned:  # not if a database was written to since the rows were counted
                rows = strata == stratum
                splits[rows] = assigned[stratum].of(hashes[rows])
        return splits

    def _assign_by_column(self, batch: pa.RecordBatch) -> np.ndarray:
        (key,) = self._rule.key or ()
        column = batch.column(key).cast(pa.string())
        index = pc.index_in(column, value_set=pa.array(self._names))
        if index.null_count:
            unknown = column.filter(index.is_null())[0].as_py()
            raise DataError(
                f"column {key!r}: expected the name of a split in ExampleGen.splits, received {unknown!r}; "
                f"the splits are {', '.join(self._names)}"
            )
        return index.to_numpy()
