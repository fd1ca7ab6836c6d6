"""Training that is cut short goes on as if nothing had been, bit by bit."""

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from components.training.checkpoints import Checkpoints
from tests.components.training.conftest import BATCH, ROWS
from tests.conftest import HOUSE

AN_EPOCH = -(-ROWS // BATCH)


class Cut(Exception):
    pass


def cut_after(lines):
    """A report that raises after so many lines, as a failing disk or a kill would end the process."""
    left = [lines]

    def report(text):
        left[0] -= 1
        if left[0] < 0:
            raise Cut

    return report


@pytest.mark.parametrize(
    ("hp", "settings"),
    [
        ({"momentum": 0.9}, {"checkpoint_epochs": 1}),
        ({"optimizer": "adam", "dropout": 0.3, "rate": 0.01}, {"checkpoint_steps": 3}),
        ({"rate": 0.5}, {"checkpoint_steps": 7, "ema": 0.9, "accumulate_steps": 2}),
        ({"rate": 0.5}, {"checkpoint_steps": 5, "precision": "mixed_float16"}),
        ({"rate": 0.5}, {"checkpoint_steps": 5, "precision": "mixed_bfloat16", "clip_norm": 1.0}),
        ({"rate": 0.5}, {"checkpoint_epochs": 1, "early_stopping": {"patience": 1, "min_delta": 0.01}}),
        ({}, {"checkpoint_steps": 4, "steps": 3 * AN_EPOCH + 5}),
    ],
)
def test_what_was_cut_ends_with_the_same_weights_and_figures(train, tmp_path, hp, settings):
    settings = {"epochs": 6, **settings}
    whole = train(hp, **settings)
    for lines in (2, 4):
        state = tmp_path / f"state{lines}"
        with pytest.raises(Cut):
            train(hp, **settings, state_dir=state, report=cut_after(lines))
        resumed = train(hp, **settings, state_dir=state)
        assert resumed.facts["resumed_at_step"] > 0
        for ours, theirs in zip(resumed.weights, whole.weights):
            np.testing.assert_array_equal(ours, theirs)
        np.testing.assert_array_equal(resumed.losses, whole.losses)
        assert resumed.epochs == whole.epochs


def test_the_newest_that_can_be_read_counts_and_old_ones_go(train, tmp_path):
    with pytest.raises(Cut):
        train(epochs=6, checkpoint_steps=2, keep_checkpoints=3, state_dir=tmp_path, report=cut_after(3))
    files = sorted((tmp_path / "checkpoints").iterdir())
    assert [file.name for file in files] == [f"step-{step:012d}.npz" for step in range(*_last_three(files))]
    files[-1].write_bytes(files[-1].read_bytes()[:-100])
    said = []
    whole, resumed = train(epochs=6), train(epochs=6, checkpoint_steps=2, state_dir=tmp_path, report=said.append)
    assert resumed.facts["resumed_at_step"] == int(files[-2].stem[5:])
    assert said[0] == f"goes on after step {int(files[-2].stem[5:])} of {6 * AN_EPOCH}"
    np.testing.assert_array_equal(resumed.losses, whole.losses)


def _last_three(files):
    last = int(files[-1].stem[5:])
    return last - 4, last + 1, 2


def test_bfloat16_survives_a_checkpoint(tmp_path):
    import keras

    variable = keras.Variable(np.arange(5) / 3, dtype="bfloat16")
    before = keras.ops.convert_to_numpy(variable).astype("float32")
    Checkpoints(tmp_path, 1).save(1, [variable], {"step": 1})
    variable.assign(np.zeros(5))
    assert Checkpoints(tmp_path, 1).restore([variable])["step"] == 1
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(variable).astype("float32"), before)


RECIPE = '''
import keras
import numpy as np
from components import InMemoryExampleGen, ModelBuilder, Trainer, Transform
from pipeline.dag import Pipeline

def columns():
    x = np.random.default_rng(0).normal(size=(4000, 16)).astype("float32")
    return {"x": list(x), "y": (x.sum(1) > 0).astype("int64")}

def preprocessing():
    x = keras.Input((16,), name="x")
    return keras.Model({"x": x}, {"x": keras.layers.Rescaling(1.0)(x)})

def build_model(inputs, hp):
    x = keras.layers.Dropout(0.1)(keras.layers.Dense(64, activation="relu")(inputs["x"]))
    model = keras.Model(inputs, keras.layers.Dense(2)(x))
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    return model

def pipeline(settings):
    examples = InMemoryExampleGen(columns)
    prepared = Transform(examples, function=preprocessing, label="y")
    model = ModelBuilder(prepared, function=build_model)
    trained = Trainer(examples, prepared, model, epochs=400, batch_size=8, checkpoint_steps=50, steps_per_execution=10,
                      deterministic=True)
    return Pipeline("cut", [trained])
'''


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_run_goes_on_with_the_same_command(tmp_path, number):
    (tmp_path / "cut.py").write_text(RECIPE)

    def run(root, *more):
        command = [sys.executable, HOUSE / "run_pipeline.py", "run", "cut.py", "--root", root, "--json", f"{root}.json"]
        return subprocess.Popen(list(map(str, [*command, *more])), cwd=tmp_path, stdout=-1, stderr=-1, text=True)

    short = ["--set", "Trainer.steps=6000"]
    whole = run("whole", *short)
    assert whole.wait(300) == 0, whole.stderr.read()
    for _ in range(3):
        killed = run("cut", *short)
        before = set(tmp_path.glob("cut/state/*/checkpoints/*"))
        until = time.monotonic() + 120
        while set(tmp_path.glob("cut/state/*/checkpoints/*")) <= before and time.monotonic() < until:
            time.sleep(0.05)
        killed.send_signal(number)
        assert killed.wait(60) == (143 if number == signal.SIGTERM else -9)
        time.sleep(1)
    last = run("cut", *short)
    assert last.wait(300) == 0, last.stderr.read()
    results = [json.loads((tmp_path / f"{name}.json").read_text())["nodes"][-1] for name in ("whole", "cut")]
    trained = [node["outputs"]["trained_model"] for node in results]
    assert json.loads(open(f"{trained[1]}/training.json").read())["resumed_at_step"] > 0
    import keras

    weights = [keras.saving.load_model(f"{folder}/model.keras").get_weights() for folder in trained]
    for ours, theirs in zip(*weights):
        np.testing.assert_array_equal(ours, theirs)
    losses = [open(f"{node['outputs']['history']}/steps.parquet", "rb").read() for node in results]
    assert losses[0] == losses[1]
    assert not list(tmp_path.glob("cut/state/*")), "what is done needs no checkpoints"
