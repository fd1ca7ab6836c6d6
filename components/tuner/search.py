"""The search: trials that are trained one after the other or in parallel.

Optuna samples and prunes (Akiba et al., "Optuna", KDD 2019). Its sampler is the tree-structured Parzen estimator of
Bergstra et al., NeurIPS 2011, its pruner Hyperband of Li et al., JMLR 2018. Its journal, a file to which every process
appends, is the only state, so that another process can continue after a kill.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import operator
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from kerasline.components.core.artifacts import Examples, Preprocessing
from kerasline.components.core.component import Context
from kerasline.components.core.errors import DataError, KeraslineError, UserCodeError
from kerasline.components.model_builder.component import ModelBuilder
from kerasline.components.trainer.component import Trainer
from kerasline.components.tuner.settings import TunerSettings, split_values

LOG = logging.getLogger("kerasline")
STUDY_NAME = "search"
# User attributes of trials in the journal.
REASON, EPOCHS, SECONDS, KILLED = "reason", "epochs", "seconds", "killed"
FINISHED_STATES = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


@dataclass(frozen=True)
class Search:
    """A search, in a form that can be pickled and continued in another process.

    Attributes:
        examples: the examples.
        preprocessing: the output of Transform.
        settings: the parameters of Tuner.
        journal: Optuna's journal file.
        work_dir: folder for the files of trials.
    """

    examples: Examples
    preprocessing: Preprocessing
    settings: TunerSettings
    journal: Path
    work_dir: Path

    @property
    def trainer_parameters(self) -> dict[str, Any]:
        """The parameters of Trainer that are the same in all trials."""
        return {"seed": self.settings.seed, "tensorboard": False, **self.settings.trainer}


def run(search: Search, context: Context) -> list[FrozenTrial]:
    """Run a search, or continue it, to its end.

    Returns:
        All finished trials, by number.

    Raises:
        ParameterError: a parameter is invalid.
        DataError: no trial completed.
    """
    search.journal.parent.mkdir(parents=True, exist_ok=True)
    _requeue_killed_trials(search)
    if search.settings.parallel == 1:
        _run_trials(0, search, context.report)
    else:
        _run_in_parallel(search, context)
    trials = finished_trials(search)
    if not any(trial.state == TrialState.COMPLETE for trial in trials):
        reasons = [trial.user_attrs[REASON] for trial in trials if REASON in trial.user_attrs]
        raise DataError(f"none of {len(trials)} trials completed: {reasons[0] if reasons else 'all were pruned'}")
    return trials


def finished_trials(search: Search) -> list[FrozenTrial]:
    """Return the finished trials, without those of killed processes, which are repeated."""
    trials = _study(search).get_trials(deepcopy=False)
    return [trial for trial in trials if trial.state in FINISHED_STATES and KILLED not in trial.user_attrs]


def best_trial(trials: Sequence[FrozenTrial], settings: TunerSettings) -> FrozenTrial:
    """Return the completed trial with the best objective."""
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    return (min if settings.minimizes else max)(complete, key=operator.attrgetter("value"))


def _run_in_parallel(search: Search, context: Context) -> None:
    """Run several workers, each a Beam element in a process of its own, as TensorFlow requires."""
    from kerasline.components.data.fold import fold

    parallel, options = search.settings.parallel, list(context.beam_options)
    if not any(option.startswith("--runner") for option in options):
        options = [f"--direct_num_workers={parallel}", "--direct_running_mode=multi_processing"]
    done = threading.Event()
    reporter = threading.Thread(target=_report_trials, args=(search, context.report, done), daemon=True)
    reporter.start()
    try:
        run_trials = functools.partial(_run_trials, search=search, report=LOG.info)
        fold(list(range(parallel)), run_trials, operator.add, dataclasses.replace(context, beam_options=options))
    finally:
        done.set()
        reporter.join()


def _report_trials(search: Search, report: Callable[[str], None], done: threading.Event) -> None:
    reported = 0
    while not done.wait(1.0):
        trials = finished_trials(search)
        if len(trials) > reported:
            reported = len(trials)
            report(_progress(trials, search))


def _run_trials(_worker: int, search: Search, report: Callable[[str], None]) -> int:
    """Run trials until there are enough, and return their number."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    count = 0
    while (trial := _next_trial(search)) is not None:
        _run_trial(trial, search, report)
        count += 1
        report(_progress(finished_trials(search), search))
    return count


