"""Edge cases according to schemas and dtypes."""

import numpy as np
import pytest
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2

from kerasline.components.infra_validator.edge_cases import LONG_LIST_LENGTH, edge_cases
from kerasline.components.models.signatures import TensorSpec


def spec(dtype, shape):
    """Return the spec of an input."""
    return TensorSpec("", 0, np.dtype(object if dtype == "string" else dtype), shape)


INPUTS = {
    "mass": spec("float32", (None, 1)),
    "year": spec("int64", (None,)),
    "sex": spec("string", (None, 1)),
    "tags": spec("string", (None, None)),
    "pixels": spec("uint8", (None, 2, 2)),
    "alive": spec("bool", (None, 1)),
}
REAL = {
    "mass": np.float32([[3.5]]),
    "year": np.int64([2008]),
    "sex": np.array([[b"male"]], object),
    "tags": np.array([[b"a", b"b"]], object),
    "pixels": np.full((1, 2, 2), 9, np.uint8),
    "alive": np.array([[True]]),
}
SCHEMA = """
feature { name: "mass" type: FLOAT presence { min_count: 1 } float_domain { min: 1 max: 5 } }
feature { name: "year" type: INT presence { min_fraction: 1 } int_domain { min: 2000 max: 2100 } }
feature { name: "sex" type: BYTES presence { min_fraction: 1 } string_domain { value: "female" value: "male" } }
feature { name: "tags" type: BYTES value_count { min: 0 max: 2000 } }
"""


@pytest.fixture
def cases():
    return edge_cases(INPUTS, REAL, text_format.Parse(SCHEMA, schema_pb2.Schema()))


def test_each_case_is_one_row_that_differs_from_the_real_row(cases):
    for name, rows in cases.items():
        assert list(rows) == list(INPUTS)
        assert all(len(array) == 1 and array.dtype == REAL[key].dtype for key, array in rows.items()), name
        if name not in ("sex: the schema's 'male'", "alive: true"):
            assert any(array is not REAL[key] for key, array in rows.items())


def test_numbers_reach_the_limits_of_schema_and_dtype(cases):
    masses = {name[6:]: rows["mass"].item() for name, rows in cases.items() if name.startswith("mass: ")}
    limits = np.finfo(np.float32)
    assert np.isnan(masses.pop("missing"))
    assert masses == {
        "zero": 0.0,
        "minus zero": 0.0,
        "the schema's minimum": 1.0,
        "the schema's maximum": 5.0,
        "below the schema's minimum": -3.0,
        "above the schema's maximum": 9.0,
        "the highest number": limits.max,
        "the lowest number": limits.min,
        "the smallest number above zero": limits.smallest_subnormal,
        "infinity": np.inf,
        "minus infinity": -np.inf,
    }
    assert np.signbit(cases["mass: minus zero"]["mass"].item())


def test_integers_stay_within_their_dtype(cases):
    years = {name[6:]: rows["year"].item() for name, rows in cases.items() if name.startswith("year: ")}
    assert years == {
        "missing": -1,
        "zero": 0,
        "the schema's minimum": 2000,
        "the schema's maximum": 2100,
        "below the schema's minimum": 1900,
        "above the schema's maximum": 2200,
        "the highest number": 2**63 - 1,
        "the lowest number": -(2**63),
    }
    pixels = {name[8:]: rows["pixels"] for name, rows in cases.items() if name.startswith("pixels: ")}
    # The lowest number equals zero, and the dtype has no missing value.
    assert {name: int(array.max()) for name, array in pixels.items()} == {"zero": 0, "the highest number": 255}


def test_texts_are_missing_unknown_long_and_unusual(cases):
    texts = {name[5:]: rows["sex"].item() for name, rows in cases.items() if name.startswith("sex: ")}
    assert texts["missing"] == b"" and texts["the schema's 'female'"] == b"female"
    assert texts["an unknown value"] not in (b"female", b"male") and len(texts["a very long text"]) == 10_000
    texts["a text of many scripts"].decode()
    with pytest.raises(UnicodeDecodeError):
        texts["bytes that are not UTF-8"].decode()


def test_lists_are_empty_and_as_long_as_the_schema_allows(cases):
    assert cases["tags: an empty list"]["tags"].shape == (1, 0)
    assert cases["tags: a long list"]["tags"].shape == (1, 2000)
    assert edge_cases(INPUTS, REAL, None)["tags: a long list"]["tags"].shape == (1, LONG_LIST_LENGTH)


def test_all_optional_features_are_missing_at_once(cases):
    optional = cases["every optional feature missing"]
    assert np.isnan(optional["mass"]).all() and optional["tags"].tolist() == [[b"", b""]]
    assert optional["sex"].item() == b"male" and optional["year"].item() == 2008
    every = cases["every feature missing"]
    assert every["sex"].item() == b"" and every["year"].item() == -1 and every["alive"].item() is True


def test_without_a_schema_only_dtypes_count():
    names = set(edge_cases({"mass": INPUTS["mass"]}, REAL, None))
    assert {"mass: missing", "mass: infinity", "every optional feature missing"} <= names
    assert not any("schema" in name for name in names)
