"""The settings of Tuner, as the search and its worker processes receive them. `Tuner` documents each one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from kerasline.components.core.parameters import PositiveInt
from kerasline.components.trainer.settings import lower_is_better
from kerasline.components.tuner.space import Dimension


@dataclass(frozen=True, kw_only=True)
class TunerSettings:
    """The parameters of Tuner, which documents them."""

    space: dict[str, Dimension]
    function: Callable[..., Any] | None = None
    description: dict[str, Any] | None = None
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    trainer: dict[str, Any] = field(default_factory=dict)
    objective: str = "val_loss"
    direction: Literal["minimize", "maximize"] | None = None
    trials: PositiveInt = 20
    sampler: Literal["tpe", "random"] = "tpe"
    pruner: Literal["hyperband", "median"] | None = "hyperband"
    parallel: PositiveInt = 1
    seed: int = 0

    @property
    def minimizes(self) -> bool:
        """Whether lower values of the objective are better."""
        return lower_is_better(self.objective) if self.direction is None else self.direction == "minimize"
