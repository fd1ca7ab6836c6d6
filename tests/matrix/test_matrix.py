"""Pipelines of what users combine, each run by processes started from scratch: see `tests.matrix.combinations`.

The default suite runs one of them, CI every fourth. `pytest -m "" tests/matrix` runs all, in some 40 minutes on two
cores.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.matrix.combinations import pairs_of, pairwise_combinations, required_pairs
from tests.matrix.outcome import check
from tests.matrix.pipelines import write_pipeline

COMBINATIONS = pairwise_combinations()
# The default suite runs the first combination of this with one input.
QUICK = ("layer_in_helper", "second_run")
# About 25 s each with two at a time: 6 minutes. Those with 200 inputs take minutes.
CI_RUNS_EVERY = 4
# What a second run changes, in turn, and the stages that run again.
CHANGES = [
    ("Trainer.steps=3", {"Trainer", "Exporter", "Evaluator", "Explainer"}),
    ("ModelBuilder.hyperparameters.units=5", {"ModelBuilder", "Trainer", "Exporter", "Evaluator", "Explainer"}),
    ("Evaluator.confidence=0.9", {"Evaluator"}),
]


def cases():
    quick_is_chosen = False
    for number, combination in enumerate(COMBINATIONS):
        kind = combination["preprocessing"], combination["way"]
        is_quick = not quick_is_chosen and kind == QUICK and combination["inputs"] == 1
        quick_is_chosen |= is_quick
        name = "-".join(map(str, [number, *combination.values()]))
        marks = [] if is_quick else [pytest.mark.slow]
        in_ci = number % CI_RUNS_EVERY == 0 and combination["inputs"] < 200
        marks += [] if is_quick or in_ci else [pytest.mark.long]
        yield pytest.param(number, combination, id=name, marks=marks)


def test_all_required_pairs_are_combined():
    found = {pair for combination in COMBINATIONS for pair in pairs_of(combination)}
    assert found >= required_pairs()


@pytest.mark.parametrize(("number", "combination"), cases())
def test_pipeline_runs_and_answers_as_keras_does(number, combination, tmp_path, monkeypatch):
    file = write_pipeline(combination, tmp_path, f"matrix_{number}")
    monkeypatch.syspath_prepend(tmp_path)  # where a user's modules would be found
    summary = WAYS[combination["way"]](file, number)
    check(combination, {node["name"]: node["outputs"] for node in summary["nodes"]})


@pytest.mark.slow
def test_stages_one_by_one_write_the_model_of_a_whole_run(tmp_path):
    number = next(number for number, combination in enumerate(COMBINATIONS) if combination["way"] == "nodes")
    file = write_pipeline(COMBINATIONS[number], tmp_path, "digests")
    digests = []
    for summary in (run_nodes(file, number), run(file, "--root", "another")):
        outputs = next(node["outputs"] for node in summary["nodes"] if node["name"] == "Exporter")
        digests.append(json.loads(Path(outputs["saved_model"], "kerasline.json").read_text())["digest"])
    assert digests[0] == digests[1]


def run_whole(file, number):
    summary = run(file)
    assert set(states(summary).values()) == {"ran"}
    return summary


def run_twice(file, number):
    run_whole(file, number)
    change, stages = CHANGES[number % len(CHANGES)]
    summary = run(file, "--set", change)
    assert {name for name, state in states(summary).items() if state == "ran"} == stages & set(states(summary))
    assert set(states(summary).values()) <= {"ran", "cached"}
    return summary


def run_on_workers(file, number):
    """Run the stages' own pipelines in two worker processes of Beam's."""
    summary = run(file, "--", "--direct_num_workers=2", "--direct_running_mode=multi_processing")
    assert set(states(summary).values()) == {"ran"}
    return summary


def run_nodes(file, number):
    """Run each stage by a process of its own. Then nothing is left to run."""
    stages = ["ExampleGen", "Transform", "ModelBuilder", "Trainer", "Exporter", "Evaluator", "Explainer"]
    baseline = ["Untrained"] if "Untrained" in file.read_text() else []
    explained = "kl.Explainer" in file.read_text()
    for stage in [*stages[:3], *baseline, *stages[3 : 7 if explained else 6]]:
        assert states(run(file, "--run-id", "one", "--node", stage)) == {stage: "ran"}
    summary = run(file)
    assert set(states(summary).values()) == {"cached"}
    return summary


WAYS = {"whole": run_whole, "second_run": run_twice, "workers": run_on_workers, "nodes": run_nodes}


def run(file, *arguments):
    """Run a pipeline in its folder by a process from scratch, and return its summary."""
    command = [sys.executable, "-m", "kerasline", "run", file.name, "--json", "summary.json", *arguments]
    result = subprocess.run(command, cwd=file.parent, capture_output=True, text=True, timeout=1800)
    assert result.returncode == 0, result.stdout + result.stderr
    return json.loads((file.parent / "summary.json").read_text())


def states(summary):
    return {node["name"]: node["state"] for node in summary["nodes"]}
