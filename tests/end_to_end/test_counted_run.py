"""What a run costs in counts that no machine changes, so that a cost that creeps in fails a test on any machine."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY


@pytest.fixture(scope="module")
def counts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("counted")
    script = Path(__file__).with_name("counted_run.py")
    command = [
        sys.executable,
        str(script),
        str(folder / "counts.json"),
        "run",
        "penguins",
        "--root",
        str(folder / "root"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(REPOSITORY)})
    assert done.returncode == 0, done.stderr
    files = [file for file in (folder / "root").rglob("*") if file.is_file()]
    return {**json.loads((folder / "counts.json").read_text()), "bytes": sum(file.stat().st_size for file in files)}


def test_graphs_are_traced_once(counts):
    """79 today: of adapted layers, of training and its input, of the signatures, and of saving and loading."""
    assert 0 < counts["graphs"] <= 85


def test_autograph_converts_nothing_of_ours(counts):
    """11 today: the functions that Keras and TensorFlow convert themselves when they save a model."""
    assert 0 < counts["conversions"] <= 12


def test_only_the_candidate_model_gets_processes(counts):
    """3 today, in which InfraValidator loads and serves it. `uname` is started by Python's `platform`."""
    assert len([name for name in counts["processes"] if name != "uname"]) <= 3


def test_stages_leave_no_models_behind(counts):
    """2 today, a preprocessing and a model, since Evaluator ended. The stages before it leave none."""
    assert counts["models"] <= 2


def test_modules_and_bytes_are_bounded(counts):
    """5,851 modules, most of them TensorFlow's, Keras's and Beam's, and 1.3 MB of artifacts, logs and reports today."""
    assert 0 < counts["modules"] <= 6_100
    assert 0 < counts["bytes"] <= 2_000_000
