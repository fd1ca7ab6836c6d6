"""A small problem that can be learned, and a Trainer on it."""

import json

import keras
import numpy as np
import pyarrow.parquet as pq
import pytest

from kerasline import ModelBuilder, Trainer, Transform
from kerasline.components.core.artifacts import Examples
from kerasline.components.data import shards

ROWS, BATCH = 203, 16
X = np.random.default_rng(0).normal(size=(ROWS, 4)).astype("float32")
Y = (X @ [1.0, -2.0, 0.5, 0.0] + 0.3 * X[:, 0] * X[:, 1] > 0).astype("int64")
COLUMNS = {**{f"x{n}": X[:, n] for n in range(4)}, "y": Y, "w": np.abs(X[:, 3])}


def preprocessing():
    inputs = {f"x{n}": keras.Input((1,), name=f"x{n}") for n in range(4)}
    return keras.Model(inputs, {"x": keras.layers.Concatenate()(list(inputs.values()))})


def build_model(inputs, hp):
    x = keras.layers.Dense(hp.get("units", 8), activation=hp.get("activation", "relu"), name="hidden")(inputs["x"])
    if hp.get("dropout"):
        x = keras.layers.Dropout(hp["dropout"])(x)
    model = keras.Model(inputs, keras.layers.Dense(2, name="logits")(x))
    if hp.get("lora_rank"):
        model.get_layer("hidden").enable_lora(hp["lora_rank"])
    optimizer = keras.optimizers.get(hp.get("optimizer", "sgd"))
    optimizer.learning_rate = hp.get("rate", 0.05)
    if hasattr(optimizer, "momentum") and "momentum" in hp:
        optimizer.momentum = hp["momentum"]
    model.compile(
        optimizer,
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        weighted_metrics=[],
    )
    return model


@pytest.fixture(scope="session")
def problem(tmp_path_factory):
    """Return Examples with splits train and eval and their Preprocessing, with and without row weights."""
    import pyarrow as pa

    folder = tmp_path_factory.mktemp("problem")
    (folder / "examples").mkdir()
    examples = Examples(folder / "examples")
    with shards.ExamplesWriter(examples, ["train", "eval"]) as writer:
        for split, rows in (("train", slice(None)), ("eval", slice(0, 90))):
            columns = {name: values[rows] for name, values in COLUMNS.items()}
            writer.write(split, pa.RecordBatch.from_pydict(columns))
    plain = Transform(examples, function=preprocessing, label="y").execute(folder / "plain").preprocessing
    weighted = (
        Transform(examples, function=preprocessing, label="y", sample_weight="w")
        .execute(folder / "weighted")
        .preprocessing
    )
    return examples, {False: plain, True: weighted}


class Trained:
    """What a training left."""

    def __init__(self, done, progress):
        self.metrics, self.progress = done.metrics, progress
        self.model = done.trained_model.load(optimizer=True)
        self.weights = self.model.get_weights()
        self.facts = done.trained_model.read_json("training.json")
        calibration = done.trained_model.path / "calibration.json"
        self.calibration = json.loads(calibration.read_text()) if calibration.exists() else None
        self.folder = done.history.path
        self.epochs = pq.read_table(self.folder / "history.parquet").to_pylist()
        steps = self.folder / "steps.parquet"
        self.losses = pq.read_table(steps)["loss"].to_numpy() if steps.exists() else None


@pytest.fixture
def train(problem, tmp_path):
    """Build and train a model: `train(hp, weighted=False, state_dir=…, report=…, **parameters)`."""
    examples, prepared = problem
    count = [0]

    def train(hp=None, *, function=build_model, weighted=False, **given):
        count[0] += 1
        folder = tmp_path / str(count[0])
        context = {key: given.pop(key) for key in ("state_dir", "report") if key in given}
        progress = []
        context.setdefault("report", progress.append)
        preprocessing = prepared[weighted]
        built = ModelBuilder(preprocessing, function=function, hyperparameters=hp or {}).execute(folder / "built")
        own = given.pop("own", None)
        settings = {"batch_size": BATCH, "epochs": 2, **given, **({"function": own} if own else {})}
        trainer = Trainer(examples, preprocessing, built.model, **settings)
        return Trained(trainer.execute(folder / "trained", **context), progress)

    return train
