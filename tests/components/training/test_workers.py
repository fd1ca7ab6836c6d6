"""Workers that Trainer starts: they learn what one process learns, and are started again when one is lost."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from components import Trainer
from components.errors import KeraslineError, ParameterError
from components.training import cluster, meeting
from pipeline.fingerprint import node_fingerprint
from tests.components.training.conftest import BATCH, ROWS
from tests.conftest import HOUSE

AN_EPOCH = -(-ROWS // BATCH)
# Smooth, so that rounding stays rounding: at the kink of a ReLU it becomes another gradient.
SMOOTH = {"activation": "tanh", "rate": 0.1, "momentum": 0.9}
LONG = {"epochs": 60, "steps_per_execution": 1, "checkpoint_steps": 20, "deterministic": True}


def processes(words="components.training.process", parent=None):
    """Those whose command line has these words, by their ids; of one parent alone."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            status = (folder / "status").read_text()
        except OSError:
            continue
        is_child = parent is None or f"\nPPid:\t{parent}\n" in status
        if words in command and is_child and "\nState:\tZ" not in status:
            found.append(int(folder.name))
    return sorted(found)


class Once:
    """A report that does something when it first hears of a step after so many."""

    def __init__(self, act, step=25):
        self.said, self._act, self._step = [], act, step

    def __call__(self, text):
        self.said.append(text)
        within = text.startswith("epoch") and ", step " in text
        if self._act and within and int(text.split("step ")[1].split(" ")[0].replace(",", "")) >= self._step:
            act, self._act = self._act, None
            act()

    def of_restarts(self):
        return [text for text in self.said if "start again" in text]


def equal(one, other):
    np.testing.assert_array_equal(one.losses, other.losses)
    for ours, theirs in zip(one.weights, other.weights):
        np.testing.assert_array_equal(ours, theirs)
    assert one.epochs == other.epochs


@pytest.mark.parametrize(
    "settings",
    [
        {},
        pytest.param(
            {"class_weight": {"0": 2.0, "1": 0.5}, "weighted": True, "clip_norm": 0.05, "accumulate_steps": 3,
             "optimizer": "adam", "ema": 0.9},
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"epochs": 8, "clip_value": 0.01, "early_stopping": {"monitor": "val_accuracy", "patience": 1}},
            marks=pytest.mark.slow,
        ),
    ],
)  # fmt: skip
def test_two_workers_learn_what_one_process_learns(train, settings):
    """203 rows in batches of 16: the last batch of an epoch has 11, five for one worker and six for the other."""
    settings = {"epochs": 3, **settings}
    alone, together = train(SMOOTH, **settings), train(SMOOTH, **settings, workers=2)
    assert len(together.losses) == len(alone.losses)
    np.testing.assert_allclose(together.losses, alone.losses, atol=1e-5)
    for ours, theirs in zip(together.weights, alone.weights):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    for ours, theirs in zip(together.epochs, alone.epochs):
        assert ours == pytest.approx(theirs, abs=1e-5)
    assert together.facts["replicas"] == 2 and together.facts["distribution"] == "multi_worker"
    assert not processes(parent=os.getpid())
