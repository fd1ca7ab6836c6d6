"""What is said of an evaluation from outside: slices, and the bounds that a model must keep."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Union

from annotated_types import Ge, Gt, Len, Lt
from pydantic import BaseModel, ConfigDict


class Buckets(BaseModel):
    """A number cut into parts: `buckets` of as many rows each, or at `edges`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    column: str
    buckets: Annotated[int, Gt(1)] | None = None
    edges: Annotated[list[float], Len(1)] | None = None


# By a column or a cross of columns, a number cut into parts, several of these together, or a function of
# a `pyarrow.RecordBatch` of raw columns that gives a text or None for each row.
Slicing = Union[str, Buckets, list[str | Buckets], Callable]


class Bounds(BaseModel):
    """What a metric must keep.

    Attributes:
        min, max: the least and the most that it may be.
        max_drop: by how much it may be worse than the baseline's, in its own units.
        slices: judge each slice too instead of all rows together: of all slicings (true), or of those named.
        min_rows: of a slice; smaller ones are not judged.
        confidence: with which the bound is kept: the one-sided limit of the metric counts instead of its value,
            for several slices corrected by their number (Bonferroni).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    min: float | None = None
    max: float | None = None
    max_drop: float | None = None
    slices: bool | list[str] = False
    min_rows: Annotated[int, Ge(1)] = 1
    confidence: Annotated[float, Gt(0.5), Lt(1)] | None = None


Thresholds = dict[str, Bounds | list[Bounds]]
