"""StatisticsGen, SchemaGen and ExampleValidator, each on the outputs of the one before."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

from kerasline import CsvExampleGen, ExampleValidator, ImportSchemaGen, SchemaGen, StatisticsGen
from kerasline.components.core.artifacts import Schema
from kerasline.components.core.errors import ArtifactError, DataError, ParameterError, UserCodeError
from kerasline.components.data import shards
from kerasline.components.data.accumulators.value_counts import HLL_LG_REGISTERS, MAX_VALUES
from kerasline.components.statistics_gen.feature_statistics import QUANTILE_LEVEL

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
    assert stats.median == pytest.approx(np.median(known))
    standard = next(h for h in stats.histograms if h.type == h.STANDARD)
    counts, edges = np.histogram(known, bins=10)
    np.testing.assert_allclose([b.sample_count for b in standard.buckets], counts, atol=1.5)
    np.testing.assert_allclose([b.low_value for b in standard.buckets], edges[:-1])


def test_statistics_of_taxi_trips_match_pandas(taxi_csv, tmp_path):
    examples = CsvExampleGen(str(taxi_csv), splits={"all": 1}).execute(tmp_path / "examples").examples
    statistics = StatisticsGen(examples, slices=["payment_type", "payment_type*trip_start_day"])
    done = statistics.execute(tmp_path / "out").statistics
    table = pd.read_csv(taxi_csv)
    assert_matches_pandas(done.proto().datasets[0], table)
    slices = {dataset.name: dataset for dataset in done.slices().datasets}
    assert len(slices) == table["payment_type"].nunique() + len(table.groupby(["payment_type", "trip_start_day"]))
    assert_matches_pandas(slices["all: payment_type=Cash"], table[table["payment_type"] == "Cash"])
    both = (table["payment_type"] == "Credit Card") & (table["trip_start_day"] == 3)
    assert_matches_pandas(slices["all: payment_type=Credit Card,trip_start_day=3"], table[both])
    listed = pd.read_csv(done.path / "statistics.csv").set_index(["dataset", "feature"])
    assert listed.loc[("all", "fare"), "mean"] == pytest.approx(table["fare"].mean())
    assert listed.loc[("all", "company"), "unique"] == table["company"].nunique()


def test_row_with_a_list_is_in_the_slice_of_each_value(make_examples, tmp_path):
    table = pd.DataFrame({"tags": [["a"], ["a", "b", "a"], [], None, ["c", "b"]] * 3, "x": np.arange(15.0)})
    examples = make_examples({"train": pa.Table.from_pandas(table).combine_chunks().to_batches()[0]})
    done = StatisticsGen(examples, slices=["tags"]).execute(tmp_path / "out").statistics
    found = {dataset.name: dataset.features for dataset in done.slices().datasets}
    assert set(found) == {"train: tags=a", "train: tags=b", "train: tags=c"}
    for tag in "abc":
        inside = table[[tag in (tags or []) for tags in table["tags"]]]
        (x,) = (feature for feature in found[f"train: tags={tag}"] if feature.path.step[0] == "x")
        assert (x.num_stats.common_stats.num_non_missing, x.num_stats.mean) == (len(inside), inside["x"].mean())


def by_tag_and_half(batch):
    halves = ["low" if x < 7 else "high" for x in batch.column("x").to_pylist()]
    return [[*(tags or []), half] for tags, half in zip(batch.column("tags").to_pylist(), halves)]


def test_function_puts_rows_in_slices(make_examples, tmp_path):
    table = pd.DataFrame({"tags": [["a"], ["a", "b", "a"], [], None, ["c", "b"]] * 3, "x": np.arange(15.0)})
    examples = make_examples({"train": pa.Table.from_pandas(table).combine_chunks().to_batches()[0]})
    done = StatisticsGen(examples, slices=[by_tag_and_half]).execute(tmp_path / "out").statistics
    found = {dataset.name.removeprefix("train: by_tag_and_half="): dataset for dataset in done.slices().datasets}
    assert {name: dataset.num_examples for name, dataset in found.items()} == {
        "a": 6,
        "b": 6,
        "c": 3,
        "low": 7,
        "high": 8,
    }


def test_function_of_slices_that_fails_is_named(make_examples, tmp_path):
    examples = make_examples({"train": {"x": [1.0, 2.0]}})
    with pytest.raises(UserCodeError, match=r"by_tag_and_half\(\) raised KeyError: .*test_data_stages.py, line"):
        StatisticsGen(examples, slices=[by_tag_and_half]).execute(tmp_path / "out")


def assert_matches_pandas(dataset, table):
    assert dataset.num_examples == len(table)
    for feature in dataset.features:
        column = table[feature.path.step[0]]
        known = column.dropna()
        custom = {c.name: c for c in feature.custom_stats}
        stats = feature.string_stats if feature.HasField("string_stats") else feature.num_stats
        assert stats.common_stats.num_missing == column.isna().sum()
        if feature.HasField("string_stats"):
            assert stats.unique == column.nunique()
            assert stats.avg_length == pytest.approx(known.str.encode("utf-8").str.len().mean())
            counts = known.value_counts()
            assert [v.frequency for v in stats.top_values] == counts[: len(stats.top_values)].tolist()
            assert {b.label: b.sample_count for b in stats.rank_histogram.buckets} == counts.to_dict()
        elif len(known):
            assert stats.mean == pytest.approx(known.mean()) and stats.std_dev == pytest.approx(
                known.std(ddof=0), rel=1e-9, abs=1e-9
            )
            if column.nunique() <= MAX_VALUES:
                error = 0 if len(known) <= QUANTILE_LEVEL else known.std() * 0.01
                assert stats.median == pytest.approx(known.median(), abs=error)
            assert (stats.min, stats.max, stats.num_zeros) == (known.min(), known.max(), (known == 0).sum())
            error = 0 if column.nunique() <= MAX_VALUES else 4 * 1.04 / 2 ** (HLL_LG_REGISTERS / 2)
            assert custom["unique"].num == pytest.approx(column.nunique(), rel=error)
            ranks = [i / 10 for i in range(1, 10)]
            quantiles = next(h for h in stats.histograms if h.type == h.QUANTILES)
            for rank, bucket in zip(ranks, quantiles.buckets):  # within the stated bound of the rank
                assert (known < bucket.high_value).mean() - 0.001 <= rank <= (known <= bucket.high_value).mean() + 0.001


def test_bytes_do_not_depend_on_the_number_of_workers(taxi_csv, tmp_path, monkeypatch):
    """In one thread, in three threads and in two Beam processes."""
    monkeypatch.setattr(shards, "ROW_GROUP_ROWS", 1000)  # for many pieces
    examples = CsvExampleGen(str(taxi_csv)).execute(tmp_path / "examples").examples
    options = {
        "one": [],
        "threads": ["--direct_num_workers=3", "--direct_running_mode=multi_threading"],
        "processes": ["--direct_num_workers=2", "--direct_running_mode=multi_processing"],
    }
    found = {
        name: StatisticsGen(examples).execute(tmp_path / name, beam_options=given).statistics
        for name, given in options.items()
    }
    assert len({(one.path / "statistics.pb").read_bytes() for one in found.values()}) == 1
    assert pq.read_metadata(examples.shards("train")[0]).num_row_groups > 5


def test_shard_with_a_wrong_number_of_rows_is_an_error(make_examples, tmp_path):
    examples = make_examples({"train": GOOD})
    path = examples.shards("train")[0]
    pq.write_table(pq.read_table(path).slice(1), path)
    with pytest.raises(ArtifactError, match="train/00000.parquet has 399 rows, expected 400"):
        StatisticsGen(examples).execute(tmp_path / "out")


@pytest.mark.parametrize(
    ("slices", "message"), [(["kin"], "did you mean 'kind'"), (["weight"], "more than 200 values")]
)
def test_invalid_slices_are_an_error(make_examples, tmp_path, slices, message):
    with pytest.raises((ParameterError, DataError), match=message):
        StatisticsGen(make_examples({"train": GOOD}), slices=slices).execute(tmp_path / "out")


def test_files_have_the_format_of_tensorflow_metadata(statistics_of, tmp_path):
    statistics = statistics_of(train=GOOD, eval=GOOD)
    data = (statistics.path / "statistics.pb").read_bytes()
    parsed = statistics_pb2.DatasetFeatureStatisticsList.FromString(data)
    assert [dataset.name for dataset in parsed.datasets] == ["train", "eval"]
    assert parsed.SerializeToString(deterministic=True) == data
    schema = SchemaGen(statistics).execute(tmp_path / "schema").schema
    again = ImportSchemaGen(str(schema.path / "schema.pbtxt")).execute(tmp_path / "again").schema
    assert text_format.Parse((again.path / "schema.pbtxt").read_text(), schema_pb2.Schema()) == schema.proto()
    assert {feature.name for feature in schema.proto().feature} == set(GOOD)


def test_inferred_schema_accepts_its_own_data(statistics_of, tmp_path):
    done = validated(tmp_path, statistics_of(train=GOOD, eval=GOOD))
    assert done.metrics == {"anomalies": 0, "warnings": 0}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"kind": ["dog"] * 390 + ["unicorn"] * 10},
            "feature 'kind': 2.5% of the values are not in its domain: 'unicorn' (10 rows)",
        ),
        ({"kind": None}, "feature 'kind': the column is missing"),
        ({"weight": ["heavy"] * ROWS}, "feature 'weight': expected FLOAT, found STRING (such as 'heavy')"),
        ({"legs": [None] * 100 + [4] * 300}, "feature 'legs': missing in 100 of 400 rows (25.0%)"),
        ({"legs": [4] * 399 + [40]}, "the largest value is 40, expected at most 8"),
    ],
)
def test_violation_fails_with_feature_and_values(statistics_of, tmp_path, change, message):
    schema = """
      feature { name: "weight" type: FLOAT }
      feature { name: "kind" type: BYTES presence { min_fraction: 1 }
        string_domain { name: "kind" value: "dog" value: "cat" } }
      feature { name: "legs" type: INT presence { min_fraction: 1 } int_domain { min: 0 max: 8 } }"""
    columns = {k: v for k, v in {**GOOD, **change}.items() if v is not None}
    with pytest.raises(DataError) as error:
        validated(tmp_path, statistics_of(train=columns), schema)
    assert message in str(error.value) and str(error.value).startswith("train: ")


def test_new_column_is_a_warning(statistics_of, tmp_path):
    done = validated(tmp_path, statistics_of(train=GOOD), 'feature { name: "kind" type: BYTES }')
    assert done.metrics == {"anomalies": 0, "warnings": 2}
    assert set(done.anomalies.proto().anomaly_info) == {"weight", "legs"}


def test_malformed_schema_file_is_an_error(statistics_of, tmp_path):
    (tmp_path / "schema.pbtxt").write_text("feature {")
    with pytest.raises(ArtifactError, match="schema.pbtxt: not a Schema"):
        ImportSchemaGen(str(tmp_path / "schema.pbtxt")).execute(tmp_path / "out")
