"""What SchemaGen infers, and accepting anomalies into a schema."""

import json

import numpy as np
import pyarrow as pa
import pytest
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2

import kerasline as kl
from kerasline.components.core.artifacts import Schema
from kerasline.components.core.errors import DataError, ParameterError
from kerasline.pipeline.commands.app import app
from kerasline.pipeline.commands.process import run_app
from tests.components.example_validator.test_anomalies import GOOD, ROWS, SCHEMA, png


def statistics_of(make_examples, tmp_path, columns, name="a"):
    examples = make_examples({"train": columns}, f"{name}-examples")
    return kl.StatisticsGen(examples).execute(tmp_path / f"{name}-statistics").statistics


def inferred(make_examples, tmp_path, columns):
    statistics = statistics_of(make_examples, tmp_path, columns)
    proto = kl.SchemaGen(statistics).execute(tmp_path / "schema").schema.proto()
    return {feature.name: feature for feature in proto.feature}


def test_inferred_shapes_and_domains(make_examples, tmp_path):
    image = pa.FixedShapeTensorArray.from_numpy_ndarray(np.zeros((6, 2, 3), "float32"))
    columns = {
        "scalar": pa.array([1.5] * 6),
        "gaps": pa.array([1, None] * 3),
        "pair": pa.array([[1, 2]] * 6),
        "varied": pa.array([[1], [1, 2, 3], [2]] * 2),
        "tensor": image,
        "flag": pa.array([True, False] * 3),
        "bit": pa.array([0, 1] * 3),
        "count": pa.array([0, 2] * 3),
        "answer": pa.array(["True", "False"] * 3),
        "kind": pa.array(["a", "b"] * 3),
        "digits": pa.array([f"0{n}" for n in range(6)]),
        "text": pa.array([f"t{n}" for n in range(6)]),
        "photo": pa.array([png()] * 6),
        "blob": pa.array([b"\xff\x01", b"\xff\x02"] * 3),
        "nothing": pa.nulls(6),
    }
    found = inferred(make_examples, tmp_path, pa.record_batch(columns))
    shapes = {name: [dim.size for dim in one.shape.dim] for name, one in found.items() if one.HasField("shape")}
    assert (shapes["scalar"], shapes["pair"], shapes["tensor"]) == ([1], [2], [2, 3])
    bounds = {name: one.value_count for name, one in found.items() if one.HasField("value_count")}
    assert set(bounds) == {"gaps", "varied"}
    assert (bounds["gaps"].min, bounds["gaps"].max) == (1, 1)
    assert bounds["varied"].min == 1 and not bounds["varied"].HasField("max")
    domains = {name: one.WhichOneof("domain_info") for name, one in found.items() if one.WhichOneof("domain_info")}
    assert domains == {
        "flag": "bool_domain",
        "bit": "bool_domain",
        "answer": "bool_domain",
        "kind": "string_domain",
        "digits": "int_domain",
        "photo": "image_domain",
    }
    assert (found["answer"].bool_domain.true_value, found["answer"].bool_domain.false_value) == ("True", "False")


