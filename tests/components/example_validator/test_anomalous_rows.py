"""The rows that cause anomalies, and conditions on rows."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import kerasline as kl
from kerasline.components.core.errors import DataError, ParameterError
from tests.components.example_validator.test_anomalies import GOOD, ROWS, SCHEMA, png

# Row 150 and later are bad.
BAD = {
    "size": [0.5] * 150 + [-1.0, 7.0, np.inf, np.nan] + [0.5] * (ROWS - 154),
    "kind": ["dog"] * 150 + ["cow", None] + ["cat"] * (ROWS - 152),
    "legs": [4] * 150 + [1, 100] + [2] * (ROWS - 152),
    "tags": [["a"]] * 150 + [[], ["a"] * 4] + [["a"]] * (ROWS - 152),
    "sold": ["yes"] * 150 + ["perhaps"] + ["no"] * (ROWS - 151),
    "code": ["7"] * 150 + ["x", "99", "0"] + ["7"] * (ROWS - 153),
    "face": [png()] * 150 + [b"no image"] + [png()] * (ROWS - 151),
}


def validated(examples, tmp_path, schema=SCHEMA, **parameters):
    statistics = kl.StatisticsGen(examples).execute(tmp_path / "statistics").statistics
    (tmp_path / "schema.pbtxt").write_text(schema)
    schema = kl.ImportSchemaGen(str(tmp_path / "schema.pbtxt")).execute(tmp_path / "schema").schema
    stage = kl.ExampleValidator(statistics, schema, examples=examples, **{"fail_on": "never", **parameters})
    done = stage.execute(tmp_path / "out")
    return json.loads((done.anomalies.path / "anomalies.json").read_text())


def test_anomalies_list_the_rows_that_cause_them(make_examples, tmp_path, monkeypatch):
    monkeypatch.setattr("kerasline.components.data.shards.ROW_GROUP_ROWS", 64)
    examples = make_examples({"train": BAD, "test": GOOD})
    found = validated(examples, tmp_path, SCHEMA.replace("min_fraction: 0.9", "min_fraction: 1"))
    rows = {(one["kind"], one["feature"]): one["rows"] for one in found if one["split"] == "train"}
    expected = {
        ("FLOAT_TYPE_SMALL_FLOAT", "size"): [150],
        ("FLOAT_TYPE_BIG_FLOAT", "size"): [151, 152],
        ("FLOAT_TYPE_HAS_INF", "size"): [152],
        ("FLOAT_TYPE_HAS_NAN", "size"): [153],
        ("FEATURE_TYPE_LOW_FRACTION_PRESENT", "size"): [153],
        ("FEATURE_TYPE_LOW_FRACTION_PRESENT", "kind"): [151],
        ("ENUM_TYPE_UNEXPECTED_STRING_VALUES", "kind"): [150],
        ("FEATURE_TYPE_HIGH_UNIQUE", "kind"): [],
        ("INT_TYPE_SMALL_INT", "legs"): [150],
        ("INT_TYPE_BIG_INT", "legs"): [151],
        ("FEATURE_TYPE_LOW_NUMBER_VALUES", "tags"): [150],
        ("FEATURE_TYPE_HIGH_NUMBER_VALUES", "tags"): [151],
        ("BOOL_TYPE_UNEXPECTED_STRING", "sold"): [150],
        ("INT_TYPE_NOT_INT_STRING", "code"): [150],
        ("INT_TYPE_BIG_INT", "code"): [151],
        ("INT_TYPE_SMALL_INT", "code"): [152],
        ("LOW_SUPPORTED_IMAGE_FRACTION", "face"): [150],
    }
    assert {key: [row["row"] for row in listed] for key, listed in rows.items()} == expected
    for (_, feature), listed in rows.items():
        for row in listed:
            held = pq.read_table(examples.path / row["file"])[feature][row["row"]].as_py()
            assert str(row["value"]) == str(held) or (held != held and row["value"] != row["value"])
    assert not any(one["rows"] for one in found if one["split"] == "test")


def test_message_names_the_first_row(make_examples, tmp_path):
    examples = make_examples({"train": {"legs": [2, 100]}})
    schema = 'feature { name: "legs" type: INT int_domain { max: 4 } }'
    with pytest.raises(DataError, match=r"value is 100, .* \(first in train/00000.parquet, row 1\); fix the"):
        validated(examples, tmp_path, schema, fail_on="error")


TRIPS = {"fare": [5.0, 1.0, None, 8.0], "tips": [1.0, 2.0, 1.0, 9.0], "company": ["a", "", "b", "c"]}
NO_SCHEMA = "".join(
    f'feature {{ name: "{name}" type: {kind} }}'
    for name, kind in (("fare", "FLOAT"), ("tips", "FLOAT"), ("company", "BYTES"))
)


def test_row_that_does_not_fulfil_a_condition_is_an_anomaly(make_examples, tmp_path):
    conditions = {"tips are below fares": "tips < fare", "company is known": "company != ''", "all": "tips > 0"}
    found = validated(make_examples({"train": TRIPS}), tmp_path, NO_SCHEMA, custom_validation=conditions)
    assert [(one["kind"], one["feature"], [row["row"] for row in one["rows"]]) for one in found] == [
        ("CUSTOM_VALIDATION", "*", [1, 3]),
        ("CUSTOM_VALIDATION", "company", [1]),
    ]
    assert found[0]["seen"] == "2 of 4 rows do not fulfil 'tips are below fares': tips < fare"


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("fair > 0", "ExampleValidator.custom_validation.x: the data has no column 'fair'; did you mean 'fare'"),
        ("fare >", "custom_validation.x: expected a condition such as .*received 'fare >'"),
        ("company > 0", "custom_validation.x: .*does not fit the types of the columns .company is string"),
    ],
)
def test_condition_that_does_not_fit_the_data_is_an_error(make_examples, tmp_path, condition, message):
    with pytest.raises((ParameterError, DataError), match=message):
        validated(make_examples({"train": TRIPS}), tmp_path, NO_SCHEMA, custom_validation={"x": condition})


def test_conditions_need_the_examples(make_examples, tmp_path):
    examples = make_examples({"train": pa.RecordBatch.from_pydict(TRIPS)})
    statistics = kl.StatisticsGen(examples).execute(tmp_path / "statistics").statistics
    schema = kl.SchemaGen(statistics).execute(tmp_path / "schema").schema
    with pytest.raises(ParameterError, match="conditions on rows need the input `examples`; add it"):
        kl.ExampleValidator(statistics, schema, custom_validation={"x": "fare > 0"}).execute(tmp_path / "out")