def _next_trial(search: Search) -> optuna.Trial | None:
    """Return a new trial, or None if there are enough.

    Each trial's sampler has its own seed, so that suggestions depend on the earlier trials but not on the number of
    processes.
    """
    study = _study(search)
    trials = [t for t in study.get_trials(deepcopy=False) if KILLED not in t.user_attrs]
    if sum(trial.state != TrialState.WAITING for trial in trials) >= search.settings.trials:
        return None
    study.sampler = _sampler(search.settings, search.settings.seed + len(trials))
    return study.ask()


def _run_trial(trial: optuna.Trial, search: Search, report: Callable[[str], None]) -> None:
    settings = search.settings
    values = {name: dimension.suggest(trial, name) for name, dimension in settings.space.items()}
    folder = search.work_dir / f"trial-{trial.number}"
    start, study, pruned = time.perf_counter(), trial.study, []

    def on_epoch(epoch: int, metrics: Mapping[str, Any]) -> bool:
        report(
            f"trial {trial.number + 1} of {settings.trials}, epoch {epoch}: "
            f"{settings.objective} {metrics[settings.objective]:.4g}"
        )
        trial.report(metrics[settings.objective], epoch)
        trial.set_user_attr(EPOCHS, epoch)
        if trial.should_prune():
            pruned.append(epoch)
        return bool(pruned)

    try:
        value = _train(values, search, folder, on_epoch)
        trial.set_user_attr(SECONDS, round(time.perf_counter() - start, 3))
        study.tell(trial, None if pruned else value, TrialState.PRUNED if pruned else TrialState.COMPLETE)
    except (DataError, UserCodeError) as error:  # other values may succeed
        LOG.info("trial %s failed: %s", trial.number, error)
        trial.set_user_attr(REASON, str(error))
        trial.set_user_attr(SECONDS, round(time.perf_counter() - start, 3))
        study.tell(trial, state=TrialState.FAIL)
    except KeraslineError:
        trial.set_user_attr(KILLED, True)
        study.tell(trial, state=TrialState.FAIL)
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _train(values: Mapping[str, Any], search: Search, folder: Path, on_epoch: Any) -> float:
    """Build and train a model with these values and return its objective."""
    from kerasline.components.trainer.job import Job
    from kerasline.components.trainer.training import train

    settings = search.settings
    of_model, of_trainer = split_values(values)
    builder = ModelBuilder(
        search.preprocessing,
        function=settings.function,
        description=settings.description,
        hyperparameters={**settings.hyperparameters, **of_model},
        seed=settings.seed,
    )
    built = builder.execute(folder / "built").model
    trainer = Trainer(search.examples, search.preprocessing, built, **{**search.trainer_parameters, **of_trainer})
    outputs = trainer.output_artifacts(folder / "trained")
    job = Job(
        trainer.resolved_settings({}),
        built,
        search.examples,
        search.preprocessing,
        outputs.trained_model,
        outputs.history,
        search.work_dir,
        folder / "state",
    )
    return float(train(job, LOG.info, on_epoch, {"Tuner.objective": settings.objective})[settings.objective])


def _requeue_killed_trials(search: Search) -> None:
    """Queue again the trials that were running when their process was killed."""
    study = _study(search)
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        # Optuna's public API sets attributes of running trials only within their own process.
        study._storage.set_trial_user_attr(trial._trial_id, KILLED, True)
        study.tell(trial.number, state=TrialState.FAIL)
        if trial.params:
            study.enqueue_trial(trial.params)


def _study(search: Search) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(search.journal)))
    return optuna.create_study(
        storage=storage,
        study_name=STUDY_NAME,
        load_if_exists=True,
        pruner=_pruner(search),
        direction="minimize" if search.settings.minimizes else "maximize",
        sampler=_sampler(search.settings, search.settings.seed),
    )


def _sampler(settings: TunerSettings, seed: int) -> optuna.samplers.BaseSampler:
    if settings.sampler == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=min(10, max(3, settings.trials // 4)))


def _pruner(search: Search) -> optuna.pruners.BasePruner:
    if search.settings.pruner == "hyperband":
        return optuna.pruners.HyperbandPruner(max_resource=search.trainer_parameters.get("epochs") or "auto")
    if search.settings.pruner == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=1)
    return optuna.pruners.NopPruner()


def _progress(trials: Sequence[FrozenTrial], search: Search) -> str:
    text = f"{len(trials)} of {search.settings.trials} trials"
    if any(trial.state == TrialState.COMPLETE for trial in trials):
        best = best_trial(trials, search.settings)
        text += f", best {search.settings.objective} {best.value:.4g} (trial {best.number + 1})"
    return text
