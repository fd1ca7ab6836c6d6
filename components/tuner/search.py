"""The search: trials asked for, trained and told, one after the other or side by side.

Optuna proposes and prunes (Akiba et al., "Optuna", KDD 2019; its sampler is the tree-structured Parzen
estimator of Bergstra et al., NeurIPS 2011, its pruner Hyperband, Li et al., JMLR 2018). Its journal, a
file to which every process appends, is the only state: who is killed is followed by whoever comes next.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import operator
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from kerasline.components.core.artifacts import Examples, Preprocessing
from kerasline.components.core.component import Context
from kerasline.components.core.errors import DataError, KeraslineError, ParameterError, UserCodeError
from kerasline.components.model_builder.component import ModelBuilder
from kerasline.components.trainer.component import Trainer
from kerasline.components.tuner.space import Dimension, parts

LOG = logging.getLogger("kerasline")
NAME = "search"
# Attributes of trials in the journal.
REASON, EPOCHS, SECONDS, KILLED = "reason", "epochs", "seconds", "killed"
ENDED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


@dataclass(frozen=True)
class Search:
    """What is searched, in a form that another process can take.

    Attributes:
        builder, trainer: parameters of the two stages, by name, without those that are searched.
        objective: a figure of an epoch.
        less: whether less of it is better.
        journal: the file.
    """

    examples: Examples
    preprocessing: Preprocessing
    builder: Mapping[str, Any]
    trainer: Mapping[str, Any]
    space: Mapping[str, Dimension]
    objective: str
    less: bool
    trials: int
    sampler: str
    pruner: str | None
    seed: int
    journal: Path
    work_dir: Path


def run(search: Search, parallel: int, context: Context) -> list[FrozenTrial]:
    """Goes on with the search to its end.

    Returns:
        All trials that ended, by their numbers.

    Raises:
        ParameterError: a setting cannot be met.
        DataError: not one trial came to its end.
    """
    search.journal.parent.mkdir(parents=True, exist_ok=True)
    _take_up_the_killed(search)
    if parallel == 1:
        _work(0, search, context.report)
    else:
        _side_by_side(search, parallel, context)
    trials = ended(search)
    if not any(trial.state == TrialState.COMPLETE for trial in trials):
        reasons = [trial.user_attrs[REASON] for trial in trials if REASON in trial.user_attrs]
        raise DataError(f"not one of {len(trials)} trials came to its end: {reasons[0] if reasons else 'all pruned'}")
    return trials


def ended(search: Search) -> list[FrozenTrial]:
    """The trials that count: those of a killed process were asked for again."""
    trials = _study(search).get_trials(deepcopy=False)
    return [trial for trial in trials if trial.state in ENDED and KILLED not in trial.user_attrs]


def best(trials: list[FrozenTrial], less: bool) -> FrozenTrial:
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    return (min if less else max)(complete, key=lambda trial: trial.value)


def _side_by_side(search: Search, parallel: int, context: Context) -> None:
    """So many workers, each a Beam element; TensorFlow wants a process for each."""
    from kerasline.components.data.fold import fold

    options = list(context.beam_options)
    if not any(option.startswith("--runner") for option in options):
        options = [f"--direct_num_workers={parallel}", "--direct_running_mode=multi_processing"]
    over = threading.Event()
    watcher = threading.Thread(target=_watch, args=(search, context.report, over), daemon=True)
    watcher.start()
    try:
        work = functools.partial(_work, search=search, report=LOG.info)
        fold(list(range(parallel)), work, operator.add, dataclasses.replace(context, beam_options=options))
    finally:
        over.set()
        watcher.join()


def _watch(search: Search, report: Callable[[str], None], over: threading.Event) -> None:
    told = 0
    while not over.wait(1.0):
        trials = ended(search)
        if len(trials) > told:
            told = len(trials)
            report(_standing(trials, search))


def _work(_worker: int, search: Search, report: Callable[[str], None]) -> int:
    """Asks for trials and trains them until there are enough.

    Returns:
        How many it trained.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    count = 0
    while (trial := _next(search)) is not None:
        _train(trial, search, report)
        count += 1
        report(_standing(ended(search), search))
    return count


