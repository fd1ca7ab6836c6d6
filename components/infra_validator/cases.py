"""What is asked: real rows together and one by one, edge cases one by one, and the first again at the end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from kerasline.components.infra_validator.answer import Rows, count, row

REAL, ALONE, EDGE, AGAIN = "real rows", "real rows, one by one", "edge cases", "real rows, again"
MOST_EDGE_CASES = 300
MOST_VALUES = 500_000  # of a request, which is some 10 MB as JSON


@dataclass(frozen=True)
class Case:
    """Rows to ask about, and what they are called."""

    kind: str
    name: str
    rows: Rows


def all_cases(real: Rows, edges: Mapping[str, Rows]) -> list[Case]:
    """Every case; the first and the last are the same rows."""
    together = {name: array[: _rows_together(real)] for name, array in real.items()}
    batch = f"{count(together)} real rows together"
    return [
        Case(REAL, batch, together),
        *(Case(ALONE, f"real row {number}", row(real, number)) for number in range(count(real))),
        *(Case(EDGE, name, rows) for name, rows in edges.items()),
        Case(AGAIN, f"{batch}, again", together),
    ]


def few_enough(edges: Mapping[str, Rows], seed: int) -> dict[str, Rows]:
    """At most `MOST_EDGE_CASES` of them, drawn by the seed."""
    names = list(edges)
    if len(names) > MOST_EDGE_CASES:
        drawn = np.random.default_rng(seed).choice(len(names), MOST_EDGE_CASES, replace=False)
        names = [names[place] for place in np.sort(drawn)]
    return {name: edges[name] for name in names}


def _rows_together(rows: Rows) -> int:
    """How many rows a request may have: `MOST_VALUES` values, ten bytes of text counting as one."""
    values = sum(
        sum(map(len, array.ravel().tolist())) / 10 if array.dtype == object else array.size for array in rows.values()
    )
    return max(1, min(count(rows), int(MOST_VALUES * count(rows) / max(values, 1))))
