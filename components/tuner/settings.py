"""The settings of Tuner, and its search space: a range or a list of choices for each hyperparameter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from kerasline.components.core.errors import ParameterError, nearest
from kerasline.components.core.parameters import PositiveInt
from kerasline.components.trainer.component import Trainer
from kerasline.components.trainer.settings import lower_is_better

if TYPE_CHECKING:
    import optuna

TRAINER_PREFIX = "Trainer."


class Dimension(BaseModel):
    """The values that one hyperparameter may take. Exactly one of `int`, `float` and `choice` is set.

    Args:
        int: `[low, high]`, both included, optionally with `step`.
        float: `[low, high]`, both included, optionally with `step`.
        choice: list of values.
        step: distance between the values of a range.
        log: whether to search a range on a logarithmic scale. Defaults to False.

    >>> from kerasline.components.tuner.settings import Dimension
    >>> Dimension(int=[16, 256], log=True).int_range
    (16, 256)
    """

    model_config = ConfigDict(extra="forbid")

    int_range: tuple[int, int] | None = Field(None, alias="int")
    float_range: tuple[float, float] | None = Field(None, alias="float")
    choice: list[bool | int | float | str | None] | None = Field(None, min_length=1)
    step: float | None = Field(None, gt=0)
    log: bool = False

    @model_validator(mode="after")
    def _checked(self) -> Dimension:
        if sum(value is not None for value in (self.int_range, self.float_range, self.choice)) != 1:
            raise ValueError("expected exactly one of int, float and choice")
        low, high = self.int_range or self.float_range or (0, 0)
        if low > high:
            raise ValueError(f"the lower bound {low} is greater than the upper bound {high}")
        if self.log and (self.choice is not None or low <= 0 or self.step):
            raise ValueError("log requires a range above 0 without a step")
        return self

    @property
    def largest(self) -> Any:
        """The upper bound of a range, the largest of numeric choices, or the first of other choices."""
        if self.choice is None:
            return (self.int_range or self.float_range or (None,))[-1]
        numbers = [value for value in self.choice if isinstance(value, (int, float))]
        return max(numbers) if len(numbers) == len(self.choice) else self.choice[0]

    def suggest(self, trial: optuna.Trial, name: str) -> Any:
        """Return the value that Optuna suggests for a trial."""
        if self.int_range is not None:
            return trial.suggest_int(name, *self.int_range, step=int(self.step or 1), log=self.log)
        if self.float_range is not None:
            return trial.suggest_float(name, *self.float_range, step=self.step, log=self.log)
        assert self.choice is not None
        return trial.suggest_categorical(name, self.choice)


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


def check_names(space: Mapping[str, Dimension], where: str) -> None:
    """Check that names beginning with "Trainer." are parameters of Trainer.

    Raises:
        ParameterError: there is no such parameter, or the space is empty.
    """
    if not space:
        raise ParameterError(f"{where}: empty; expected at least one hyperparameter and its values")
    known = Trainer.spec().parameters
    for name in space:
        parameter = name.removeprefix(TRAINER_PREFIX)
        if name.startswith(TRAINER_PREFIX) and parameter not in known:
            raise ParameterError(f"{where}.{name}: Trainer has no such parameter; {nearest(parameter, known)}")


def split_values(values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the hyperparameters of the model and the parameters of Trainer, the latter without their prefix."""
    of_model = {name: value for name, value in values.items() if not name.startswith(TRAINER_PREFIX)}
    of_trainer = {
        name.removeprefix(TRAINER_PREFIX): value for name, value in values.items() if name.startswith(TRAINER_PREFIX)
    }
    return of_model, of_trainer
