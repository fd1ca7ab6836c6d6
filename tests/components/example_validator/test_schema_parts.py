"""Parts of a schema beyond types and bounds: meanings, nesting, structs, composite features, and contradictions."""

import json
import logging

import numpy as np
import pyarrow as pa
import pytest

from kerasline import ExampleValidator, ImportSchemaGen, InMemoryExampleGen, StatisticsGen


def kinds(anomalies):
    return [(one["feature"], one["kind"]) for one in anomalies if one["severity"] == "error"]


@pytest.mark.parametrize(
    ("values", "kind", "domain", "expected"),
    [
        (["https://a.org/b?c=1", "ftp://x"], "BYTES", "url_domain { }", []),
        (["https://a.org", "a.org"], "BYTES", "url_domain { }", ["ENUM_TYPE_UNEXPECTED_STRING_VALUES"]),
        (["http://a b"], "BYTES", "url_domain { }", ["ENUM_TYPE_UNEXPECTED_STRING_VALUES"]),
        (["http://["], "BYTES", "url_domain { }", ["ENUM_TYPE_UNEXPECTED_STRING_VALUES"]),
        (["http://a"] * 9 + ["b"], "BYTES", "url_domain { } distribution_constraints { min_domain_mass: 0.9 }", []),
        ([1, 2], "INT", "url_domain { }", ["DOMAIN_INVALID_FOR_TYPE"] * 2),
        (["/m/02mjmr", "/g/11b"], "BYTES", "mid_domain { }", []),
        (["m/02mjmr"], "BYTES", "mid_domain { }", ["ENUM_TYPE_UNEXPECTED_STRING_VALUES"]),
        (["2024-02-29"], "BYTES", 'time_domain { string_format: "%Y-%m-%d" }', []),
        (
            ["2023-02-29"],
            "BYTES",
            'time_domain { string_format: "%Y-%m-%d" }',
            ["ENUM_TYPE_UNEXPECTED_STRING_VALUES"],
        ),
        (["23:59"], "BYTES", 'time_of_day_domain { string_format: "%H:%M" }', []),
        (["24:00"], "BYTES", 'time_of_day_domain { string_format: "%H:%M" }', ["ENUM_TYPE_UNEXPECTED_STRING_VALUES"]),
        ([1_700_000_000], "INT", "time_domain { integer_format: UNIX_SECONDS }", []),
        ([1_700_000_000_000], "INT", "time_domain { integer_format: UNIX_SECONDS }", ["INT_TYPE_BIG_INT"]),
        ([1_700_000_000_000], "INT", "time_domain { integer_format: UNIX_MILLISECONDS }", []),
        ([-1_000_000], "INT", "time_domain { integer_format: UNIX_DAYS }", ["INT_TYPE_SMALL_INT"]),
        (["12"], "BYTES", "time_domain { integer_format: UNIX_SECONDS }", ["DOMAIN_INVALID_FOR_TYPE"]),
        ([(23 << 42) | (59 << 36)], "INT", "time_of_day_domain { integer_format: PACKED_64_NANOS }", []),
        ([24 << 42], "INT", "time_of_day_domain { integer_format: PACKED_64_NANOS }", ["INT_TYPE_BIG_INT"]),
        ([1.0, np.inf], "FLOAT", "", ["FLOAT_TYPE_HAS_INF"]),
        ([1.0, np.inf], "FLOAT", "float_domain { disallow_inf: true }", ["FLOAT_TYPE_HAS_INF"]),
        ([1.0, np.inf], "FLOAT", "float_domain { disallow_inf: false }", []),
    ],
)
def test_meaning_of_values(validate, values, kind, domain, expected):
    _, anomalies, _ = validate({"train": {"a": values}}, f'feature {{ name: "a" type: {kind} {domain} }}')
    assert [found for _, found in kinds(anomalies)] == expected


INVALID = "INVALID_SCHEMA_SPECIFICATION"
TOKENS = [["the", "cat"], ["the", "dog", "[PAD]"], ["[UNK]", "cat"]]


