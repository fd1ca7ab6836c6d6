"""What is searched: a range or a choice for each hyperparameter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from kerasline.components.core.errors import ParameterError, nearest
from kerasline.components.trainer.component import Trainer

if TYPE_CHECKING:
    import optuna

TRAINER = "Trainer."


class Dimension(BaseModel):
    """Values that one hyperparameter may take: one of `int`, `float` and `choice`.

    Attributes:
        whole: `{"int": [16, 256]}`, both included; with `step`, every so many.
        real: `{"float": [1e-4, 0.1]}`.
        choice: `{"choice": ["relu", "gelu"]}`.
        log: whether small ones are tried as closely as large ones.
    """

    model_config = ConfigDict(extra="forbid")

    whole: tuple[int, int] | None = Field(None, alias="int")
    real: tuple[float, float] | None = Field(None, alias="float")
    choice: list[bool | int | float | str | None] | None = Field(None, min_length=1)
    step: float | None = Field(None, gt=0)
    log: bool = False

    @model_validator(mode="after")
    def _checked(self) -> Dimension:
        if sum(value is not None for value in (self.whole, self.real, self.choice)) != 1:
            raise ValueError("one of int, float and choice wanted")
        low, high = self.whole or self.real or (0, 0)
        if low > high:
            raise ValueError(f"the lower end, {low}, lies above the upper, {high}")
        if self.log and (self.choice is not None or low <= 0 or self.step):
            raise ValueError("log wants a range above 0, without a step")
        return self

    def suggested(self, trial: optuna.Trial, name: str) -> Any:
        if self.whole is not None:
            return trial.suggest_int(name, *self.whole, step=int(self.step or 1), log=self.log)
        if self.real is not None:
            return trial.suggest_float(name, *self.real, step=self.step, log=self.log)
        return trial.suggest_categorical(name, self.choice)


def check(space: Mapping[str, Dimension], where: str) -> None:
    """Whether names that begin with "Trainer." are a Trainer's parameters.

    Raises:
        ParameterError: one is not, or nothing is searched.
    """
    if not space:
        raise ParameterError(f"{where}: nothing to search; name a hyperparameter and its values")
    known = Trainer.spec().parameters
    for name in space:
        parameter = name.removeprefix(TRAINER)
        if name.startswith(TRAINER) and parameter not in known:
            raise ParameterError(f"{where}.{name}: Trainer has no such parameter; {nearest(parameter, known)}")


def parts(values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is the model's, and what is the Trainer's, by their names there."""
    trainer = {key.removeprefix(TRAINER): value for key, value in values.items() if key.startswith(TRAINER)}
    return {key: value for key, value in values.items() if not key.startswith(TRAINER)}, trainer
