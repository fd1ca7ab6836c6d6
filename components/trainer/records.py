"""What is kept of a training: the loss of every step and the figures of every epoch, as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

EPOCHS = "history.parquet"
STEPS = "steps.parquet"


class Records:
    """The losses and figures so far.

    Attributes:
        epochs: a dict for each epoch that has ended: `epoch` (from 1), `steps`, `rows`, and figures.
    """

    def __init__(self) -> None:
        self.epochs: list[dict[str, Any]] = []
        self._losses: list[np.ndarray] = []
        self._weighted, self._rows = 0.0, 0

    @property
    def steps(self) -> int:
        return sum(map(len, self._losses))

    @property
    def loss(self) -> float:
        """The mean over the rows of this epoch so far."""
        return self._weighted / self._rows if self._rows else float("nan")

    @property
    def rows(self) -> int:
        """Rows of this epoch so far."""
        return self._rows

    def add(self, losses: np.ndarray, rows: int) -> None:
        """Takes in the losses of steps, float32 (steps,), each on so many rows."""
        self._losses.append(losses)
        self._weighted += float(np.sum(losses, dtype=np.float64)) * rows
        self._rows += rows * len(losses)

    def end_epoch(self, epoch: int, steps: int, figures: Mapping[str, Any]) -> dict[str, Any]:
        self.epochs.append({"epoch": epoch, "steps": steps, "rows": self._rows, **figures})
        self._weighted, self._rows = 0.0, 0
        return self.epochs[-1]

    def losses(self) -> np.ndarray:
        """Of all steps, float32 (steps,)."""
        return np.concatenate([np.zeros(0, np.float32), *self._losses])

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        kept = {"epochs": self.epochs, "weighted": self._weighted, "rows": self._rows}
        return {**kept, "losses": self.losses()}

    def resume(self, state: Mapping[str, Any]) -> None:
        self.epochs = list(state["epochs"])
        self._weighted, self._rows = state["weighted"], state["rows"]
        self._losses = [state["losses"]]

    def write(self, folder: Path) -> None:
        """Writes `history.parquet`, a row an epoch, and, where they are known, the losses of the steps as
        `steps.parquet`: step (from 1), epoch, loss."""
        pq.write_table(pa.Table.from_pylist(_plain_rows(self.epochs)), folder / EPOCHS)
        losses = self.losses()
        if not len(losses):
            return
        epoch = np.repeat([e["epoch"] for e in self.epochs], [e["steps"] for e in self.epochs])
        columns = {"step": np.arange(1, len(losses) + 1), "epoch": epoch.astype(np.int64), "loss": losses}
        pq.write_table(pa.table(columns), folder / STEPS)


def _plain_rows(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of the same columns: an epoch may lack a figure that a later one has."""
    names = dict.fromkeys(name for row in rows for name in row)
    return [{name: row.get(name) for name in names} for row in rows]
