"""Tuner, with real trainings of a small model."""

import json
import xml.etree.ElementTree as ElementTree

import pyarrow.parquet as pq
import pytest

from kerasline import ModelBuilder, Trainer, Tuner
from kerasline.components.core.artifacts import Hyperparameters
from kerasline.components.core.errors import DataError, ParameterError
from tests.components.trainer.conftest import build_model, problem  # noqa: F401

pytest.importorskip("optuna")

SPACE = {
    "units": {"int": [1, 16], "log": True},
    "rate": {"float": [1e-4, 1.0], "log": True},
    "activation": {"choice": ["relu", "tanh"]},
    "Trainer.batch_size": {"choice": [16, 64]},
}


@pytest.fixture
def tune(problem, tmp_path):  # noqa: F811
    count = [0]

    def tune(**given):
        count[0] += 1
        context = {key: given.pop(key) for key in ("state_dir", "report") if key in given}
        settings = {"space": SPACE, "function": build_model, "trials": 6, "trainer": {"epochs": 3}, **given}
        tuner = Tuner(problem[0], problem[1][False], objective=settings.pop("objective", "val_accuracy"), **settings)
        done = tuner.execute(tmp_path / str(count[0]), **context)
        done.table = pq.read_table(done.trials_report.path / "trials.parquet").to_pylist()
        return done

    return tune


def without_times(table):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in table]


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_best_trial_is_reproduced_by_model_builder_and_trainer(tune, problem, tmp_path, sampler):  # noqa: F811
    done = tune(sampler=sampler, pruner=None)
    best_json = done.best.read_json(Hyperparameters.FILE)
    assert [row["trial"] for row in done.table] == [1, 2, 3, 4, 5, 6]
    assert best_json["value"] == max(row["val_accuracy"] for row in done.table) == done.metrics["best_val_accuracy"]
    best = next(row for row in done.table if row["trial"] == best_json["trial"])
    assert best_json["hyperparameters"] == {name: best[name] for name in ("units", "rate", "activation")}
    assert best_json["trainer"] == {"batch_size": best["Trainer.batch_size"]}
    built = ModelBuilder(problem[1][False], best=done.best, function=build_model).execute(tmp_path / "m")
    trainer = Trainer(problem[0], problem[1][False], built.model, done.best, epochs=3)
    assert trainer.execute(tmp_path / "t").metrics["val_accuracy"] == best_json["value"]


@pytest.mark.slow
def test_chart_has_a_panel_for_each_hyperparameter(tune):
    done = tune(trials=4)
    root = ElementTree.fromstring((done.trials_report.path / "trials.svg").read_text())
    space = "{http://www.w3.org/2000/svg}"
    assert {"trial", *SPACE, "val_accuracy"} <= {text.text for text in root.iter(f"{space}text")}
    assert len(list(root.iter(f"{space}circle"))) == (1 + len(SPACE)) * 4


@pytest.mark.slow
def test_pruner_stops_unpromising_trials_early(tune):
    space = {"rate": {"float": [1e-6, 1.0], "log": True}}
    done = tune(space=space, trials=12, pruner="median", trainer={"epochs": 6}, objective="val_loss")
    pruned = [row for row in done.table if row["state"] == "pruned"]
    assert pruned and all(row["epochs"] < 6 for row in pruned) and done.metrics["pruned"] == len(pruned)
    whole = [row for row in done.table if row["state"] == "complete"]
    assert all(row["epochs"] == 6 for row in whole)
    assert min(row["val_loss"] for row in whole) == done.metrics["best_val_loss"]


class Interrupted(BaseException):
    pass


@pytest.mark.slow
def test_interrupted_search_continues_with_the_same_trials(tune, tmp_path):
    whole = tune(pruner=None)

    def report(text):
        if text.startswith("trial 4 of 6, epoch 2"):
            raise Interrupted

    with pytest.raises(Interrupted):
        tune(pruner=None, state_dir=tmp_path / "state", report=report)
    resumed = tune(pruner=None, state_dir=tmp_path / "state")
    key = [{k: v for k, v in row.items() if k != "trial"} for row in without_times(resumed.table)]
    assert key == [{k: v for k, v in row.items() if k != "trial"} for row in without_times(whole.table)]


def test_objective_is_checked_before_training(tune):
    progress = []
    with pytest.raises(ParameterError, match="Tuner.objective: no metric"):
        tune(objective="val_acc", report=progress.append)
    assert not progress


def explosive(inputs, hp):
    if hp["units"] > 8:
        raise ValueError("too many units")
    return build_model(inputs, hp)


def test_failed_trials_are_recorded_with_their_reason(tune):
    done = tune(function=explosive, space={"units": {"int": [1, 16]}}, trials=6, sampler="random")
    failed = [row for row in done.table if row["state"] == "fail"]
    assert {row["units"] > 8 for row in failed} == {True} and len(failed) == done.metrics["failed"]
    assert all("explosive() raised ValueError: too many units" in row["reason"] for row in failed)
    with pytest.raises(DataError, match=r"none of 2 trials completed: explosive\(\) raised ValueError"):
        tune(function=explosive, space={"units": {"int": [9, 16]}}, trials=2)


@pytest.mark.slow
def test_parallel_trials_run_in_several_processes(tune, tmp_path):
    progress = []
    done = tune(parallel=2, trials=6, state_dir=tmp_path / "state", report=progress.append)
    assert [row["trial"] for row in done.table] == [1, 2, 3, 4, 5, 6]
    workers = {json.loads(line)["worker_id"] for line in open(tmp_path / "state" / "journal.log")}
    assert len({worker.rpartition("-")[0] for worker in workers}) >= 2
    assert any("of 6 trials, best val_accuracy" in text for text in progress)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"space": {}}, r"Tuner.space: empty"),
        ({"space": {"units": {"int": [8, 1]}}}, r"Tuner.space: .*the lower bound 8 is greater than the upper bound 1"),
        (
            {"space": {"units": {"int": [1, 8], "choice": [1]}}},
            r"Tuner.space: .*expected exactly one of int, float and choice",
        ),
        ({"space": {"rate": {"float": [0, 1], "log": True}}}, r"Tuner.space: .*log requires a range above 0"),
        ({"space": {"Trainer.batch": {"int": [1, 8]}}}, r"Tuner.space.Trainer.batch: .*did you mean 'batch_size'\?"),
        ({"objective": "val_acc"}, r"Tuner.objective: no metric 'val_acc'; did you mean 'val_accuracy'\?"),
        ({"trainer": {"deterministic": True}}, r"Tuner.trainer.deterministic: not supported in a search"),
        ({"trainer": {"epoch": 3}}, r"Tuner.trainer.epoch: Trainer has no such parameter; did you mean 'epochs'\?"),
    ],
)
def test_invalid_parameters_are_errors_in_one_line(tune, given, message):
    from kerasline.components.core.errors import KeraslineError

    with pytest.raises(KeraslineError, match=message):
        tune(**given)


def test_bad_types_are_parameter_errors(tune):
    with pytest.raises(ParameterError, match="Tuner.trials"):
        tune(trials=0)
