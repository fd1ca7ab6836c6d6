"""Cases of TFDV's metrics_test.cc and int_domain_test.cc, by the name that they have there."""

import json

import pyarrow as pa
import pytest
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

from kerasline import ExampleValidator
from kerasline.components.core.artifacts import Schema, Statistics

L_INFINITY = 'feature { name: "a" type: BYTES drift_comparator { infinity_norm { threshold: 1 } } }'
JENSEN_SHANNON = """feature { name: "a" type: FLOAT drift_comparator {
  jensen_shannon_divergence { threshold: 1 source { type: STANDARD } } } }"""


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        ({"hello": 1, "world": 9}, {"hello": 3, "world": 7}, 0.2),  # Normal distribution.
        ({"b": 9, "c": 1}, {"a": 3, "b": 7}, 0.3),  # Missing value in both.
        ({"a": 3, "b": 7}, {"b": 9, "c": 1}, 0.3),  # Missing value in both, flipped.
    ],
)
def test_l_infinity_distance(validate, ours, theirs, expected):
    columns = [[value for value, count in one.items() for _ in range(count)] for one in (ours, theirs)]
    _, _, (distance,) = validate({"train": {"a": columns[0]}}, L_INFINITY, previous={"train": {"a": columns[1]}})
    assert distance["value"] == pytest.approx(expected)


def test_l_infinity_distance_of_nothing_is_not_computed(validate):
    """Two empty maps: 0 in TFDV, a warning here."""
    nothing = {"train": {"a": pa.nulls(2, pa.string())}}
    _, anomalies, distances = validate(nothing, L_INFINITY, previous=nothing)
    assert distances == [] and "COMPARATOR_CONTROL_DATA_MISSING" in {anomaly["kind"] for anomaly in anomalies}


# By the name of the test: buckets (low, high, count) and the number of NaN, of both sides, and the divergence.
DIVERGENCES = {
    "SameStatistics": (
        ([(1, 2.3333333, 2.9866667), (2.3333333, 3.6666667, 1.0066667), (3.6666667, 5, 2.0066667)], 1),
        ([(1, 2.3333333, 2.9866667), (2.3333333, 3.6666667, 1.0066667), (3.6666667, 5, 2.0066667)], 1),
        0.0,
    ),
    "DifferentBucketBoundaries": (([(1, 2, 2), (2, 3, 2)], 0), ([(2, 4, 2), (4, 6, 2)], 0), 0.65563906222),
    "NoOverlap": (([(0, 1, 2), (1, 2, 2)], 0), ([(3, 4, 2), (4, 6, 2)], 0), 1.0),
    "AllValuesInOneBucket": (([(1, 1, 4)], 0), ([(2, 4, 2), (4, 6, 2)], 0), 1.0),
    "WithNaNs": (([(1, 2, 3)], 1), ([(1, 2, 4)], 0), 0.13792538096),
}


def histogram_statistics(folder, buckets, nan):
    """Write statistics of one feature that has these buckets."""
    total = sum(count for _, _, count in buckets) + nan
    proto = statistics_pb2.DatasetFeatureStatisticsList()
    dataset = proto.datasets.add(name="train", num_examples=round(total))
    feature = dataset.features.add(type=statistics_pb2.FeatureNameStatistics.FLOAT)
    feature.path.step.append("a")
    common = feature.num_stats.common_stats
    common.num_non_missing, common.tot_num_values = round(total), round(total)
    histogram = feature.num_stats.histograms.add(type=statistics_pb2.Histogram.STANDARD, num_nan=nan)
    for low, high, count in buckets:
        histogram.buckets.add(low_value=low, high_value=high, sample_count=count)
    folder.mkdir()
    statistics = Statistics(folder)
    statistics.write(proto, statistics_pb2.DatasetFeatureStatisticsList())
    return statistics


@pytest.mark.parametrize("case", DIVERGENCES)
def test_jensen_shannon_divergence(tmp_path, case):
    ours, theirs, expected = DIVERGENCES[case]
    now, before = (histogram_statistics(tmp_path / name, *one) for name, one in (("now", ours), ("before", theirs)))
    (tmp_path / "schema").mkdir()
    schema = Schema(tmp_path / "schema")
    schema.write(text_format.Parse(JENSEN_SHANNON, schema_pb2.Schema()))
    stage = ExampleValidator(now, schema, previous_statistics=before, fail_on="never")
    done = stage.execute(tmp_path / "anomalies").anomalies
    (distance,) = json.loads((done.path / "distances.json").read_text())
    assert distance["value"] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("values", "domain", "expected"),
    [
        (["14", "17"], "", []),  # No bounds
        (["-14", "17"], "min: 0 is_categorical: true", ["INT_TYPE_SMALL_INT"]),  # Negative strings with uint32
        (["hello", "17"], "min: 0", ["INT_TYPE_NOT_INT_STRING"]),  # Non-int string
        (["50000000000000000000000000000", "1"], "max: 1000 is_categorical: true", ["INT_TYPE_BIG_INT"]),  # Too large
        ([1527900000000000000, -1527900000000000000], "max: 1528000000000000000 is_categorical: true", []),
        ([9223372036854775807, -9223372036854775808], "", []),  # Large int no bounds
        ([9223372036854775807], "max: 1000", ["INT_TYPE_BIG_INT"]),  # Too large int with bounds
        ([13, 14], "", []),  # Actual int
        ([-13, 14], "min: 0", ["INT_TYPE_SMALL_INT"]),  # Negative values for uint32
        (["14", "17"], "min: 14 max: 17", []),  # With bounds
        ([14, 17], "min: 14 max: 17", []),  # Categorical int With bounds
        ([2, 27], "min: 7 max: 10", ["INT_TYPE_BIG_INT", "INT_TYPE_SMALL_INT"]),  # Expand range: TFDV names the first
    ],
)
def test_integer_domains(validate, values, domain, expected):
    kind = "BYTES" if isinstance(values[0], str) else "INT"
    schema = f'feature {{ name: "a" type: {kind} int_domain {{ {domain} }} }}'
    _, anomalies, _ = validate({"train": {"a": values}}, schema)
    assert sorted(anomaly["kind"] for anomaly in anomalies) == expected
