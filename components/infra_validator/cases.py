"""The requests of a validation: real rows together and one by one, edge cases one by one, and the first one again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from kerasline.components.core.artifacts import Examples, TensorForm
from kerasline.components.core.errors import DataError, nearest

REAL, ALONE, EDGE, AGAIN = "real rows", "real rows, one by one", "edge cases", "real rows, again"
MAX_EDGE_CASES = 300
MAX_REQUEST_VALUES = 500_000  # about 10 MB of JSON

Rows = Mapping[str, np.ndarray]
"""Features by name, arrays (rows, ...)."""


@dataclass(frozen=True)
class Case:
    """Rows to send, and a name for messages."""

    kind: str
    name: str
    rows: Rows


@dataclass(frozen=True)
class Answer:
    """What a model answers to a case, with or without a server.

    Attributes:
        outputs: arrays by name; None if the case was refused.
        status: HTTP status. For a refusal without a server, the status with which the server reports that error.
        error: the reason of a refusal.
    """

    outputs: Mapping[str, np.ndarray] | None
    status: int = 200
    error: str = ""

    @property
    def is_refusal(self) -> bool:
        return self.outputs is None


def draw_rows(
    examples: Examples, split: str, inputs: Mapping[str, TensorForm], *, rows: int, seed: int
) -> dict[str, np.ndarray]:
    """Draw rows from a split without reading the other row groups.

    Rows that cannot be fed, such as those with a missing boolean, are left out.

    Args:
        examples: the data.
        split: the split.
        inputs: the inputs of the model by name.
        rows: number of rows to draw, at most.
        seed: seed of the draw.

    Returns:
        Raw features by name, arrays (rows, ...), in the order of the split.

    Raises:
        DataError: a column is missing or has the wrong type, or no row can be fed.
    """
    import pyarrow as pa

    from kerasline.components.data.model_inputs import feed
    from kerasline.components.data.row_groups import rows_at
    from kerasline.components.data.unfeedable_rows import unfeedable

    columns = examples.schema().names
    for name in inputs:
        if name not in columns:
            raise DataError(
                f"InfraValidator: the data has no column {name!r}, an input of the model; {nearest(name, columns)}"
            )
    available = examples.rows(split)
    if not available:
        raise DataError(f"InfraValidator.split: split {split!r} has no rows; choose another one")
    places = np.sort(np.random.default_rng(seed).choice(available, min(rows, available), replace=False))
    batch = pa.concat_tables(rows_at(examples, split, places, list(inputs))).combine_chunks().to_batches()[0]
    failed = unfeedable(batch, inputs)
    if len(failed) == batch.num_rows:
        raise DataError(f"InfraValidator: no row of split {split!r} can be fed to the model: {failed[0][1]}")
    return feed(batch.take(pa.array(np.delete(np.arange(batch.num_rows), [place for place, _ in failed]))), inputs)


def make_cases(real: Rows, edges: Mapping[str, Rows]) -> list[Case]:
    """Return all cases in the order in which they are sent. The first and the last have the same rows."""
    together = {name: array[: _rows_per_request(real)] for name, array in real.items()}
    batch = f"{count(together)} real rows together"
    return [
        Case(REAL, batch, together),
        *(Case(ALONE, f"real row {number}", row(real, number)) for number in range(count(real))),
        *(Case(EDGE, name, rows) for name, rows in edges.items()),
        Case(AGAIN, f"{batch}, again", together),
    ]


def sample(edges: Mapping[str, Rows], seed: int) -> dict[str, Rows]:
    """Return at most `MAX_EDGE_CASES` of the edge cases, drawn with the seed."""
    names = list(edges)
    if len(names) > MAX_EDGE_CASES:
        drawn = np.random.default_rng(seed).choice(len(names), MAX_EDGE_CASES, replace=False)
        names = [names[place] for place in np.sort(drawn)]
    return {name: edges[name] for name in names}


def row(rows: Rows, number: int) -> dict[str, np.ndarray]:
    """Return one row, arrays (1, ...)."""
    return {name: array[number : number + 1] for name, array in rows.items()}


def count(rows: Rows) -> int:
    """Return the number of rows."""
    return len(next(iter(rows.values())))


def _rows_per_request(rows: Rows) -> int:
    """Return how many rows fit into one request. Ten bytes of text count as one value."""
    values = sum(
        sum(map(len, array.ravel().tolist())) / 10 if array.dtype == object else array.size for array in rows.values()
    )
    return max(1, min(count(rows), int(MAX_REQUEST_VALUES * count(rows) / max(values, 1))))
