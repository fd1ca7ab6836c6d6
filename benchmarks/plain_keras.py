"""The recipes `penguins` and `taxi` by hand, with pandas and Keras, for comparison in `measure.py`.

    python benchmarks/plain_keras.py penguins
    python benchmarks/plain_keras.py taxi trips.csv

Read, split, adapt, fit with validation, evaluate, and export a SavedModel that takes raw columns. The layers and models
are those of the recipes. Everything else that a recipe does is left out: statistics, validation of the data,
explanations, slices and intervals, a check in a server, lineage, a cache, a report.
"""

from __future__ import annotations

import argparse
import importlib.resources
import tempfile
from typing import Any

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from kerasline.pipeline.recipes import penguins, taxi

SPECIES = ["Adelie", "Chinstrap", "Gentoo"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", choices=["penguins", "taxi"])
    parser.add_argument("csv", nargs="?")
    options = parser.parse_args()
    if options.recipe == "taxi" and not options.csv:
        parser.error("taxi needs the CSV file of the trips")
    print(by_hand_penguins() if options.recipe == "penguins" else by_hand_taxi(options.csv))


def by_hand_penguins() -> dict[str, float]:
    """Return the loss and the accuracy on the test rows."""
    file = importlib.resources.files("palmerpenguins") / "data" / "penguins.csv"
    rows = pd.read_csv(str(file)).fillna({"sex": ""})
    splits = _split(rows, [0.7, 0.1, 0.2])
    preprocessing = _adapted(penguins.preprocessing(), splits[0])
    data = [(_prepared(preprocessing, split), pd.Categorical(split.species, SPECIES).codes) for split in splits]
    model = penguins.build_model(_inputs(data[0][0]), {"units": 16, "learning_rate": 0.01})
    model.fit(*data[0], batch_size=32, epochs=30, validation_data=data[1], verbose=0)
    _export(preprocessing, model)
    return model.evaluate(*data[2], return_dict=True, verbose=0)


def by_hand_taxi(csv: str) -> dict[str, float]:
    """Return the loss, the accuracy and the area under the ROC curve on the test rows."""
    splits = _split(_taxi_rows(csv), [0.8, 0.1, 0.1])
    preprocessing = _adapted(taxi.preprocessing(), splits[0])
    prepared = [_prepared(preprocessing, split) for split in splits]
    data = [(outputs, outputs.pop("big_tipper")) for outputs in prepared]
    model = taxi.build_model(_inputs(data[0][0]), {"hidden": [100, 70, 50, 25], "learning_rate": 0.001})
    batches = tf.data.Dataset.from_tensor_slices(data[0]).shuffle(20_000).repeat().batch(40).prefetch(2)
    model.fit(batches, steps_per_epoch=250, epochs=4, validation_data=data[1], verbose=0)
    _export(preprocessing, model)
    return model.evaluate(*data[2], batch_size=1000, return_dict=True, verbose=0)


def _taxi_rows(csv: str) -> pd.DataFrame:
    rows = pd.read_csv(csv).fillna({"company": "", "payment_type": ""})
    return rows.fillna(dict.fromkeys(taxi.CODES, -1))


def _split(rows: pd.DataFrame, shares: list[float]) -> list[pd.DataFrame]:
    parts = np.random.default_rng(0).choice(3, len(rows), p=shares)
    return [rows[parts == part] for part in range(3)]


def _prepared(preprocessing: keras.Model, rows: pd.DataFrame) -> dict[str, np.ndarray]:
    outputs = preprocessing({tensor.name: _column(rows[tensor.name], tensor) for tensor in preprocessing.inputs})
    return {name: output.numpy() for name, output in outputs.items()}


def _column(column: pd.Series, tensor: Any) -> tf.Tensor:
    return tf.constant(column.to_numpy(object if tensor.dtype == "string" else tensor.dtype)[:, None])


def _adapted(preprocessing: keras.Model, rows: pd.DataFrame) -> keras.Model:
    for layer in preprocessing.layers:
        if hasattr(layer, "adapt"):
            layer.adapt(_column(rows[layer.input.name].dropna(), layer.input))
    return preprocessing


def _inputs(features: dict[str, np.ndarray]) -> dict[str, Any]:
    return {name: keras.Input(values.shape[1:], name=name) for name, values in features.items()}


def _export(preprocessing: keras.Model, model: keras.Model) -> None:
    """Export a SavedModel that takes the raw columns which the model needs."""
    raw = {name: tensor for name, tensor in preprocessing.input.items() if name != "tips"}
    served = keras.Model(raw, model({name: preprocessing.output[name] for name in model.input}))
    with tempfile.TemporaryDirectory() as folder:
        served.export(folder, verbose=False)


if __name__ == "__main__":
    main()
