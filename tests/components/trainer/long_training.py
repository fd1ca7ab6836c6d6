"""A pipeline that trains for long enough to be cut in between, for tests that kill it."""

import keras
import numpy as np

from kerasline import InMemoryExampleGen, ModelBuilder, Trainer, Transform
from kerasline.pipeline.dag import Pipeline


def columns():
    x = np.random.default_rng(0).normal(size=(1003, 16)).astype("float32")
    return {"x": list(x), "y": (x.sum(1) > 0).astype("int64")}


def preprocessing():
    x = keras.Input((16,), name="x")
    return keras.Model({"x": x}, {"x": keras.layers.Rescaling(1.0)(x)})


def build_model(inputs, hp):
    x = keras.layers.Dropout(0.1)(keras.layers.Dense(64, activation="relu")(inputs["x"]))
    x = keras.layers.BatchNormalization()(x)
    model = keras.Model(inputs, keras.layers.Dense(2)(x))
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    return model


def pipeline(settings):
    examples = InMemoryExampleGen(columns)
    prepared = Transform(examples, function=preprocessing, label="y")
    model = ModelBuilder(prepared, function=build_model)
    trained = Trainer(
        examples,
        prepared,
        model,
        epochs=40,
        batch_size=8,
        checkpoint_steps=50,
        steps_per_execution=5,
        deterministic=True,
    )
    return Pipeline("long_training", [trained])
