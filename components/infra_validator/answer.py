"""What a model says to a request, in process or through a server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

Rows = Mapping[str, np.ndarray]  # features by name, arrays (rows, ...)


@dataclass(frozen=True)
class Answer:
    """Attributes:
    outputs: arrays by name; None of a refusal.
    status: of HTTP; that of a refusal in process is the one that its error is served with.
    error: why it is refused.
    """

    outputs: Mapping[str, np.ndarray] | None
    status: int = 200
    error: str = ""

    @property
    def is_refusal(self) -> bool:
        return self.outputs is None


def row(rows: Rows, number: int) -> dict[str, np.ndarray]:
    """One row, arrays (1, ...)."""
    return {name: array[number : number + 1] for name, array in rows.items()}


def count(rows: Rows) -> int:
    return len(next(iter(rows.values())))
