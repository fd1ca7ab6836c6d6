"""The taxi recipe's data stages, with a model as it is before training: no two trainings give the same bytes.

Shards are small, and may be answered at a leisurely pace, so that there is time to kill a worker. `told.json`
beside this file says where things are: workers elsewhere have no environment of the test's.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

from components import (
    BulkInferrer,
    Evaluator,
    Exporter,
    ModelBuilder,
    ParquetExampleGen,
    SchemaGen,
    StatisticsGen,
    Transform,
)  # fmt: skip
from components.inferring import inference
from pipeline.dag import Pipeline
from pipeline.recipes import taxi

TOLD = json.loads(Path(__file__).with_name("told.json").read_text())
_infer_shard = inference.infer_shard


def infer_at_leisure(element, job):
    time.sleep(TOLD["pause_seconds"])
    return _infer_shard(element, job)


inference.infer_shard = infer_at_leisure


def pipeline(settings) -> Pipeline:
    examples = ParquetExampleGen(TOLD["data"], span="1:8", splits={"train": 8, "eval": 1, "test": 1})
    statistics = StatisticsGen(examples, slices=["payment_type"])
    transform = Transform(examples, function=taxi.preprocessing, label="big_tipper", materialize=True)
    hyperparameters = {"hidden": [100, 70, 50, 25], "learning_rate": 0.001}
    model = ModelBuilder(transform, function=taxi.build_model, hyperparameters=hyperparameters, seed=7)
    exported = Exporter(transform, model)
    evaluation = Evaluator(examples, transform, model, saved_model=exported, slices=["payment_type"])
    answers = BulkInferrer(exported, examples, keep=["fare"])
    return Pipeline("data_stages", [SchemaGen(statistics), evaluation, answers])
