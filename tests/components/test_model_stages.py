"""ModelBuilder, Trainer, Evaluator, Exporter and Pusher, on a small problem that can be learned."""

import io
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from types import SimpleNamespace

import h5py
import keras
import numpy as np
import pytest

from kerasline import Evaluator, Exporter, ModelBuilder, Pusher, Trainer, Transform
from kerasline.components.core.artifacts import Blessing, SavedModel
from kerasline.components.core.errors import DataError, ParameterError, StageSkipped, UserCodeError
from tests.conftest import REPOSITORY

RANDOM = np.random.default_rng(2)
COLORS = ["blue", "green", "red"]


def rows(count):
    color = RANDOM.integers(0, 3, count)
    size = (color * 3 + RANDOM.normal(0, 0.3, count)).astype("float32")
    return {
        "size": [None if i % 50 == 0 else float(v) for i, v in enumerate(size)],
        "shape": RANDOM.choice(["round", "square"], count).tolist(),
        "color": [COLORS[c] for c in color],
    }


SPLITS = {"train": rows(500), "eval": rows(100), "test": rows(200)}


def preprocessing():
    size = keras.Input((1,), name="size")
    shape = keras.Input((1,), name="shape", dtype="string")
    color = keras.Input((), name="color", dtype="string")
    scaled = keras.ops.nan_to_num(keras.layers.Normalization()(size))
    one_hot = keras.layers.StringLookup(output_mode="one_hot")(shape)
    return keras.Model(
        {"size": size, "shape": shape, "color": color},
        {
            "x": keras.layers.Concatenate()([scaled, one_hot]),
            "color": keras.layers.StringLookup(num_oov_indices=0)(color),
        },
    )


