"""The data stages of the taxi recipe, with an untrained model, because no two trainings give the same bytes.

Shards are small, and inference may pause after each, so that there is time to kill a worker. `settings.json` next to
this file has the settings of the test, because remote workers do not have its environment.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

from kerasline import (
    BulkInferrer,
    Evaluator,
    Exporter,
    ModelBuilder,
    ParquetExampleGen,
    SchemaGen,
    StatisticsGen,
    Transform,
)
from kerasline.components.bulk_inferrer import inference
from kerasline.pipeline.dag import Pipeline
from kerasline.pipeline.recipes import taxi

SETTINGS = json.loads(Path(__file__).with_name("settings.json").read_text())
_infer_shard = inference.infer_shard


def infer_slowly(element, job):
    time.sleep(SETTINGS["pause_seconds"])
    return _infer_shard(element, job)


inference.infer_shard = infer_slowly


def build_model(inputs, hp):
    """Build a small network whose weights do not depend on other threads that draw random numbers."""
    import keras

    joined = keras.layers.Concatenate()([inputs["deep"], inputs["wide"]])
    hidden = keras.layers.Dense(64, "relu", kernel_initializer=keras.initializers.GlorotUniform(seed=1))(joined)
    score = keras.layers.Dense(
        1, "sigmoid", kernel_initializer=keras.initializers.GlorotUniform(seed=2), name="big_tipper"
    )
    model = keras.Model(inputs, score(hidden))
    model.compile("adam", loss="binary_crossentropy", metrics=[keras.metrics.AUC(name="auc")])
    return model


def pipeline(settings) -> Pipeline:
    examples = ParquetExampleGen(SETTINGS["data"], span="1:8", splits={"train": 8, "eval": 1, "test": 1})
    statistics = StatisticsGen(examples, slices=["payment_type"])
    transform = Transform(examples, function=taxi.preprocessing, label="big_tipper", materialize=True)
    model = ModelBuilder(transform, function=build_model)
    exported = Exporter(transform, model)
    evaluation = Evaluator(examples, transform, model, saved_model=exported, slices=["payment_type"])
    predictions = BulkInferrer(exported, examples, keep=["fare"])
    return Pipeline("data_stages", [SchemaGen(statistics), evaluation, predictions])