@pytest.mark.parametrize(
    ("domain", "expected"),
    [
        ("", []),
        # One of six tokens is unknown, if padding is left out.
        ('coverage { min_coverage: 0.83 oov_string_tokens: "[UNK]" excluded_string_tokens: "[PAD]" }', []),
        (
            'coverage { min_coverage: 0.84 oov_string_tokens: "[UNK]" excluded_string_tokens: "[PAD]" }',
            ["FEATURE_COVERAGE_TOO_LOW"],
        ),
        ('vocabulary: "words" coverage { min_coverage: 0.7 }', ["FEATURE_COVERAGE_TOO_LOW"]),  # 4 of 7
        ('vocabulary: "words" coverage { min_coverage: 0.5 }', []),
        ("coverage { min_avg_token_length: 3.5 }", []),  # 25 characters of 7 tokens
        ("coverage { min_avg_token_length: 3.6 }", ["FEATURE_COVERAGE_TOO_SHORT_AVG_TOKEN_LENGTH"]),
        ("sequence_length_constraints { min_sequence_length: 2 max_sequence_length: 3 }", []),
        ("sequence_length_constraints { min_sequence_length: 3 }", ["FEATURE_TYPE_LOW_NUMBER_VALUES"]),
        ("sequence_length_constraints { max_sequence_length: 2 }", ["FEATURE_TYPE_HIGH_NUMBER_VALUES"]),
    ],
)
def test_tokens_of_natural_language(validate, domain, expected):
    schema = f'feature {{ name: "a" type: BYTES natural_language_domain {{ {domain} }} }}'
    schema += 'string_domain { name: "words" value: "the" value: "cat" }'
    _, anomalies, _ = validate({"train": {"a": TOKENS}}, schema)
    assert [found for _, found in kinds(anomalies)] == expected


NESTED = pa.array([[[1, 2], [3]], [[4, 5, 6]], [[], [7]]], pa.list_(pa.list_(pa.int64())))


@pytest.mark.parametrize(
    ("values", "counts", "expected"),
    [
        (NESTED, "value_count { min: 1 max: 2 } value_count { min: 0 max: 3 }", []),
        (NESTED, "value_count { min: 2 } value_count { min: 0 }", ["FEATURE_TYPE_LOW_NUMBER_VALUES"]),
        (NESTED, "value_count { min: 1 } value_count { min: 1 }", ["FEATURE_TYPE_LOW_NUMBER_VALUES"]),
        (NESTED, "value_count { max: 2 } value_count { max: 2 }", ["FEATURE_TYPE_HIGH_NUMBER_VALUES"]),
        (NESTED, "value_count { min: 1 }", ["VALUE_NESTEDNESS_MISMATCH"]),
        ([[1, 2], [3]], "value_count { min: 1 max: 2 }", []),
        ([[1, 2], [3]], "value_count { min: 2 }", ["FEATURE_TYPE_LOW_NUMBER_VALUES"]),
        ([[1, 2], [3]], "value_count { } value_count { }", ["VALUE_NESTEDNESS_MISMATCH"]),
    ],
)
def test_numbers_of_values_of_nested_lists(validate, values, counts, expected):
    schema = f'feature {{ name: "a" type: INT value_counts {{ {counts} }} }}'
    _, anomalies, _ = validate({"train": {"a": values}}, schema)
    assert [found for _, found in kinds(anomalies)] == expected


def test_levels_of_nested_lists_merge_over_shards(make_examples, tmp_path):
    rows = [[[1, 2], [3]], None, [[4, 5, 6]], [None, [7]]] * 50
    column = pa.array(rows, pa.list_(pa.list_(pa.int64())))
    examples = InMemoryExampleGen({"a": column}, splits={"train": 1}).execute(tmp_path / "e").examples
    proto = StatisticsGen(examples).execute(tmp_path / "s").statistics.proto()
    levels = proto.datasets[0].features[0].num_stats.common_stats.presence_and_valency_stats
    names = ("num_non_missing", "num_missing", "min_num_values", "max_num_values", "tot_num_values")
    assert [[getattr(level, name) for name in names] for level in levels] == [
        [150, 50, 1, 2, 250],
        [200, 50, 1, 3, 350],
    ]


STRUCT = """
  feature { name: "c" type: STRUCT not_in_environment: "SERVING" struct_domain {
    feature { name: "x" type: INT presence { min_fraction: 1 } int_domain { max: 5 } }
    feature { name: "inner" type: STRUCT struct_domain { feature { name: "y" type: BYTES } } }
  } }
  default_environment: "TRAINING" default_environment: "SERVING"
"""


def test_features_of_structs_are_columns(validate, tmp_path):
    columns = {"c": [{"x": 1, "inner": {"y": "a"}}, {"x": 9, "inner": {"y": "b"}}]}
    examples = InMemoryExampleGen(columns, splits={"train": 1}).execute(tmp_path / "e").examples
    flat = next(examples.batches("train"))
    assert flat.schema.names == ["c.x", "c.inner.y"]
    metrics, anomalies, _ = validate({"train": flat}, STRUCT)
    assert kinds(anomalies) == [("c.x", "INT_TYPE_BIG_INT")] and metrics["warnings"] == 0


