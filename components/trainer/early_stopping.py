"""Early stopping: ends training when a metric stops improving, and restores the best weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from kerasline.components.trainer.settings import EarlyStoppingSettings


class EarlyStopping:
    """Tracks the best epoch of a training.

    Args:
        direction: whether higher (`"up"`) or lower (`"down"`) values of the metric are better, unless `settings.mode`
            says so. By default it is inferred from the name of the metric.
    """

    def __init__(self, settings: EarlyStoppingSettings, direction: str | None = None) -> None:
        self._settings = settings
        self._lower_is_better = settings.lower_is_better
        if direction is not None and settings.mode is None:
            self._lower_is_better = direction == "down"
        self._best: float | None = None
        self._best_epoch = 0
        self._weights: list[np.ndarray] = []

    def should_stop(self, epoch: int, metrics: Mapping[str, Any], model: keras.Model, first_epoch: int = 1) -> bool:
        """Record the metrics of an epoch and return whether to stop after it.

        Args:
            epoch: number of the epoch, from 1.
            metrics: its metrics by name.
            model: its weights are copied if this is the best epoch.
            first_epoch: the epoch that patience counts from, at the earliest. Defaults to 1.
        """
        name = self._settings.monitor
        if self._is_improvement(float(metrics[name])):
            self._best, self._best_epoch = float(metrics[name]), epoch
            if self._settings.restore_best:
                self._weights = [keras.ops.convert_to_numpy(variable) for variable in model.weights]
        return epoch - max(self._best_epoch, first_epoch - 1) >= max(self._settings.patience, 1)

    def restore_weights(self, model: keras.Model) -> int | None:
        """Set the best weights and return their epoch, or None if the weights are not to be restored."""
        if not self._weights:
            return None
        for variable, value in zip(model.weights, self._weights):
            variable.assign(value)
        return self._best_epoch

    def state(self) -> dict[str, Any]:
        """Return the state, for a checkpoint."""
        weights = {f"best {number}": value for number, value in enumerate(self._weights)}
        return {"best": self._best, "best_epoch": self._best_epoch, **weights}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._best, self._best_epoch = state["best"], state["best_epoch"]
        count = sum(key.startswith("best ") for key in state)
        self._weights = [state[f"best {number}"] for number in range(count)]

    def _is_improvement(self, value: float) -> bool:
        if self._best is None or math.isnan(self._best):
            return True
        change = self._best - value if self._lower_is_better else value - self._best
        return change > self._settings.min_delta
