"""Start and interrupt runs of `long_training.py`, and compare their results with those of a whole run."""

import json
import sys
import time
from pathlib import Path

import keras
import numpy as np

from tests.conftest import REPOSITORY
from tests.forking import Forked

FILE = REPOSITORY / "tests" / "components" / "trainer" / "long_training.py"


def start(root, *more):
    program = REPOSITORY / "run_pipeline.py"
    command = [sys.executable, program, "run", FILE, "--root", root, "--json", f"{root}.json", *more]
    return Forked(list(map(str, command)), stdout=-1, stderr=-1, text=True)


def ended(process):
    assert process.wait(500) == 0, process.stderr.read()


def wait_for(condition, seconds=240):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


def checkpoints(root):
    return set(root.glob("state/*/checkpoints/*.npz"))


def assert_same_training(whole, cut):
    """Assert that the weights and the loss of every step are equal bit by bit."""
    results = [json.loads(Path(f"{root}.json").read_text())["nodes"][-1] for root in (whole, cut)]
    folders = [Path(node["outputs"]["trained_model"]) for node in results]
    assert json.loads((folders[1] / "training.json").read_text())["resumed_at_step"] > 0
    weights = [keras.saving.load_model(folder / "model.keras").get_weights() for folder in folders]
    for ours, theirs in zip(*weights):
        np.testing.assert_array_equal(ours, theirs)
    losses = [Path(node["outputs"]["history"], "steps.parquet").read_bytes() for node in results]
    assert losses[0] == losses[1]
    assert not list(cut.glob("state/*")), "a finished training keeps no checkpoints"
