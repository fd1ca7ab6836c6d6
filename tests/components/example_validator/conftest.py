"""Validation of columns with a schema in text format, through StatisticsGen and ExampleValidator."""

import json

import pytest
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2

from kerasline import ExampleValidator, StatisticsGen
from kerasline.components.core.artifacts import Schema


@pytest.fixture
def validate(make_examples, tmp_path):
    """Return a function that validates the columns of splits, and returns the metrics, anomalies and distances."""

    def schema_of(text):
        (tmp_path / "schema").mkdir(exist_ok=True)
        schema = Schema(tmp_path / "schema")
        schema.write(text_format.Parse(text, schema_pb2.Schema()))
        return schema

    def statistics(splits, name):
        return StatisticsGen(make_examples(splits, name)).execute(tmp_path / f"{name}-statistics").statistics

    def run(splits, schema, previous=None, version=None, **settings):
        connected = {} if previous is None else {"previous_statistics": statistics(previous, "previous")}
        if version is not None:
            connected["previous_version_statistics"] = statistics(version, "version")
        stage = ExampleValidator(
            statistics(splits, "ours"), schema_of(schema), fail_on="never", **connected, **settings
        )
        done = stage.execute(tmp_path / "anomalies")
        read = (json.loads((done.anomalies.path / name).read_text()) for name in ("anomalies.json", "distances.json"))
        return done.metrics, *read

    return run
