"""Tuner: searches for the hyperparameters of the best model."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from kerasline.components.core.artifacts import Examples, Hyperparameters, Preprocessing, Report
from kerasline.components.core.component import Component, Context, Input, Output, Parameters
from kerasline.components.core.errors import KeraslineError, ParameterError, nearest
from kerasline.components.core.parameters import check_parameter
from kerasline.components.trainer.component import Trainer
from kerasline.components.tuner.settings import TunerSettings, check_names, split_values

# Parameters of Trainer that need a process of their own for each training.
UNSUPPORTED = ("deterministic", "distribution", "gpu_memory_limit")


class Tuner(Component):
    """Trains models with different hyperparameters and returns the best ones.

    The output `best` is an input of ModelBuilder and Trainer.

    Args:
        examples: the examples to train and evaluate on.
        preprocessing: the output of Transform.

        space: the values to search, by name: `{"units": {"int": [16, 256], "log": true}}`. A name is a key of `hp` in
            `build_model(inputs, hp)`, or `Trainer.NAME` for a parameter of Trainer. See
            `kerasline.components.tuner.settings.Dimension`.
        function: see ModelBuilder.
        description: see ModelBuilder.
        hyperparameters: see ModelBuilder. Those in `space` take precedence. Defaults to `{}`.
        trainer: parameters of Trainer, by name, for all trials. Defaults to `{}`.
        objective: metric to optimize. Defaults to `"val_loss"`.
        direction: `"minimize"` or `"maximize"`. By default it is inferred from the name of the metric.
        trials: number of trials. Defaults to 20.
        sampler: `"tpe"`, which learns from earlier trials, or `"random"`. Defaults to `"tpe"`.
        pruner: stops unpromising trials early: `"hyperband"`, `"median"` or None. Defaults to `"hyperband"`.
        parallel: number of trials to run in parallel, as Beam workers. Defaults to 1.
        seed: seed of the sampler, the initial weights and the row order. Defaults to 0.

    Outputs:
        best: the best hyperparameters.
        trials_report: all trials, as a table and a chart.

    Raises:
        ParameterError: a parameter is invalid.
        DataError: no trial succeeded.

    >>> kl.Tuner(
    ...     kl.CsvExampleGen("data.csv"),
    ...     kl.Transform(kl.CsvExampleGen("data.csv"), features={"x": kl.features.Number()}, label="y"),
    ...     space={"units": {"int": [16, 256], "log": True}, "Trainer.batch_size": {"choice": [32, 64]}},
    ...     trials=10,
    ... )
    <Tuner 'Tuner'>
    """

    LIBRARIES = ("tensorflow", "keras", "optuna")

    examples: Input[Examples]
    preprocessing: Input[Preprocessing]
    best: Output[Hyperparameters]
    trials_report: Output[Report]
    settings: Parameters[TunerSettings]

    def check(self, inputs: Any) -> None:
        super().check(inputs)
        settings = self.settings
        check_names(settings.space, f"{self.name}.space")
        if (settings.function is None) == (settings.description is None):
            raise ParameterError(f"{self.name}: pass either `function` or `description`")
        known = Trainer.spec().parameters
        for name, value in settings.trainer.items():
            where = f"{self.name}.trainer.{name}"
            if name not in known:
                raise ParameterError(f"{where}: Trainer has no such parameter; {nearest(name, known)}")
            if value and name in UNSUPPORTED:
                raise ParameterError(f"{where}: not supported in a search; set it in Trainer itself")
            check_parameter(where, known[name], value)
        eval_split = settings.trainer.get("eval_split", "eval")
        if settings.objective.startswith("val_") and eval_split is None:
            raise ParameterError(
                f"{self.name}.objective: {settings.objective!r} needs an eval_split in {self.name}.trainer"
            )
        read = [settings.trainer.get("split", "train")]
        read += [eval_split] if settings.objective.startswith("val_") else []
        for split in read if inputs.examples is not None else ():
            if split not in inputs.examples.splits:
                raise ParameterError(
                    f"{self.name}.trainer: the data has no split {split!r}; {nearest(split, inputs.examples.splits)}"
                )

    def check_machine(self) -> None:
        if find_spec("optuna") is None:
            raise KeraslineError(f"{self.name}: Optuna is not installed; pip install 'kerasline[tune]'")

    def run(self, inputs: Any, outputs: Any, context: Context) -> Mapping[str, Any]:
        from kerasline.components.tuner import search, trials_report

        settings = self.settings
        journal = (context.state_dir or context.work_dir) / "journal.log"
        job = search.Search(inputs.examples, inputs.preprocessing, settings, journal, context.work_dir)
        trials = search.run(job, context)
        best = search.best_trial(trials, settings)
        trials_report.write(trials, settings, outputs.trials_report.path)
        of_model, of_trainer = split_values(best.params)
        outputs.best.write_json(
            Hyperparameters.FILE,
            {
                "hyperparameters": of_model,
                "trainer": of_trainer,
                "objective": settings.objective,
                "value": best.value,
                "trial": best.number + 1,
            },
        )
        states = [trial.state.name for trial in trials]
        counts = {name: states.count(state) for name, state in (("pruned", "PRUNED"), ("failed", "FAIL"))}
        counts = {name: count for name, count in counts.items() if count}
        return {"trials": len(trials), **counts, f"best_{settings.objective}": best.value, **best.params}
