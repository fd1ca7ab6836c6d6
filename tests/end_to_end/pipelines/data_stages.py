"""The taxi recipe's data stages, with a model as it is before training: no two trainings give the same bytes.

Shards are small, and may be answered at a leisurely pace, so that there is time to kill a worker. `told.json`
beside this file says where things are: workers elsewhere have no environment of the test's.
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

TOLD = json.loads(Path(__file__).with_name("told.json").read_text())
_infer_shard = inference.infer_shard


def infer_at_leisure(element, job):
    time.sleep(TOLD["pause_seconds"])
    return _infer_shard(element, job)


inference.infer_shard = infer_at_leisure


def build_model(inputs, hp):
    """A small network whose weights are the same however many threads draw random numbers beside it."""
    import keras

    joined = keras.layers.Concatenate()([inputs["deep"], inputs["wide"]])
    hidden = keras.layers.Dense(64, "relu", kernel_initializer=keras.initializers.GlorotUniform(seed=1))(joined)
    answer = keras.layers.Dense(
        1, "sigmoid", kernel_initializer=keras.initializers.GlorotUniform(seed=2), name="big_tipper"
    )
    model = keras.Model(inputs, answer(hidden))
    model.compile("adam", loss="binary_crossentropy", metrics=[keras.metrics.AUC(name="auc")])
    return model


def pipeline(settings) -> Pipeline:
    examples = ParquetExampleGen(TOLD["data"], span="1:8", splits={"train": 8, "eval": 1, "test": 1})
    statistics = StatisticsGen(examples, slices=["payment_type"])
    transform = Transform(examples, function=taxi.preprocessing, label="big_tipper", materialize=True)
    model = ModelBuilder(transform, function=build_model)
    exported = Exporter(transform, model)
    evaluation = Evaluator(examples, transform, model, saved_model=exported, slices=["payment_type"])
    answers = BulkInferrer(exported, examples, keep=["fare"])
    return Pipeline("data_stages", [SchemaGen(statistics), evaluation, answers])
