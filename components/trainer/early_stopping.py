"""Ends training when a figure no longer gets better, and takes the best weights back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from kerasline.components.core.errors import ParameterError, nearest
from kerasline.components.trainer.job import EarlyStoppingSettings
from kerasline.components.trainer.metric_direction import less_is_better


class EarlyStopping:
    """Watches the epochs of one training."""

    def __init__(self, settings: EarlyStoppingSettings) -> None:
        self._settings = settings
        self._best: float | None = None
        self._best_epoch = 0
        self._weights: list[np.ndarray] = []

    def stops(self, epoch: int, figures: Mapping[str, Any], model: keras.Model) -> bool:
        """Takes in an epoch's figures.

        Raises:
            ParameterError: the figure that is watched is not among them.
        """
        name = self._settings.monitor
        if name not in figures:
            raise ParameterError(
                f"Trainer.early_stopping.monitor: no figure {name!r} is measured; {nearest(name, figures)}"
            )
        if self._is_better(float(figures[name])):
            self._best, self._best_epoch = float(figures[name]), epoch
            if self._settings.restore_best:
                self._weights = [keras.ops.convert_to_numpy(variable) for variable in model.weights]
        return epoch - self._best_epoch >= max(self._settings.patience, 1)

    def restore(self, model: keras.Model) -> int | None:
        """Sets the best weights.

        Returns:
            Their epoch; None where they are not to be taken back.
        """
        if not self._weights:
            return None
        for variable, value in zip(model.weights, self._weights):
            variable.assign(value)
        return self._best_epoch

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        kept = {f"best {number}": value for number, value in enumerate(self._weights)}
        return {"best": self._best, "best_epoch": self._best_epoch, **kept}

    def resume(self, state: Mapping[str, Any]) -> None:
        self._best, self._best_epoch = state["best"], state["best_epoch"]
        count = sum(key.startswith("best ") for key in state)
        self._weights = [state[f"best {number}"] for number in range(count)]

    def _is_better(self, value: float) -> bool:
        if self._best is None or math.isnan(self._best):
            return True
        gain = self._best - value if self._less_is_better() else value - self._best
        return gain > self._settings.min_delta

    def _less_is_better(self) -> bool:
        if self._settings.mode is not None:
            return self._settings.mode == "min"
        return less_is_better(self._settings.monitor)