def test_missing_features_of_structs_are_reported_in_their_environment(validate):
    _, anomalies, _ = validate({"train": {"c.inner.y": ["a"]}}, STRUCT)
    assert kinds(anomalies) == [("c.x", "SCHEMA_MISSING_COLUMN")]


def test_constraints_of_a_struct_itself_are_named(validate):
    schema = """feature { name: "c" type: STRUCT presence { min_count: 1 }
      struct_domain { feature { name: "x" type: INT } } }
      sparse_feature { name: "s" index_feature { name: "c.x" } value_feature { name: "c.x" } is_sorted: true }"""
    _, anomalies, _ = validate({"train": {"c.x": [1]}}, schema)
    assert [(one["feature"], one["seen"]) for one in anomalies] == [
        ("c", "the schema's presence of a struct is not checked"),
        ("s", "the schema's sparse_feature.is_sorted is not checked"),
    ]


def test_structs_outside_of_the_environment_are_not_expected(validate):
    _, anomalies, _ = validate({"train": {"z": [1]}}, STRUCT, environment="SERVING")
    assert kinds(anomalies) == []


SPARSE = """
  feature { name: "i" type: INT } feature { name: "v" type: FLOAT }
  sparse_feature { name: "s" index_feature { name: "i" } value_feature { name: "v" } }
"""
WEIGHTED = """
  weighted_feature { name: "w" feature { step: "i" } weight_feature { step: "v" } }
"""


@pytest.mark.parametrize(
    ("indices", "values", "sparse", "weighted"),
    [
        ([[1, 2], [3]], [[0.1, 0.2], [0.3]], [], []),
        ([[1], None], [[0.1], [0.2]], ["SPARSE_FEATURE_MISSING_INDEX"], ["WEIGHTED_FEATURE_MISSING_VALUE"]),
        ([[1], [2]], [[0.1], None], ["SPARSE_FEATURE_MISSING_VALUE"], ["WEIGHTED_FEATURE_MISSING_WEIGHT"]),
        ([[1, 2], [3]], [[0.1], [0.3]], ["SPARSE_FEATURE_LENGTH_MISMATCH"], ["WEIGHTED_FEATURE_LENGTH_MISMATCH"]),
        (None, [[0.1], [0.3]], ["SPARSE_FEATURE_MISSING_INDEX"], ["WEIGHTED_FEATURE_MISSING_VALUE"]),
    ],
)
def test_columns_of_sparse_and_weighted_features_belong_together(validate, indices, values, sparse, weighted):
    columns = {"v": values} if indices is None else {"i": indices, "v": values}
    _, anomalies, _ = validate({"train": columns}, SPARSE + WEIGHTED)
    assert kinds(anomalies) == [*(("s", kind) for kind in sparse), *(("w", kind) for kind in weighted)]


def test_normalized_absolute_difference_is_that_of_tfdv(validate):
    """schema.proto: max |x - y| / sum (x + y) of the counts x and y of a value."""
    schema = """feature { name: "a" type: BYTES drift_comparator { normalized_abs_difference { threshold: 0.1 } } }"""
    ours, theirs = {"a": ["x"] * 30 + ["y"] * 20}, {"a": ["x"] * 10 + ["y"] * 20}
    _, anomalies, (distance,) = validate({"train": ours}, schema, previous={"train": theirs})
    assert distance["value"] == pytest.approx(20 / 80) and distance["measure"] == "normalized absolute difference"
    assert kinds(anomalies) == [("a", "COMPARATOR_NORMALIZED_ABSOLUTE_DIFFERENCE_HIGH")]


def test_normalized_absolute_difference_compares_counts(validate):
    schema = """feature { name: "a" type: BYTES drift_comparator { normalized_abs_difference { threshold: 1 } } }"""
    ours = {"a": ["x"] * 30 + ["y"] * 20}
    _, _, (distance,) = validate({"train": {"a": ours["a"] * 2}}, schema, previous={"train": ours})
    assert distance["value"] == pytest.approx(30 / 150)  # the shares are equal, the counts are not


VERSIONS = """feature { name: "a" type: INT } dataset_constraints {
  num_examples_version_comparator { min_fraction_threshold: 0.5 max_fraction_threshold: 2 } }"""


@pytest.mark.parametrize(
    ("rows", "expected"),
    [(10, []), (5, []), (4, ["COMPARATOR_LOW_NUM_EXAMPLES"]), (21, ["COMPARATOR_HIGH_NUM_EXAMPLES"])],
)
def test_number_of_rows_is_compared_with_the_previous_version(validate, rows, expected):
    columns = {"train": {"a": list(range(rows))}}
    _, anomalies, _ = validate(columns, VERSIONS, version={"train": {"a": list(range(10))}})
    assert [one["kind"] for one in anomalies] == expected


