"""The phases of a training: first the new layers of a pretrained model, then all of them at a lower rate."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from kerasline.components.core.errors import ParameterError
from kerasline.components.core.keras_files import set_trainability, trainability
from kerasline.components.models import compiling
from kerasline.components.models.freezing import freeze
from kerasline.components.trainer.optimizers import plain_optimizer, renew_optimizer
from kerasline.components.trainer.preparation import PreparedTraining, build
from kerasline.components.trainer.settings import Phase

WHERE = "Trainer.phases"


class Phases:
    """The phases of a training, by their number from 0. A training without phases is one.

    Args:
        phases: the parameter `phases`.
        prepared: the model and the data.

    Attributes:
        facts: for each phase that changes something: its first `epoch`, and the `trainable_parameters`.

    Raises:
        ParameterError: a pattern matches no layer, nothing is left to train, or a schedule is unknown.
    """

    def __init__(self, phases: list[Phase] | None, prepared: PreparedTraining) -> None:
        self._phases, self._model, self._data = phases or [], prepared.model, prepared.data
        self._trainability, self._optimizer = trainability(self._model), plain_optimizer(self._model)
        epochs = [phase.epochs or 0 for phase in self._phases[:-1]]
        self._first_epochs = np.cumsum([1, *epochs]).tolist()
        self.facts = [self._facts(number) for number in range(len(self._phases))]
        set_trainability(self._model, self._trainability)

    def __len__(self) -> int:
        return len(self._first_epochs)

    def first_epoch(self, number: int) -> int:
        """Return the first epoch, from 1, of a phase."""
        return self._first_epochs[number]

    def of_epoch(self, epoch: int) -> int:
        """Return the number of the phase of an epoch, from 1."""
        return int(np.searchsorted(self._first_epochs, epoch, side="right")) - 1

    def begin(self, number: int) -> None:
        """Prepare the model, in place, for a phase: what is trained, and a new optimizer."""
        if self._phases:
            self._freeze(number)
            renew_optimizer(self._model, self._optimizer, self._learning_rate(number))
            build(self._model, self._data)

    def _freeze(self, number: int) -> None:
        set_trainability(self._model, self._trainability)
        freeze(self._model, self._phases[number].freeze, f"{WHERE}.{number}.freeze")

    def _learning_rate(self, number: int) -> Any:
        rate = self._phases[number].learning_rate
        return compiling.schedule(rate, f"{WHERE}.{number}.learning_rate") if isinstance(rate, (str, dict)) else rate

    def _facts(self, number: int) -> dict[str, Any]:
        self._learning_rate(number)
        self._freeze(number)
        parameters = sum(math.prod(variable.shape) for variable in self._model.trainable_variables)
        if not parameters:
            raise ParameterError(f"{WHERE}.{number}.freeze: all layers with weights are frozen; expected one to train")
        return {"epoch": self.first_epoch(number), "trainable_parameters": parameters}
