"""StatisticsGen, SchemaGen and ExampleValidator, each on the outputs of the one before."""

import numpy as np
import pytest
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2

from components import ExampleValidator, SchemaGen, StatisticsGen
from components.artifacts import Schema
from components.errors import DataError

ROWS = 400
RANDOM = np.random.default_rng(0)
WEIGHT = RANDOM.gamma(2.0, 3.0, ROWS)
GOOD = {"weight": WEIGHT, "kind": ["dog", "cat"] * (ROWS // 2), "legs": [4] * ROWS}


@pytest.fixture
def statistics_of(make_examples, tmp_path):
    def compute(**splits):
        return StatisticsGen(make_examples(splits)).execute(tmp_path / "statistics").statistics

    return compute


def validated(tmp_path, statistics, schema_text=None, **parameters):
    if schema_text is None:
        schema = SchemaGen(statistics).execute(tmp_path / "schema").schema
    else:
        (tmp_path / "curated").mkdir()
        schema = Schema(tmp_path / "curated")
        schema.write(text_format.Parse(schema_text, schema_pb2.Schema()))
    return ExampleValidator(statistics, schema, **parameters).execute(tmp_path / "anomalies")


def test_statistics_agree_with_numpy(statistics_of):
    weight = np.where(np.arange(ROWS) % 10 == 0, np.nan, WEIGHT)
    (dataset,) = statistics_of(train={**GOOD, "weight": weight}).proto().datasets
    stats = {f.path.step[0]: f for f in dataset.features}["weight"].num_stats
    known = weight[~np.isnan(weight)]
    assert (dataset.name, dataset.num_examples) == ("train", ROWS)
    assert stats.common_stats.num_missing == 40
    assert stats.mean == pytest.approx(known.mean()) and stats.std_dev == pytest.approx(known.std())
    assert stats.median == pytest.approx(np.quantile(known, 0.5, method="inverted_cdf"))
    standard = next(h for h in stats.histograms if h.type == h.STANDARD)
    counts, edges = np.histogram(known, bins=10)
    np.testing.assert_allclose([b.sample_count for b in standard.buckets], counts, atol=1.5)
    np.testing.assert_allclose([b.low_value for b in standard.buckets], edges[:-1])


def test_the_inferred_schema_accepts_what_it_was_inferred_from(statistics_of, tmp_path):
    done = validated(tmp_path, statistics_of(train=GOOD, eval=GOOD))
    assert done.metrics == {"anomalies": 0, "warnings": 0}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"kind": ["dog"] * 390 + ["unicorn"] * 10}, "feature 'kind': 2.5% of the values are not in its domain: 'unicorn' (10 rows)"),
        ({"kind": None}, "feature 'kind': the column is missing"),
        ({"weight": ["heavy"] * ROWS}, "feature 'weight': FLOAT wanted, STRING found (such as 'heavy')"),
        ({"legs": [None] * 100 + [4] * 300}, "feature 'legs': missing in 100 of 400 rows (25.0%)"),
        ({"legs": [4] * 399 + [40]}, "the greatest value is 40, at most 8 wanted"),
    ],
)  # fmt: skip
def test_a_violation_stops_the_run_naming_feature_and_values(statistics_of, tmp_path, change, told):
    schema = """
      feature { name: "weight" type: FLOAT }
      feature { name: "kind" type: BYTES presence { min_fraction: 1 }
        string_domain { name: "kind" value: "dog" value: "cat" } }
      feature { name: "legs" type: INT presence { min_fraction: 1 } int_domain { min: 0 max: 8 } }"""
    columns = {k: v for k, v in {**GOOD, **change}.items() if v is not None}
    with pytest.raises(DataError) as error:
        validated(tmp_path, statistics_of(train=columns), schema)
    assert told in str(error.value) and str(error.value).startswith("train: ")


def test_a_new_column_is_a_warning(statistics_of, tmp_path):
    done = validated(tmp_path, statistics_of(train=GOOD), 'feature { name: "kind" type: BYTES }')
    assert done.metrics == {"anomalies": 0, "warnings": 2}
    assert set(done.anomalies.proto().anomaly_info) == {"weight", "legs"}


def test_a_broken_curated_schema_is_named(statistics_of, tmp_path):
    (tmp_path / "schema.pbtxt").write_text("feature {")
    with pytest.raises(DataError, match="schema.pbtxt: not a Schema"):
        SchemaGen(statistics_of(train=GOOD), curated=str(tmp_path / "schema.pbtxt")).execute(tmp_path / "out")
