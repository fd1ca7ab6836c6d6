"""Real recipes on real data, through the command line."""

import contextlib
import json
import os
import signal
import sqlite3
import statistics
import time
from pathlib import Path

import pytest

from kerasline.pipeline.storage.artifact_root import read_published
from tests.conftest import REPOSITORY

STAGES = [
    "ExampleGen",
    "StatisticsGen",
    "SchemaGen",
    "ExampleValidator",
    "Transform",
    "ModelBuilder",
    "Trainer",
    "Exporter",
    "Evaluator",
    "Explainer",
    "InfraValidator",
    "Pusher",
]


def states(summary):
    return {node["name"]: node["state"] for node in summary["nodes"]}


def node(summary, name):
    return next(n for n in summary["nodes"] if n["name"] == name)


@pytest.fixture
def run(cli, tmp_path):
    def call(*arguments, root="root"):
        result = cli("run", *arguments, "--root", tmp_path / root, "--json", tmp_path / "summary.json")
        assert result.returncode == 0, result.stderr
        return result.summary

    return call


def test_main_job_trains_evaluates_exports_and_pushes_penguins(run, tmp_path):
    import tensorflow as tf

    summary = run()
    assert states(summary) == dict.fromkeys(STAGES, "ran")
    assert node(summary, "Evaluator")["metrics"]["accuracy"] >= 0.9
    serve = tf.saved_model.load(node(summary, "Pusher")["metrics"]["path"]).signatures["serving_default"]
    answer = serve(
        bill_length_mm=tf.constant([[39.1], [float("nan")]]),
        bill_depth_mm=tf.constant([[18.7], [15.0]]),
        flipper_length_mm=tf.constant([[181.0], [220.0]]),
        body_mass_g=tf.constant([[3750.0], [5200.0]]),
        island=tf.constant([["Torgersen"], ["Biscoe"]]),
        sex=tf.constant([["male"], [""]]),
    )
    assert answer["label"].numpy().tolist() == [b"Adelie", b"Gentoo"]
    assert states(run()) == dict.fromkeys(STAGES, "cached")


@pytest.mark.slow
def test_changed_constant_reruns_the_model_and_dependent_stages(run, tmp_path):
    source = (REPOSITORY / "pipeline" / "recipes" / "penguins.py").read_text()
    file = tmp_path / "mine.py"
    curated = (
        "--set",
        f"SchemaGen.schema_file={REPOSITORY}/schemas/penguins.pbtxt",
        "--set",
        "Trainer.epochs=2",
        "--set",
        "Evaluator.thresholds={}",
    )
    file.write_text(source)
    run(file, *curated)
    file.write_text(source.replace('activation="relu"', 'activation="tanh"'))
    assert states(run(file, *curated)) == {**dict.fromkeys(STAGES[:5], "cached"), **dict.fromkeys(STAGES[5:], "ran")}


@pytest.mark.slow
def test_refused_model_is_not_pushed_and_reported(cli, tmp_path):
    arguments = ["run", "--root", tmp_path / "root", "--json", tmp_path / "s.json"]
    arguments += ["--set", "Trainer.epochs=1", "--set", 'Evaluator.thresholds={"accuracy": {"min": 0.999}}']
    result = cli(*arguments)
    assert result.returncode == 0
    assert node(result.summary, "Pusher")["state"] == "skipped"
    assert "model refused: accuracy is" in result.stdout and "at least 0.999 required" in result.stdout
    assert not (tmp_path / "root" / "served").exists()
    again = cli(*arguments)
    assert states(again.summary) == {**dict.fromkeys(STAGES[:-1], "cached"), "Pusher": "skipped"}


@pytest.mark.slow
def test_taxi_runs_on_the_real_sample(run, taxi_csv):
    summary = run("taxi", "--set", f"ExampleGen.input={taxi_csv}")
    assert states(summary) == dict.fromkeys(STAGES, "ran")
    assert node(summary, "Trainer")["metrics"]["steps"] == 1000
    assert node(summary, "Evaluator")["metrics"]["auc"] > 0.9