def build_model(inputs, hp):
    x = keras.layers.Dense(8, activation="relu")(inputs["x"])
    model = keras.Model(inputs, keras.layers.Dense(3, activation="softmax", name="scores")(x))
    model.compile(keras.optimizers.Adam(hp.get("rate", 0.02)), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def not_compiled(inputs, hp):
    return keras.Model(inputs, keras.layers.Dense(3)(inputs["x"]))


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
    """Everything from raw rows to an exported model, once for all tests here."""
    import pyarrow as pa

    from kerasline.components.core.artifacts import Examples
    from kerasline.components.data.shards import ExamplesWriter

    folder = tmp_path_factory.mktemp("stages")
    (folder / "examples").mkdir()
    examples = Examples(folder / "examples")
    with ExamplesWriter(examples, list(SPLITS)) as writer:
        for split, columns in SPLITS.items():
            writer.write(split, pa.RecordBatch.from_pydict(columns))
    prepared = Transform(examples, function=preprocessing, label="color").execute(folder / "transform").preprocessing
    built = ModelBuilder(prepared, function=build_model).execute(folder / "built")
    trained = Trainer(examples, prepared, built.model, epochs=12).execute(folder / "trained")
    exported = Exporter(prepared, trained.trained_model).execute(folder / "exported")
    return SimpleNamespace(examples=examples, prepared=prepared, built=built, trained=trained, exported=exported)


def weights_of(artifact):
    return artifact.load().get_weights()


@pytest.mark.slow
def test_seed_determines_the_initial_weights(stages, tmp_path):
    def build(seed):
        return weights_of(
            ModelBuilder(stages.prepared, function=build_model, seed=seed).execute(tmp_path / str(time.time())).model
        )

    np.testing.assert_array_equal(build(0)[0], build(0)[0])
    assert (build(0)[0] != build(1)[0]).any()


def test_untrained_model_is_stored_once_without_optimizer_state(stages):
    files = {path.name for path in stages.built.model.path.iterdir()}
    assert files == {"model.keras", "model.keras.json", "summary.json", "graph.svg"}
    with zipfile.ZipFile(stages.built.model.path / "model.keras") as archive:
        with h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as weights:
            sizes = []
            weights.visititems(lambda name, item: sizes.append(getattr(item, "size", 0)))
    assert sum(sizes) <= stages.built.metrics["parameters"] + 2  # the optimizer's step and learning rate


def test_parameter_count_agrees_with_the_formula(stages):
    features = stages.prepared.load_features().output["x"].shape[-1]
    assert stages.built.metrics["parameters"] == (features + 1) * 8 + 9 * 3


@pytest.mark.parametrize(
    ("function", "message"), [(not_compiled, "an uncompiled model"), (lambda i, h: None, "NoneType")]
)
def test_untrainable_model_is_refused(stages, tmp_path, function, message):
    with pytest.raises(UserCodeError, match=f"must return a compiled keras.Model, it returned {message}"):
        ModelBuilder(stages.prepared, function=function).execute(tmp_path)


@pytest.mark.parametrize(("given", "steps"), [({"epochs": 2}, 32), ({"steps": 37}, 37), ({"steps": 5}, 5), ({}, 16)])
def test_training_takes_exactly_the_requested_steps(stages, tmp_path, given, steps):
    done = Trainer(stages.examples, stages.prepared, stages.built.model, **given).execute(tmp_path)
    assert done.trained_model.load(optimizer=True).optimizer.iterations.numpy() == steps == done.metrics["steps"]


@pytest.mark.slow
def test_steps_train_like_the_same_number_of_epochs(stages, tmp_path):
    epochs = Trainer(stages.examples, stages.prepared, stages.built.model, epochs=2).execute(tmp_path / "a")
    steps = Trainer(stages.examples, stages.prepared, stages.built.model, steps=32).execute(tmp_path / "b")
    for ours, theirs in zip(weights_of(epochs.trained_model), weights_of(steps.trained_model)):
        np.testing.assert_array_equal(ours, theirs)


def test_nan_loss_is_reported_with_step_and_layer(stages, tmp_path):
    model = (
        ModelBuilder(stages.prepared, function=build_model, hyperparameters={"rate": 1e30})
        .execute(tmp_path / "m")
        .model
    )
    with pytest.raises(
        DataError, match=r"the loss became (nan|inf) in step \d+ .*: layer .*scores.* Lower the learning rate"
    ):
        Trainer(stages.examples, stages.prepared, model, epochs=50).execute(tmp_path / "t")


def served(stages, split="test"):
    import tensorflow as tf

    columns = SPLITS[split]
    raw = {
        "size": tf.constant([[np.nan if v is None else v] for v in columns["size"]], tf.float32),
        "shape": tf.constant([[v] for v in columns["shape"]]),
    }
    loaded = tf.saved_model.load(str(stages.exported.saved_model.path))
    return loaded.signatures["serving_default"](**raw)


def test_evaluation_agrees_with_scikit_learn_on_served_predictions(stages, tmp_path):
    from sklearn.metrics import accuracy_score, confusion_matrix, log_loss

    done = Evaluator(stages.examples, stages.prepared, stages.trained.trained_model).execute(tmp_path)
    answers = served(stages)
    labels = [label.decode() for label in answers["label"].numpy()]
    classes = stages.prepared.facts["class_names"]
    truth = SPLITS["test"]["color"]
    assert done.metrics["accuracy"] == pytest.approx(accuracy_score(truth, labels), abs=1e-6)
    order = [classes.index(c) for c in sorted(classes)]
    expected = log_loss(truth, answers["scores"].numpy()[:, order].astype("float64"), labels=sorted(classes))
    assert done.metrics["loss"] == pytest.approx(expected, rel=1e-4)
    confusion = done.evaluation.read_json("metrics.json")["confusion"]["scores"]["counts"]
    np.testing.assert_array_equal(confusion, confusion_matrix(truth, labels, labels=classes))


def test_model_below_its_threshold_is_refused_and_not_pushed(stages, tmp_path):
    done = Evaluator(
        stages.examples, stages.prepared, stages.trained.trained_model, thresholds={"accuracy": {"min": 1.01}}
    ).execute(tmp_path / "evaluation")
    assert not done.blessing.blessed and "at least 1.01 required" in done.metrics["blessed"]
    with pytest.raises(StageSkipped, match="model refused: accuracy is .*, at least 1.01 required"):
        Pusher(stages.exported.saved_model, done.blessing, destination=str(tmp_path / "d")).execute(tmp_path / "p")
    assert not (tmp_path / "d").exists()


def test_threshold_on_an_unknown_metric_gets_a_suggestion(stages, tmp_path):
    with pytest.raises(ParameterError, match="no metric 'acuracy'; did you mean 'accuracy'"):
        Evaluator(
            stages.examples, stages.prepared, stages.trained.trained_model, thresholds={"acuracy": {"min": 1}}
        ).execute(tmp_path)


def test_exported_model_is_self_contained_and_agrees_with_keras(stages, tmp_path):
    """Loaded by plain TensorFlow in another process, at two batch sizes, with missing values."""
    code = """
import json, sys, tensorflow as tf
rows = json.load(open(sys.argv[2]))
serve = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
def column(part, place, *dtype): return tf.constant([[row[place]] for row in part], *dtype)
def ask(part): return serve(size=column(part, 0, tf.float32), shape=column(part, 1))
print(json.dumps([ask(rows)["scores"].numpy().tolist(), [ask([r])["scores"].numpy().tolist()[0] for r in rows]]))
"""
    part = [(float("nan") if v is None else v, s) for v, s in zip(SPLITS["test"]["size"][:7], SPLITS["test"]["shape"])]
    (tmp_path / "rows.json").write_text(json.dumps(part))
    command = [sys.executable, "-c", code, str(stages.exported.saved_model.path), str(tmp_path / "rows.json")]
    together, alone = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    np.testing.assert_allclose(together, alone, atol=1e-6)
    features = stages.prepared.load_features()
    raw = {"size": np.array([[r[0]] for r in part], "float32"), "shape": np.array([[r[1]] for r in part], object)}
    import tensorflow as tf

    expected = stages.trained.trained_model.load()(features({k: tf.constant(v) for k, v in raw.items()}))
    np.testing.assert_allclose(together, expected, atol=1e-6)


def fake_model(folder, size=1000):
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"x" * size)
    (folder / "variables" / "data").write_bytes(os.urandom(size))
    return SavedModel(folder)