def _next(search: Search) -> optuna.Trial | None:
    """A trial, unless there are as many as wanted.

    Each trial's sampler has a seed of its own: what is proposed depends on the trials before, and not
    on how many processes there have been.
    """
    study = _study(search)
    trials = [t for t in study.get_trials(deepcopy=False) if KILLED not in t.user_attrs]
    if sum(trial.state != TrialState.WAITING for trial in trials) >= search.trials:
        return None
    study.sampler = _sampler(search, search.seed + len(trials))
    return study.ask()


def _train(trial: optuna.Trial, search: Search, report: Callable[[str], None]) -> None:
    values = {name: dimension.suggested(trial, name) for name, dimension in search.space.items()}
    folder = search.work_dir / f"trial-{trial.number}"
    began, study, pruned = time.perf_counter(), trial.study, []

    def on_epoch(epoch: int, figures: Mapping[str, Any]) -> bool:
        if search.objective not in figures:
            known = ", ".join(figures)
            raise ParameterError(f"Tuner.objective: no figure {search.objective!r} is measured; there are {known}")
        report(
            f"trial {trial.number + 1} of {search.trials}, epoch {epoch}: "
            f"{search.objective} {figures[search.objective]:.4g}"
        )
        trial.report(figures[search.objective], epoch)
        trial.set_user_attr(EPOCHS, epoch)
        if trial.should_prune():
            pruned.append(epoch)
        return bool(pruned)

    try:
        value = _trained(values, search, folder, on_epoch)
        trial.set_user_attr(SECONDS, round(time.perf_counter() - began, 3))
        study.tell(trial, None if pruned else value, TrialState.PRUNED if pruned else TrialState.COMPLETE)
    except (DataError, UserCodeError) as error:  # of these values; others may do
        LOG.info("trial %s failed: %s", trial.number, error)
        trial.set_user_attr(REASON, str(error))
        trial.set_user_attr(SECONDS, round(time.perf_counter() - began, 3))
        study.tell(trial, state=TrialState.FAIL)
    except KeraslineError:
        trial.set_user_attr(KILLED, True)
        study.tell(trial, state=TrialState.FAIL)
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _trained(values: Mapping[str, Any], search: Search, folder: Path, on_epoch: Any) -> float:
    """The objective of a model that is built and trained with these values."""
    from kerasline.components.trainer.job import Job
    from kerasline.components.trainer.training import train

    of_model, of_trainer = parts(values)
    fixed = search.builder["hyperparameters"]
    builder = ModelBuilder(search.preprocessing, **{**search.builder, "hyperparameters": {**fixed, **of_model}})
    built = builder.execute(folder / "built").model
    trainer = Trainer(search.examples, search.preprocessing, built, **{**search.trainer, **of_trainer})
    outputs = trainer.output_artifacts(folder / "trained")
    job = Job(
        trainer.settings({}),
        built,
        search.examples,
        search.preprocessing,
        outputs.trained_model,
        outputs.history,
        search.work_dir,
        folder / "state",
    )
    return float(train(job, LOG.info, on_epoch)[search.objective])


def _take_up_the_killed(search: Search) -> None:
    """Asks again for what other processes were at when they were killed."""
    study = _study(search)
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study._storage.set_trial_user_attr(trial._trial_id, KILLED, True)
        study.tell(trial.number, state=TrialState.FAIL)
        if trial.params:
            study.enqueue_trial(trial.params)


def _study(search: Search) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(search.journal)))
    return optuna.create_study(
        storage=storage,
        study_name=NAME,
        load_if_exists=True,
        pruner=_pruner(search),
        direction="minimize" if search.less else "maximize",
        sampler=_sampler(search, search.seed),
    )


def _sampler(search: Search, seed: int) -> optuna.samplers.BaseSampler:
    if search.sampler == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=min(10, max(3, search.trials // 4)))


def _pruner(search: Search) -> optuna.pruners.BasePruner:
    if search.pruner == "hyperband":
        return optuna.pruners.HyperbandPruner(max_resource=search.trainer.get("epochs") or "auto")
    if search.pruner == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=1)
    return optuna.pruners.NopPruner()


def _standing(trials: list[FrozenTrial], search: Search) -> str:
    told = f"{len(trials)} of {search.trials} trials"
    if any(trial.state == TrialState.COMPLETE for trial in trials):
        found = best(trials, search.less)
        told += f", best {search.objective} {found.value:.4g} (trial {found.number + 1})"
    return told
