"""Interrupted training resumes with bitwise identical results."""

import signal
import time

import numpy as np
import pytest

from kerasline.components.trainer.checkpoints import Checkpoints
from tests.components.trainer.conftest import BATCH, ROWS
from tests.components.trainer.interrupted import assert_same_training, checkpoints, ended, start, wait_for
from tests.marks import slowly

STEPS_PER_EPOCH = -(-ROWS // BATCH)


class Interrupted(Exception):
    pass


def interrupted_after(lines):
    """Return a report function that raises after this many lines, like a kill."""
    left = [lines]

    def report(text):
        left[0] -= 1
        if left[0] < 0:
            raise Interrupted

    return report


@pytest.mark.parametrize(
    ("hp", "settings"),
    [
        slowly({"momentum": 0.9}, {"checkpoint_epochs": 1}),
        ({"optimizer": "adam", "dropout": 0.3, "rate": 0.01}, {"checkpoint_steps": 3}),
        slowly({"optimizer": "adam", "lora_rank": 2, "dropout": 0.3}, {"checkpoint_steps": 3}),
        slowly({"rate": 0.5}, {"checkpoint_steps": 7, "ema": 0.9, "accumulate_steps": 2}),
        slowly({"rate": 0.5}, {"checkpoint_steps": 5, "precision": "mixed_float16"}),
        slowly({"rate": 0.5}, {"checkpoint_steps": 5, "precision": "mixed_bfloat16", "clip_norm": 1.0}),
        slowly({"rate": 0.5}, {"checkpoint_epochs": 1, "early_stopping": {"patience": 1, "min_delta": 0.01}}),
        slowly(
            {"optimizer": "adam", "dropout": 0.3},
            {
                "checkpoint_steps": 5,
                "ema": 0.9,
                "phases": [{"epochs": 3, "freeze": ["hidden"]}, {"learning_rate": 1e-3}],
            },
        ),
        slowly({}, {"checkpoint_steps": 4, "steps": 3 * STEPS_PER_EPOCH + 5}),
    ],
)
@pytest.mark.parametrize("lines", [4, slowly(2)])
def test_resumed_training_has_the_same_weights_and_metrics(train, tmp_path, hp, settings, lines):
    settings = {"epochs": 6, **settings}
    whole = train(hp, **settings)
    with pytest.raises(Interrupted):
        train(hp, **settings, state_dir=tmp_path / "state", report=interrupted_after(lines))
    resumed = train(hp, **settings, state_dir=tmp_path / "state")
    assert resumed.facts["resumed_at_step"] > 0
    for weights, expected in zip(resumed.weights, whole.weights):
        np.testing.assert_array_equal(weights, expected)
    np.testing.assert_array_equal(resumed.losses, whole.losses)
    assert resumed.epochs == whole.epochs


def test_newest_readable_checkpoint_is_used_and_old_ones_are_deleted(train, tmp_path):
    with pytest.raises(Interrupted):
        train(epochs=6, checkpoint_steps=2, keep_checkpoints=3, state_dir=tmp_path, report=interrupted_after(3))
    files = sorted((tmp_path / "checkpoints").iterdir())
    assert [file.name for file in files] == [f"step-{step:012d}.npz" for step in range(*_last_three(files))]
    files[-1].write_bytes(files[-1].read_bytes()[:-100])
    progress = []
    whole, resumed = train(epochs=6), train(epochs=6, checkpoint_steps=2, state_dir=tmp_path, report=progress.append)
    assert resumed.facts["resumed_at_step"] == int(files[-2].stem[5:])
    assert progress[0] == f"resumed after step {int(files[-2].stem[5:])} of {6 * STEPS_PER_EPOCH}"
    np.testing.assert_array_equal(resumed.losses, whole.losses)


def _last_three(files):
    last = int(files[-1].stem[5:])
    return last - 4, last + 1, 2


def test_checkpoint_restores_bfloat16(tmp_path):
    import keras

    variable = keras.Variable(np.arange(5) / 3, dtype="bfloat16")
    before = keras.ops.convert_to_numpy(variable).astype("float32")
    checkpoints = Checkpoints(tmp_path, 1)
    checkpoints.save(1, [variable], {"step": 1})
    variable.assign(np.zeros(5))
    assert checkpoints.restore(lambda state: [variable])["step"] == 1
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(variable).astype("float32"), before)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_checkpoint_has_the_values_of_its_step_while_training_goes_on(tmp_path, jit_compile):
    import keras
    import tensorflow as tf

    values = np.random.default_rng(0).normal(size=(64, 50_000)).astype("float32")
    variables = [keras.Variable(row) for row in values]

    @tf.function(jit_compile=jit_compile)
    def step():
        for variable in variables:
            variable.value.assign_sub(0.5 * variable.value)

    step()
    values /= 2
    checkpoints = Checkpoints(tmp_path, 1)
    checkpoints.save(1, variables, {"step": 1})
    for _ in range(5):
        step()
    assert checkpoints.restore(lambda state: variables)["step"] == 1
    np.testing.assert_array_equal([variable.numpy() for variable in variables], values)


def test_checkpoint_that_cannot_be_written_fails_the_training(tmp_path):
    import keras

    checkpoints = Checkpoints(tmp_path / "folder", 1)
    (tmp_path / "folder").rmdir()
    checkpoints.save(1, [keras.Variable(1.0)], {"step": 1})
    with pytest.raises(FileNotFoundError):
        checkpoints.wait()


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_killed_run_resumes_with_the_same_command(tmp_path, number):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    ended(start(whole))
    for _ in range(3):
        before = checkpoints(cut)
        killed = start(cut)
        wait_for(lambda before=before: checkpoints(cut) - before)
        killed.send_signal(number)
        assert killed.wait(60) == (143 if number == signal.SIGTERM else -9)
        time.sleep(1)
    ended(start(cut))
    assert_same_training(whole, cut)