def test_pushing_the_same_model_again_makes_no_second_version(tmp_path):
    model = fake_model(tmp_path / "model")
    first = Pusher(model, destination=str(tmp_path / "d")).execute(tmp_path / "1")
    again = Pusher(model, destination=str(tmp_path / "d")).execute(tmp_path / "2")
    other = Pusher(fake_model(tmp_path / "other"), destination=str(tmp_path / "d")).execute(tmp_path / "3")
    assert first.metrics == again.metrics
    assert int(other.metrics["version"]) > int(first.metrics["version"])


def test_invalid_destination_is_an_error_in_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="Pusher.destination .*Not a directory"):
        Pusher(fake_model(tmp_path / "m"), destination=str(tmp_path / "file" / "d")).execute(tmp_path / "p")


PUSH = """
import sys
from pathlib import Path
from kerasline.components.pusher import destination
print(destination(sys.argv[2]).push(Path(sys.argv[1])))
"""


def test_concurrent_pushes_get_distinct_versions(tmp_path):
    models = [fake_model(tmp_path / f"m{i}").path for i in range(4)]
    commands = [[sys.executable, "-c", PUSH, str(model), str(tmp_path / "d")] for model in models]
    processes = [subprocess.Popen(c, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) for c in commands]
    versions = {int(p.communicate()[0]) for p in processes}
    assert len(versions) == 4
    assert {int(p.name) for p in (tmp_path / "d").iterdir() if p.name.isdigit()} == versions


def test_killed_push_leaves_no_partial_version(tmp_path):
    model = fake_model(tmp_path / "model", size=30_000_000).path
    command = [sys.executable, "-c", PUSH, str(model), str(tmp_path / "d")]
    for instant in range(6):
        process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL)
        time.sleep(0.05 + instant * 0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
        for version in (p for p in (tmp_path / "d").glob("*") if p.name.isdigit()):
            assert (version / "variables" / "data").read_bytes() == (model / "variables" / "data").read_bytes()
    subprocess.run(command, cwd=REPOSITORY, check=True, stdout=subprocess.DEVNULL)
    assert len([p for p in (tmp_path / "d").iterdir() if p.name.isdigit()]) == 1
    assert not (tmp_path / "d" / ".pushing").exists()


def test_blessed_model_is_pushed(tmp_path):
    (tmp_path / "b").mkdir()
    blessing = Blessing(tmp_path / "b")
    blessing.write_json("blessing.json", {"blessed": True, "rules": []})
    done = Pusher(fake_model(tmp_path / "m"), blessing, destination=str(tmp_path / "d")).execute(tmp_path / "p")
    assert done.pushed.read_json("pushed.json")["path"] == done.metrics["path"]