@pytest.mark.parametrize(
    ("schema", "kind", "seen"),
    [
        (
            'feature { name: "a" type: INT int_domain { min: 5 max: 3 } }',
            INVALID,
            "min 5 and max 3",
        ),
        ('feature { name: "a" type: INT presence { min_fraction: 90 } }', INVALID, "is 90"),
        (
            'feature { name: "a" type: INT value_count { min: 2 max: 1 } }',
            INVALID,
            "value_count",
        ),
        (
            'feature { name: "a" type: INT } feature { name: "a" type: INT }',
            INVALID,
            "two features",
        ),
        ('feature { name: "a" type: FLOAT int_domain { } }', "DOMAIN_INVALID_FOR_TYPE", "FLOAT cannot have"),
        (
            'feature { name: "a" type: BYTES string_domain { value: "x" value: "x" } }',
            "INVALID_DOMAIN_SPECIFICATION",
            "lists 'x' twice",
        ),
        (
            'feature { name: "a" type: BYTES time_domain { string_format: "%Q" } }',
            "INVALID_DOMAIN_SPECIFICATION",
            "the format '%Q'",
        ),
        (
            'feature { name: "a" type: INT in_environment: "T" not_in_environment: "T" } default_environment: "T"',
            INVALID,
            "both in and not in",
        ),
        (
            'feature { name: "a" type: INT skew_comparator { infinity_norm { threshold: 5 } } }',
            INVALID,
            "threshold 5",
        ),
        (
            'feature { name: "a" type: INT } sparse_feature { name: "a" index_feature { name: "a" } '
            'value_feature { name: "a" } }',
            "SPARSE_FEATURE_NAME_COLLISION",
            "the same name",
        ),
        (
            'feature { name: "a" type: INT } weighted_feature { name: "w" feature { step: "a" } }',
            INVALID,
            "no weight_feature",
        ),
        (
            'feature { name: "a" type: INT } dataset_constraints { min_examples_count: 9 max_examples_count: 8 }',
            INVALID,
            "min_examples_count 9",
        ),
    ],
)
def test_contradictions_in_the_schema(validate, schema, kind, seen):
    _, anomalies, _ = validate({"train": {"a": [1, 2]}}, schema)
    found = [one for one in anomalies if one["split"] == "schema"]
    assert [one["kind"] for one in found] == [kind] and seen in found[0]["seen"]


def test_reading_a_schema_names_what_is_wrong_or_not_checked(tmp_path, caplog):
    features = (
        'name: "a" type: BYTES video_domain { }',
        'name: "b" type: INT int_domain { min: 2 max: 1 }',
    )
    text = "".join(f"feature {{ {feature} }}" for feature in features)
    (tmp_path / "schema.pbtxt").write_text(text)
    with caplog.at_level(logging.WARNING, "kerasline"):
        ImportSchemaGen(str(tmp_path / "schema.pbtxt")).execute(tmp_path / "schema")
    assert "feature 'a': the schema's video_domain is not checked" in caplog.text
    assert "feature 'b': int_domain has min 2 and max 1, which no value satisfies; fix the schema" in caplog.text


@pytest.mark.parametrize(
    ("values", "feature", "bad"),
    [
        (["http://a", "b", "http://c"], "type: BYTES url_domain { }", [1]),
        ([1, 10**13, 2], "type: INT time_domain { integer_format: UNIX_SECONDS }", [1]),
        (
            [["a"], ["a", "b"], ["c"]],
            "type: BYTES natural_language_domain { sequence_length_constraints { max_sequence_length: 1 } }",
            [1],
        ),
    ],
)
def test_rows_with_another_meaning_are_listed(make_examples, tmp_path, values, feature, bad):
    examples = make_examples({"train": {"a": values}})
    statistics = StatisticsGen(examples).execute(tmp_path / "statistics").statistics
    (tmp_path / "schema.pbtxt").write_text(f'feature {{ name: "a" {feature} }}')
    schema = ImportSchemaGen(str(tmp_path / "schema.pbtxt")).execute(tmp_path / "schema").schema
    done = ExampleValidator(statistics, schema, examples=examples, fail_on="never").execute(tmp_path / "anomalies")
    (anomaly,) = json.loads((done.anomalies.path / "anomalies.json").read_text())
    assert [row["row"] for row in anomaly["rows"]] == bad
