"""The history of a training: the loss of every step and the metrics of every epoch, as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

EPOCHS_FILE = "history.parquet"
STEPS_FILE = "steps.parquet"


class History:
    """Losses and metrics so far.

    Attributes:
        epochs: a dict for each completed epoch: `epoch` (from 1), `steps`, `rows`, and its metrics.
    """

    def __init__(self) -> None:
        self.epochs: list[dict[str, Any]] = []
        self._losses: list[np.ndarray] = []
        self._loss_sum, self._rows = 0.0, 0

    @property
    def loss(self) -> float:
        """The mean loss over the rows of the current epoch so far."""
        return self._loss_sum / self._rows if self._rows else float("nan")

    def add(self, losses: np.ndarray, rows: int) -> None:
        """Add the losses of some steps.

        Args:
            losses: float32 (steps,).
            rows: number of rows of each of these steps.
        """
        self._losses.append(losses)
        self._loss_sum += float(np.sum(losses, dtype=np.float64)) * rows
        self._rows += rows * len(losses)

    def end_epoch(self, epoch: int, steps: int, metrics: Mapping[str, Any]) -> None:
        self.epochs.append({"epoch": epoch, "steps": steps, "rows": self._rows, **metrics})
        self._loss_sum, self._rows = 0.0, 0

    def losses(self) -> np.ndarray:
        """Return the losses of all steps, float32 (steps,)."""
        return np.concatenate([np.zeros(0, np.float32), *self._losses])

    def state(self) -> dict[str, Any]:
        """Return the state, for a checkpoint."""
        return {"epochs": self.epochs, "loss_sum": self._loss_sum, "rows": self._rows, "losses": self.losses()}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.epochs = list(state["epochs"])
        self._loss_sum, self._rows = state["loss_sum"], state["rows"]
        self._losses = [state["losses"]]

    def write(self, folder: Path) -> None:
        """Write `history.parquet`, one row per epoch, and `steps.parquet`: step (from 1), epoch, loss.

        The latter is left out if the losses of the steps are unknown.
        """
        pq.write_table(pa.Table.from_pylist(_with_all_columns(self.epochs)), folder / EPOCHS_FILE)
        losses = self.losses()
        if not len(losses):
            return
        epoch = np.repeat([e["epoch"] for e in self.epochs], [e["steps"] for e in self.epochs])
        columns = {"step": np.arange(1, len(losses) + 1), "epoch": epoch.astype(np.int64), "loss": losses}
        pq.write_table(pa.table(columns), folder / STEPS_FILE)


def _with_all_columns(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows with None for metrics that an epoch lacks."""
    names = dict.fromkeys(name for row in rows for name in row)
    return [{name: row.get(name) for name in names} for row in rows]