def test_taxi_without_data_says_how_to_provide_it(cli, tmp_path):
    result = cli("run", "taxi", "--root", tmp_path / "root")
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert "ExampleGen.input: no data given; pass --set ExampleGen.input=FILE" in line


def test_missing_label_column_stops_at_example_validator(cli, tmp_path, taxi_csv):
    import pandas as pd

    pd.read_csv(taxi_csv).drop(columns="tips").to_csv(tmp_path / "trips.csv", index=False)
    result = cli("run", "taxi", "--root", tmp_path / "root", "--set", "ExampleGen.input=trips.csv")
    assert result.returncode == 1
    assert "ExampleValidator: train: feature 'tips': the column is missing" in result.stderr


@pytest.mark.slow
@pytest.mark.long
def test_penguins_reach_their_accuracy_over_five_seeds(run):
    accuracies = []
    for seed in range(5):
        summary = run("--set", f"ModelBuilder.seed={seed}", "--set", f"Trainer.seed={seed}")
        accuracies.append(node(summary, "Evaluator")["metrics"]["accuracy"])
    assert statistics.mean(accuracies) >= 0.97, accuracies


@pytest.mark.slow
def test_fashion_mnist_reaches_the_reference(run, fashion_folder):
    """The same network trained in PyTorch had an accuracy of 0.8677 on the test images.

    Other initial weights move that by a point, so only what is worse is a mistake.
    """
    summary = run("fashion_mnist", "--set", f"ExampleGen.input={fashion_folder}")
    assert 0.8577 <= node(summary, "Evaluator")["metrics"]["accuracy"] < 0.9
    assert node(summary, "ModelBuilder")["metrics"]["parameters"] == 785 * 128 + 129 * 64 + 65 * 10


@pytest.mark.slow
@pytest.mark.parametrize("kills", [5, pytest.param(20, marks=pytest.mark.long)])
def test_killed_run_completes_with_the_same_command(cli, tmp_path, kills):
    """Kills are spread over the length of a run, each in a new root."""
    clock = time.monotonic()
    assert cli("run", "--root", tmp_path / "whole").returncode == 0
    length = time.monotonic() - clock
    for number in range(kills):
        root = tmp_path / f"root-{number}"
        process = cli("run", "--root", root, wait=False)
        time.sleep(length * (number + 0.5) / kills)
        with contextlib.suppress(ProcessLookupError):  # a run may be quicker than the first one
            os.kill(process.pid, signal.SIGKILL)
        process.wait()
        finished = _recorded(root, "ran")
        again = cli("run", "--root", root, "--json", tmp_path / "again.json")
        assert again.returncode == 0, again.stderr
        after = states(again.summary)
        assert set(after.values()) <= {"ran", "cached"}
        assert all(after[name] == "cached" for name in finished)
        assert len(_recorded(root, "ran")) == len(set(_recorded(root, "ran"))) == len(STAGES) - _adopted(root)
        folders = list((root / "artifacts" / "penguins").glob("*/*"))
        assert all(read_published(folder).broken() is None for folder in folders)
        assert len(folders) == len(STAGES)
        assert len([p for p in (root / "served" / "penguins").iterdir() if p.name.isdigit()]) == 1


def _recorded(root: Path, state: str) -> list[str]:
    if not (root / "metadata.sqlite").exists():
        return []
    with sqlite3.connect(root / "metadata.sqlite") as database:
        try:
            rows = database.execute("SELECT node FROM executions WHERE state = ?", (state,))
            return [row[0] for row in rows]
        except sqlite3.OperationalError:  # killed before the tables were made
            return []


def _adopted(root: Path) -> int:
    """Return stages that were published but killed before they were recorded: they are only known as cached."""
    return len(set(_recorded(root, "cached")) - set(_recorded(root, "ran")))


@pytest.mark.slow
def test_json_summary_has_the_documented_format(run):
    summary = run("--set", "Trainer.epochs=1", "--set", "Evaluator.thresholds={}")
    assert list(summary)[:5] == ["run_id", "recipe", "state", "seconds", "nodes"]
    for entry in summary["nodes"]:
        assert {"name", "state", "seconds", "outputs", "metrics"} <= set(entry)
        assert all(Path(path).is_dir() for path in entry["outputs"].values())
    json.dumps(summary)