def test_data_fulfil_the_schema_inferred_from_them_and_longer_lists_too(make_examples, tmp_path):
    train, test = {**GOOD, "tags": [["a"], ["a", "b"]] * (ROWS // 2)}, {**GOOD, "tags": [["a", "b", "a"]] * ROWS}
    examples = make_examples({"train": train, "test": test})
    statistics = kl.StatisticsGen(examples).execute(tmp_path / "statistics").statistics
    schema = kl.SchemaGen(statistics).execute(tmp_path / "schema").schema
    done = kl.ExampleValidator(statistics, schema, fail_on="warning").execute(tmp_path / "out")
    assert done.metrics == {"anomalies": 0, "warnings": 0}


BAD = {
    "size": np.linspace(-2.0, 3.0, ROWS),
    "kind": ["dog", "cow"] * (ROWS // 4) + [None] * (ROWS // 2),
    "legs": [4, 100] * (ROWS // 2),
    "tags": [["a"] * 5, []] * (ROWS // 2),
    "sold": ["yes", "perhaps"] * (ROWS // 2),
    "code": ["7", "x"] * (ROWS // 2),
    "face": [png(), b"no image"] * (ROWS // 2),
    "new": [1] * ROWS,
}
MORE = 'feature { name: "gone" type: INT presence { min_fraction: 1 } } feature { name: "wrong" type: BYTES }'


def write_schema(path, text):
    path.write_text(text)
    return path


def kinds_of(statistics, proto, tmp_path, name):
    (tmp_path / name).mkdir()
    schema = Schema(tmp_path / name)
    schema.write(proto)
    done = kl.ExampleValidator(statistics, schema, fail_on="never").execute(tmp_path / f"{name}-out")
    return {(one["feature"], one["kind"]) for one in json.loads((done.anomalies.path / "anomalies.json").read_text())}


def test_accepted_schema_has_no_anomaly_and_still_fits_the_earlier_data(make_examples, tmp_path):
    text = SCHEMA.replace("max_examples_count: 1000", "max_examples_count: 150") + MORE
    before = text_format.Parse(text, schema_pb2.Schema())
    bad = statistics_of(make_examples, tmp_path, {**BAD, "wrong": [1] * ROWS}, "bad")
    assert len(kinds_of(bad, before, tmp_path, "before")) >= 14
    proto = kl.update_schema(write_schema(tmp_path / "s.pbtxt", text), bad)
    assert kinds_of(bad, proto, tmp_path, "after") == set()
    features = {feature.name: feature for feature in proto.feature}
    assert (features["size"].float_domain.min, features["size"].float_domain.max) == (-2, 3)
    assert (features["legs"].int_domain.min, features["legs"].int_domain.max) == (2, 100)
    assert (features["tags"].value_count.min, features["tags"].value_count.max) == (0, 5)
    assert features["kind"].presence.min_fraction == 0.5
    assert list(proto.string_domain[0].value) == ["dog", "cat", "cow"]
    assert features["gone"].lifecycle_stage == schema_pb2.DEPRECATED
    assert features["wrong"].type == schema_pb2.INT
    good = statistics_of(make_examples, tmp_path, GOOD, "good")
    assert {kind for _, kind in kinds_of(good, proto, tmp_path, "good")} == {"SCHEMA_MISSING_COLUMN"}  # `new`


def test_only_chosen_anomalies_are_accepted(make_examples, tmp_path):
    bad = statistics_of(make_examples, tmp_path, BAD)
    path = write_schema(tmp_path / "s.pbtxt", SCHEMA)
    proto = kl.update_schema(path, bad, accept=["SCHEMA_NEW_COLUMN", "legs"])
    left = kinds_of(bad, proto, tmp_path, "left")
    assert {"new", "legs"}.isdisjoint(feature for feature, _ in left) and len(left) >= 7
    with pytest.raises(ParameterError, match="update_schema: accept: no anomaly of 'leg'; did you mean 'legs'"):
        kl.update_schema(path, bad, accept=["leg"])


def test_lists_without_values_cannot_be_accepted(make_examples, tmp_path):
    bad = statistics_of(make_examples, tmp_path, {"size": pa.array([[], []], pa.list_(pa.float64()))})
    path = write_schema(tmp_path / "s.pbtxt", 'feature { name: "size" type: FLOAT }')
    with pytest.raises(DataError, match="FEATURE_TYPE_NO_VALUES cannot be accepted into a schema: train: feature"):
        kl.update_schema(path, bad)


def test_command_changes_the_file(make_examples, tmp_path, capsys):
    bad = statistics_of(make_examples, tmp_path, BAD)
    path = write_schema(tmp_path / "s.pbtxt", SCHEMA)
    assert run_app(app, ["update-schema", str(path), str(bad.path), "--accept", "legs"]) == 0
    assert "INT_TYPE_BIG_INT" in capsys.readouterr().out
    proto = text_format.Parse(path.read_text(), schema_pb2.Schema())
    assert next(feature for feature in proto.feature if feature.name == "legs").int_domain.max == 100
    assert run_app(app, ["update-schema", str(tmp_path / "none.pbtxt"), str(bad.path)]) != 0


@pytest.mark.parametrize(
    ("values", "feature", "changed"),
    [
        (["http://a", "b"], "type: BYTES url_domain { }", "type: BYTES"),
        ([1, 10**13], "type: INT time_domain { integer_format: UNIX_SECONDS }", "type: INT"),
        (
            [["a"], ["a", "b"]],
            "type: BYTES natural_language_domain { sequence_length_constraints { max_sequence_length: 1 } }",
            "type: BYTES natural_language_domain { sequence_length_constraints { max_sequence_length: 2 } }",
        ),
        (
            pa.array([[[1], [2, 3]]], pa.list_(pa.list_(pa.int64()))),
            "type: INT value_counts { value_count { max: 1 } value_count { max: 1 } }",
            "type: INT value_counts { value_count { max: 2 } value_count { max: 2 } }",
        ),
        ([[1], [2]], "type: INT value_counts { value_count { } value_count { } }", "type: INT"),
        ([np.inf, 1.0], "type: FLOAT", "type: FLOAT float_domain { disallow_inf: false }"),
        (
            ["a", "b", "c", "[UNK]"],
            "type: BYTES natural_language_domain "
            '{ coverage { min_coverage: 0.9 min_avg_token_length: 2 oov_string_tokens: "[UNK]" } }',
            "type: BYTES natural_language_domain "
            '{ coverage { min_coverage: 0.75 min_avg_token_length: 1 oov_string_tokens: "[UNK]" } }',
        ),
    ],
)
def test_domains_of_meaning_and_nested_bounds_are_accepted(make_examples, tmp_path, values, feature, changed):
    statistics = statistics_of(make_examples, tmp_path, {"c.a": values})
    (tmp_path / "s.pbtxt").write_text(
        f'feature {{ name: "c" type: STRUCT struct_domain {{ feature {{ name: "a" {feature} }} }} }}'
    )
    found = kl.update_schema(tmp_path / "s.pbtxt", statistics)
    expected = text_format.Parse(f'feature {{ name: "c.a" {changed} }}', schema_pb2.Schema())
    for one in (*found.feature, *expected.feature):
        for counts in one.value_counts.value_count:
            counts.ClearField("min")
    assert found == expected


DRIFTING = """
feature {
  name: "kind" type: BYTES
  drift_comparator { infinity_norm { threshold: 0.01 } jensen_shannon_divergence { threshold: 0.001 } }
  skew_comparator { infinity_norm { threshold: 0.5 } }
}
feature { name: "x" type: FLOAT drift_comparator { jensen_shannon_divergence { threshold: 0.001 } } }
"""


def test_thresholds_of_drift_are_raised_to_the_observed_distances(make_examples, tmp_path):
    random = np.random.default_rng(0)

    def columns(share, mean):
        return {"kind": ["a"] * share + ["b"] * (1000 - share), "x": random.normal(mean, size=1000)}

    now = statistics_of(make_examples, tmp_path, columns(700, 0.0))
    before = statistics_of(make_examples, tmp_path, columns(500, 2.0), "before")
    (tmp_path / "schema.pbtxt").write_text(DRIFTING)
    proto = kl.update_schema(tmp_path / "schema.pbtxt", now, ["kind"], previous_statistics=before)
    kind, x = proto.feature
    assert kind.drift_comparator.infinity_norm.threshold == pytest.approx(0.2)
    assert kind.drift_comparator.jensen_shannon_divergence.threshold > 0.001
    assert kind.skew_comparator.infinity_norm.threshold == 0.5
    assert x.drift_comparator.jensen_shannon_divergence.threshold == 0.001
    arguments = [str(tmp_path / "schema.pbtxt"), str(now.path), "--previous", str(before.path)]
    assert run_app(app, ["update-schema", *arguments, "--accept", "COMPARATOR_JENSEN_SHANNON_DIVERGENCE_HIGH"]) == 0
    run_app(app, ["update-schema", *arguments])
    schema = Schema(tmp_path / "curated")
    schema.path.mkdir()
    schema.write(text_format.Parse((tmp_path / "schema.pbtxt").read_text(), schema_pb2.Schema()))
    done = kl.ExampleValidator(now, schema, previous_statistics=before).execute(tmp_path / "validated")
    assert done.metrics["anomalies"] == 0 and done.metrics["distances"] == 3


def test_ratio_of_the_numbers_of_rows_is_accepted(make_examples, tmp_path):
    now = statistics_of(make_examples, tmp_path, {"x": [1] * 7})
    before = statistics_of(make_examples, tmp_path, {"x": [1] * 11}, "before")
    bounds = "{ min_fraction_threshold: 0.9 max_fraction_threshold: 1.1 }"
    names = "num_examples_drift_comparator", "num_examples_version_comparator"
    text = f"dataset_constraints {{ {names[0]} {bounds} {names[1]} {bounds} }} feature {{ name: 'x' type: INT }}"
    path = write_schema(tmp_path / "s.pbtxt", text)
    for current, other, field, expected in ((now, before, 0, 0.6363), (before, now, 1, 1.5715)):  # 7/11, 11/7
        others = {"previous_statistics": other, "previous_version_statistics": other}
        found = kl.update_schema(path, current, ["*"], **others).dataset_constraints
        for name in names:
            ratios = getattr(found, name).min_fraction_threshold, getattr(found, name).max_fraction_threshold
            assert ratios[field] == pytest.approx(expected) and ratios[1 - field] == (1.1, 0.9)[field]
    arguments = ["update-schema", str(path), str(now.path), "--previous", str(before.path)]
    assert run_app(app, [*arguments, "--previous-version", str(before.path)]) == 0
    schema = Schema(tmp_path / "curated")
    schema.path.mkdir()
    schema.write(text_format.Parse(path.read_text(), schema_pb2.Schema()))
    others = {"previous_statistics": before, "previous_version_statistics": before}
    assert kl.ExampleValidator(now, schema, **others).execute(tmp_path / "out").metrics["anomalies"] == 0


def test_composite_features_are_deprecated_and_impossible_comparisons_refused(make_examples, tmp_path):
    now = statistics_of(make_examples, tmp_path, {"at": [1, None], "value": [0.5, 1.5]})
    path = write_schema(
        tmp_path / "s.pbtxt",
        """
        feature { name: "at" type: INT } feature { name: "value" type: FLOAT drift_comparator { infinity_norm { } } }
        sparse_feature { name: "pair" index_feature { name: "at" } value_feature { name: "value" } }
        """,
    )
    assert kl.update_schema(path, now).sparse_feature[0].lifecycle_stage == schema_pb2.DEPRECATED
    before = statistics_of(make_examples, tmp_path, {"at": [1, 2]}, "before")
    with pytest.raises(DataError, match="COMPARATOR_CONTROL_DATA_MISSING cannot be accepted .* feature 'value'"):
        kl.update_schema(path, now, previous_statistics=before)
