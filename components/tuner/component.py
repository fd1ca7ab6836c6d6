"""Tuner: searches the hyperparameters with which a model becomes best."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from annotated_types import Gt

from kerasline.components.core.artifacts import Examples, Hyperparameters, Preprocessing, Report
from kerasline.components.core.component import Component, Context, Input, Output, Parameter
from kerasline.components.core.errors import KeraslineError, ParameterError
from kerasline.components.trainer.metric_direction import less_is_better
from kerasline.components.tuner.space import Dimension, check, parts

Positive = Annotated[int, Gt(0)]


class Tuner(Component):
    """Builds and trains the model with one set of values after the other, and keeps the best.

    Its output `best` is an input of ModelBuilder and Trainer.

    Parameters:
        space: what is searched: `{"units": {"int": [16, 256], "log": true}}`; names as `hp` of the
            function has them, or `Trainer.NAME` for a Trainer's parameter. See `kerasline.components.tuner.space`.
        function, description, hyperparameters: as ModelBuilder takes them.
        trainer: parameters of the Trainer, by name, that are the same in all trials.
        objective: a figure of an epoch, on the split that the Trainer measures.
        direction: "minimize" or "maximize"; by the objective's name when left out.
        trials: how many sets are tried.
        sampler: "tpe", which learns from the trials before, or "random".
        pruner: what ends trials early that will not be best: "hyperband", "median" or None.
        parallel: trials side by side, as Beam's workers.
        seed: of what is proposed, of the models' weights and of the order of the rows.

    Raises:
        ParameterError: a setting cannot be met.
        DataError: not one trial came to its end.
    """

    LIBRARIES = ("tensorflow", "keras", "optuna")

    examples: Input[Examples]
    preprocessing: Input[Preprocessing]
    best: Output[Hyperparameters]
    trials_report: Output[Report]
    space: Parameter[dict[str, Dimension]]
    function: Parameter[Callable | None] = None
    description: Parameter[dict[str, Any] | None] = None
    hyperparameters: Parameter[dict[str, Any]] = {}
    trainer: Parameter[dict[str, Any]] = {}
    objective: Parameter[str] = "val_loss"
    direction: Parameter[Literal["minimize", "maximize"] | None] = None
    trials: Parameter[Positive] = 20
    sampler: Parameter[Literal["tpe", "random"]] = "tpe"
    pruner: Parameter[Literal["hyperband", "median"] | None] = "hyperband"
    parallel: Parameter[Positive] = 1
    seed: Parameter[int] = 0

    def run(self, inputs: Any, outputs: Any, context: Context) -> Mapping[str, Any]:
        check(self.space, f"{self.name}.space")
        try:
            from kerasline.components.tuner import results, search
        except ModuleNotFoundError as error:
            if error.name != "optuna":
                raise
            raise KeraslineError(f"{self.name} needs Optuna: pip install 'kerasline[tune]'") from error
        sought = self._search(inputs, context)
        trials = search.run(sought, self.parallel, context)
        found = search.best(trials, sought.less)
        results.write(trials, sought, outputs.trials_report.path)
        of_model, of_trainer = parts(found.params)
        outputs.best.write_json(
            Hyperparameters.FILE,
            {
                "hyperparameters": of_model,
                "trainer": of_trainer,
                "objective": self.objective,
                "value": found.value,
                "trial": found.number + 1,
            },
        )
        states = [trial.state.name for trial in trials]
        counts = {kind: states.count(name) for kind, name in (("pruned", "PRUNED"), ("failed", "FAIL"))}
        shown = {kind: count for kind, count in counts.items() if count}
        return {"trials": len(trials), **shown, f"best_{self.objective}": found.value, **found.params}

    def _search(self, inputs: Any, context: Context) -> Any:
        from kerasline.components.tuner.search import Search

        trainer = {"seed": self.seed, "tensorboard": False, **self.trainer}
        apart = [name for name in ("deterministic", "distribution", "gpu_memory_limit") if trainer.get(name)]
        if apart:
            raise ParameterError(f"{self.name}.trainer.{apart[0]}: not in a search; set it at the Trainer itself")
        less = less_is_better(self.objective) if self.direction is None else self.direction == "minimize"
        return Search(
            inputs.examples,
            inputs.preprocessing,
            {
                "function": self.function,
                "description": self.description,
                "hyperparameters": self.hyperparameters,
                "seed": self.seed,
            },
            trainer,
            self.space,
            self.objective,
            less,
            self.trials,
            self.sampler,
            self.pruner,
            self.seed,
            (context.state_dir or context.work_dir) / "journal.log",
            context.work_dir,
        )
