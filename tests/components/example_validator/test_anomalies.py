"""A data set with exactly one defect for each kind of anomaly; skew, drift and severity."""

import io
import json

import numpy as np
import pandas as pd
import pytest
import soundfile
from google.protobuf import text_format
from PIL import Image
from scipy.spatial.distance import jensenshannon
from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2

from kerasline import CsvExampleGen, ExampleValidator, SchemaGen, StatisticsGen
from kerasline.components.core.artifacts import Schema
from kerasline.components.core.errors import DataError
from tests.conftest import SHARED_DATA

ROWS = 200


def png():
    file = io.BytesIO()
    Image.new("L", (2, 2)).save(file, "PNG")
    return file.getvalue()


GOOD = {
    "size": np.linspace(0.0, 1.0, ROWS),
    "kind": ["dog", "cat"] * (ROWS // 2),
    "legs": [4, 2] * (ROWS // 2),
    "tags": [["a", "b"]] * ROWS,
    "sold": ["yes", "no"] * (ROWS // 2),
    "code": ["7", "12"] * (ROWS // 2),
    "face": [png()] * ROWS,
}
SCHEMA = """
feature { name: "size" type: FLOAT presence { min_fraction: 1 min_count: 100 }
  float_domain { min: 0 max: 1 disallow_nan: true } }
feature { name: "kind" type: BYTES presence { min_fraction: 0.9 min_count: 50 } value_count { min: 1 max: 1 }
  domain: "kinds" unique_constraints { min: 2 max: 2 } }
feature { name: "legs" type: INT int_domain { min: 2 max: 4 } presence { min_count: 10 } }
feature { name: "tags" type: BYTES value_count { min: 1 max: 3 } }
feature { name: "sold" type: BYTES bool_domain { true_value: "yes" false_value: "no" } }
feature { name: "code" type: BYTES int_domain { min: 1 max: 12 } }
feature { name: "face" type: BYTES image_domain { minimum_supported_image_fraction: 1 } }
string_domain { name: "kinds" value: "dog" value: "cat" }
dataset_constraints { min_examples_count: 100 max_examples_count: 1000 }
"""


@pytest.fixture
def found(make_examples, tmp_path):
    """Return a function that runs the stages and returns the anomalies of a split as {(kind, feature): anomaly}."""

    def find(columns, schema=SCHEMA, **parameters):
        statistics = StatisticsGen(make_examples({"train": columns})).execute(tmp_path / "statistics").statistics
        (tmp_path / "schema").mkdir()
        artifact = Schema(tmp_path / "schema")
        artifact.write(text_format.Parse(schema, schema_pb2.Schema()))
        stage = ExampleValidator(statistics, artifact, **{"fail_on": "never", **parameters})
        done = stage.execute(tmp_path / "anomalies")
        listed = json.loads((done.anomalies.path / "anomalies.json").read_text())
        proto = done.anomalies.proto()
        kinds = {r.type for entry in proto.anomaly_info.values() for r in entry.reason}
        kinds |= {reason.type for reason in proto.dataset_anomaly_info.reason}
        assert {anomalies_pb2.AnomalyInfo.Type.Name(kind) for kind in kinds} == {one["kind"] for one in listed}
        return {(one["kind"], one["feature"]): one for one in listed}

    return find


def with_some(name, value, count):
    return {name: [*GOOD[name][: ROWS - count], *[value] * count]}


DEFECTS = [
    ("SCHEMA_MISSING_COLUMN", "size", {"size": None}, "the data has code, face"),
    ("SCHEMA_NEW_COLUMN", "news", {"news": [1] * ROWS}, "that the schema does not have"),
    ("FEATURE_TYPE_LOW_FRACTION_PRESENT", "kind", with_some("kind", None, 40), "missing in 40 of 200 rows (20.0%)"),
    (
        "FEATURE_TYPE_LOW_NUMBER_PRESENT",
        "legs",
        with_some("legs", None, 195),
        "present in 5 rows, expected at least 10",
    ),
    ("FEATURE_TYPE_NOT_PRESENT", "legs", {"legs": [None] * ROWS}, "missing in 200 of 200 rows"),
    ("UNEXPECTED_DATA_TYPE", "size", {"size": ["big"] * ROWS}, "expected FLOAT, found STRING (such as 'big')"),
    ("UNEXPECTED_DATA_TYPE", "legs", {"legs": [2.5] * ROWS}, "expected INT, found FLOAT (such as 2.5 to 2.5)"),
    ("FEATURE_TYPE_LOW_NUMBER_VALUES", "tags", with_some("tags", [], 3), "0 to 2 values a row, expected at least 1"),
    (
        "FEATURE_TYPE_HIGH_NUMBER_VALUES",
        "tags",
        with_some("tags", ["a"] * 9, 3),
        "2 to 9 values a row, expected at most 3",
    ),
    ("FEATURE_TYPE_NO_VALUES", "tags", {"tags": [[]] * ROWS}, "all its lists are empty"),
    ("FEATURE_TYPE_LOW_UNIQUE", "kind", {"kind": ["dog"] * ROWS}, "1 distinct values, expected at least 2"),
    ("FEATURE_TYPE_HIGH_UNIQUE", "kind", with_some("kind", "cow", 1), "3 distinct values, expected at most 2"),
    (
        "ENUM_TYPE_UNEXPECTED_STRING_VALUES",
        "kind",
        with_some("kind", "cow", 10),
        "5.0% of the values are not in its domain: 'cow' (10 rows)",
    ),
    ("ENUM_TYPE_INVALID_UTF8", "kind", {"kind": [b"dog", b"\xff"] * (ROWS // 2)}, "100 values are not UTF-8"),
    ("FLOAT_TYPE_SMALL_FLOAT", "size", with_some("size", -3.0, 1), "the smallest value is -3, expected at least 0"),
    ("FLOAT_TYPE_BIG_FLOAT", "size", with_some("size", 3.0, 1), "the largest value is 3, expected at most 1"),
    ("FLOAT_TYPE_HAS_INF", "size", with_some("size", float("inf"), 2), "2 values are infinite"),
    ("FLOAT_TYPE_HAS_NAN", "size", with_some("size", float("nan"), 2), "2 values are NaN"),
    ("INT_TYPE_SMALL_INT", "legs", with_some("legs", 1, 1), "the smallest value is 1, expected at least 2"),
    ("INT_TYPE_BIG_INT", "legs", with_some("legs", 40, 1), "the largest value is 40, expected at most 4"),
    ("INT_TYPE_NOT_INT_STRING", "code", with_some("code", "x1", 1), "'x1'"),
    ("INT_TYPE_BIG_INT", "code", with_some("code", "13", 1), "'13'"),
    ("BOOL_TYPE_UNEXPECTED_STRING", "sold", with_some("sold", "maybe", 1), "'maybe', expected no or yes"),
    ("LOW_SUPPORTED_IMAGE_FRACTION", "face", with_some("face", b"no image", 50), "50 of 200 values are not images"),
]


def test_valid_data_have_no_anomaly(found):
    assert found(GOOD) == {}


@pytest.mark.parametrize(("kind", "feature", "change", "seen"), DEFECTS, ids=[f"{w[0]}-{w[1]}" for w in DEFECTS])
def test_anomaly_has_observed_values_and_a_fix(found, kind, feature, change, seen):
    columns = {name: values for name, values in {**GOOD, **change}.items() if values is not None}
    one = found(columns)[kind, feature]
    assert seen in one["seen"] + "; " + one["fix"]
    assert one["fix"] and one["split"] == "train"


OTHER_SCHEMAS = [
    ("INVALID_FEATURE_SHAPE", "tags", 'feature { name: "tags" type: BYTES shape { dim { size: 3 } } }'),
    ("INVALID_SCHEMA_SPECIFICATION", "kind", 'feature { name: "kind" type: BYTES domain: "nowhere" }'),
    ("DOMAIN_INVALID_FOR_TYPE", "size", 'feature { name: "size" type: FLOAT string_domain { value: "a" } }'),
    ("FEATURE_MISSING_TYPE", "size", 'feature { name: "size" presence { min_count: 1 } }'),
    ("FEATURE_MISSING_NAME", "", "feature { type: INT }"),
    ("BOOL_TYPE_SMALL_INT", "low", 'feature { name: "low" type: INT bool_domain { } }'),
    ("BOOL_TYPE_BIG_INT", "legs", 'feature { name: "legs" type: INT bool_domain { } }'),
    ("BOOL_TYPE_UNEXPECTED_FLOAT", "size", 'feature { name: "size" type: FLOAT bool_domain { } }'),
    ("BOOL_TYPE_INVALID_CONFIG", "kind", 'feature { name: "kind" type: BYTES bool_domain { } }'),
    ("FLOAT_TYPE_STRING_NOT_FLOAT", "kind", 'feature { name: "kind" type: BYTES float_domain { } }'),
    (
        "MAX_IMAGE_BYTE_SIZE_EXCEEDED",
        "face",
        'feature { name: "face" type: BYTES image_domain { max_image_byte_size: 9 } }',
    ),
    ("DATASET_LOW_NUM_EXAMPLES", "*", "dataset_constraints { min_examples_count: 201 }"),
    ("DATASET_HIGH_NUM_EXAMPLES", "*", "dataset_constraints { max_examples_count: 199 }"),
]


@pytest.mark.parametrize(("kind", "feature", "schema"), OTHER_SCHEMAS, ids=[case[0] for case in OTHER_SCHEMAS])
def test_anomaly_under_another_schema(found, kind, feature, schema):
    assert (kind, feature) in found({**GOOD, "low": [-1] * ROWS}, schema)


def wav(samples, rate=8000):
    file = io.BytesIO()
    soundfile.write(file, np.asarray(samples, "float32"), rate, format="WAV", subtype="PCM_16")
    return file.getvalue()


@pytest.mark.parametrize(
    ("kind", "severity", "odd", "text"),
    [
        ("UNEXPECTED_DATA_TYPE", "error", b"\0\1", "1 of 4 values are not sound"),
        ("UNEXPECTED_DATA_TYPE", "error", wav([0.1] * 99, 16000), "from 8000 to 16000 samples per second"),
        ("CUSTOM_VALIDATION", "warning", wav([1.0, 0.0] * 50), "50.0% of the samples are at full scale: it is clipped"),
        ("CUSTOM_VALIDATION", "warning", wav([0.0] * 800), "a sound is silent"),
    ],
)
def test_odd_sound_is_an_anomaly(found, kind, severity, odd, text):
    clips = [wav([0.1, -0.2] * 400)] * 3
    anomalies = found({"clip": [*clips, odd]}, 'feature { name: "clip" type: BYTES audio_domain {} }', fail_on="never")
    assert list(anomalies) == [(kind, "clip")]
    assert text in anomalies[kind, "clip"]["seen"] and anomalies[kind, "clip"]["severity"] == severity


def test_schema_of_sound_has_its_domain(make_examples, tmp_path):
    examples = make_examples({"train": {"clip": [wav([0.1, -0.2] * 400)] * 3}})
    statistics = StatisticsGen(examples).execute(tmp_path / "statistics").statistics
    (feature,) = SchemaGen(statistics).execute(tmp_path / "schema").schema.proto().feature
    assert feature.HasField("audio_domain")


def test_empty_split_is_an_anomaly(make_examples, tmp_path):
    statistics = StatisticsGen(make_examples({"train": GOOD, "eval": {}})).execute(tmp_path / "s").statistics
    schema = SchemaGen(statistics).execute(tmp_path / "schema").schema
    with pytest.raises(DataError, match="eval: the split is empty; add rows"):
        ExampleValidator(statistics, schema).execute(tmp_path / "a")


def test_schema_may_allow_a_share_of_unexpected_values(found):
    schema = SCHEMA.replace(
        'domain: "kinds" unique_constraints { min: 2 max: 2 }',
        'domain: "kinds" distribution_constraints { min_domain_mass: 0.9 }',
    )
    assert found({**GOOD, **with_some("kind", "cow", 10)}, schema) == {}


def test_label_may_be_missing_in_serving(found):
    schema = SCHEMA.replace('name: "sold"', 'name: "sold" presence { min_fraction: 1 } not_in_environment: "SERVING"')
    schema += 'default_environment: "TRAINING" default_environment: "SERVING"'
    serving = {name: values for name, values in GOOD.items() if name != "sold"}
    assert found(serving, schema, environment="SERVING") == {}


def test_label_is_expected_in_training(found):
    schema = SCHEMA.replace('name: "sold"', 'name: "sold" presence { min_fraction: 1 } not_in_environment: "SERVING"')
    schema += 'default_environment: "TRAINING" default_environment: "SERVING"'
    serving = {name: values for name, values in GOOD.items() if name != "sold"}
    assert ("SCHEMA_MISSING_COLUMN", "sold") in found(serving, schema, environment="TRAINING")


@pytest.mark.parametrize(
    ("severity", "fail_on", "fails"),
    [
        ({}, "error", False),
        ({}, "warning", True),
        ({"SCHEMA_NEW_COLUMN": "error"}, "error", True),
        ({"SCHEMA_NEW_COLUMN": "error", "news": "ignore"}, "warning", False),
    ],
)
def test_severity_decides_whether_the_stage_fails(found, severity, fail_on, fails):
    columns = {**GOOD, "news": [1] * ROWS}
    if fails:
        with pytest.raises(DataError, match="feature 'news'"):
            found(columns, severity=severity, fail_on=fail_on)
    else:
        found(columns, severity=severity, fail_on=fail_on)


COMPARED = """
feature { name: "size" type: FLOAT
  {0} { jensen_shannon_divergence { threshold: 0.01 source { type: STANDARD } } } }
feature { name: "kind" type: BYTES
  {0} { infinity_norm { threshold: 0.1 } jensen_shannon_divergence { threshold: 0.01 } } }
feature { name: "legs" type: INT {0} { infinity_norm { threshold: 0.1 } } }
"""


@pytest.mark.parametrize(
    ("comparator", "given"), [("skew_comparator", "serving_statistics"), ("drift_comparator", "previous_statistics")]
)
def test_distances_match_scipy(make_examples, tmp_path, comparator, given):
    random = np.random.default_rng(0)
    ours = {
        "size": random.normal(0, 1, 2000),
        "kind": random.choice(["dog", "cat"], 2000, p=[0.5, 0.5]),
        "legs": [2] * 2000,
    }
    theirs = {
        "size": random.normal(1, 1, 2000),
        "kind": random.choice(["dog", "cow"], 2000, p=[0.8, 0.2]),
        "legs": [2] * 2000,
    }
    statistics = [
        StatisticsGen(make_examples({"train": columns}, name)).execute(tmp_path / f"{name}-s").statistics
        for name, columns in (("ours", ours), ("theirs", theirs))
    ]
    (tmp_path / "schema").mkdir()
    schema = Schema(tmp_path / "schema")
    schema.write(text_format.Parse(COMPARED.replace("{0}", comparator), schema_pb2.Schema()))
    stage = ExampleValidator(statistics[0], schema, fail_on="never", **{given: statistics[1]})
    done = stage.execute(tmp_path / "anomalies")
    listed = {
        (a["kind"], a["feature"]): a["seen"] for a in json.loads((done.anomalies.path / "anomalies.json").read_text())
    }
    assert set(listed) == {
        ("COMPARATOR_JENSEN_SHANNON_DIVERGENCE_HIGH", "size"),
        ("COMPARATOR_JENSEN_SHANNON_DIVERGENCE_HIGH", "kind"),
        ("COMPARATOR_L_INFTY_HIGH", "kind"),
    }
    shares = [[np.mean(np.array(side["kind"]) == kind) for kind in ("dog", "cat", "cow")] for side in (ours, theirs)]
    gap = np.abs(np.subtract(*shares)).max()
    assert f"L-infinity distance {gap:.4g} from" in listed["COMPARATOR_L_INFTY_HIGH", "kind"]
    divergence = jensenshannon(*shares, base=2) ** 2
    assert f"divergence {divergence:.4g} from" in listed["COMPARATOR_JENSEN_SHANNON_DIVERGENCE_HIGH", "kind"]
    found = float(listed["COMPARATOR_JENSEN_SHANNON_DIVERGENCE_HIGH", "size"].split("divergence ")[1].split()[0])
    # NumPy's ten buckets of each side, distributed uniformly over the bounds of both.
    edges = [np.histogram_bin_edges(side["size"], 10) for side in (ours, theirs)]
    every = np.unique(np.concatenate(edges))
    laid = []
    for side, bounds in zip((ours, theirs), edges):
        counts, _ = np.histogram(side["size"], bounds)
        laid.append(np.diff(np.interp(every, bounds, np.concatenate([[0], np.cumsum(counts)]))))
    assert found == pytest.approx(jensenshannon(*laid, base=2) ** 2, rel=0.03)


def test_skew_of_the_tfx_penguins_is_found(tmp_path):
    folder = SHARED_DATA / "tfx"
    if not (folder / "penguins_processed_skewed.csv").exists():
        pytest.skip(f"the TFX samples are not in {folder}")
    both = [
        StatisticsGen(CsvExampleGen(str(folder / name), splits={"all": 1}).execute(tmp_path / name).examples)
        .execute(tmp_path / f"{name}-s")
        .statistics
        for name in ("penguins_processed.csv", "penguins_processed_skewed.csv")
    ]
    inferred = SchemaGen(both[0]).execute(tmp_path / "inferred").schema.proto()
    for feature in inferred.feature:
        feature.skew_comparator.jensen_shannon_divergence.threshold = 0.01
    (tmp_path / "schema").mkdir()
    schema = Schema(tmp_path / "schema")
    schema.write(inferred)
    with pytest.raises(DataError) as error:
        ExampleValidator(both[0], schema, serving_statistics=both[1]).execute(tmp_path / "anomalies")
    assert "feature 'culmen_length_mm': Jensen-Shannon divergence" in str(error.value)
    assert "flipper_length_mm" not in str(error.value)


def test_tfdv_schema_is_enforced(taxi_csv, tmp_path):
    """The anomalies under TFX's own schema are those that pandas finds."""
    path = SHARED_DATA / "tfx" / "chicago_taxi_schema.pbtxt"
    (tmp_path / "schema").mkdir()
    (tmp_path / "schema" / "schema.pbtxt").write_text(path.read_text())
    schema = Schema(tmp_path / "schema")
    examples = CsvExampleGen(str(taxi_csv), splits={"all": 1}).execute(tmp_path / "examples").examples
    statistics = StatisticsGen(examples).execute(tmp_path / "statistics").statistics
    done = ExampleValidator(statistics, schema, fail_on="never").execute(tmp_path / "anomalies")
    found = json.loads((done.anomalies.path / "anomalies.json").read_text())
    table = pd.read_csv(taxi_csv)
    domains = {domain.name: set(domain.value) for domain in schema.proto().string_domain}
    expected = {}
    for feature in schema.proto().feature:
        missing = table[feature.name].isna().sum()
        if feature.presence.min_fraction == 1 and missing:
            expected["FEATURE_TYPE_LOW_FRACTION_PRESENT", feature.name] = f"missing in {missing} of {len(table)} rows"
        if feature.domain:
            strange = ~table[feature.name].dropna().isin(domains[feature.domain])
            if strange.any():
                expected["ENUM_TYPE_UNEXPECTED_STRING_VALUES", feature.name] = f"{strange.mean():.1%} of the values"
    assert {(a["kind"], a["feature"]) for a in found} == set(expected) and len(expected) == 4
    assert all(a["seen"].startswith(expected[a["kind"], a["feature"]]) for a in found)
