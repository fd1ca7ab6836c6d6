"""Avro files, written by fastavro."""

import datetime
import decimal
import uuid

import fastavro
import pytest

from kerasline import AvroExampleGen
from kerasline.components.core.errors import DataError

UTC = datetime.UTC
FIELDS = {
    "id": "long",
    "size": ["null", "float"],
    "kind": {"type": "enum", "name": "Kind", "symbols": ["CAT", "DOG"]},
    "tags": {"type": "array", "items": ["null", "string"]},
    "at": {"type": "long", "logicalType": "timestamp-micros"},
    "day": {"type": "int", "logicalType": "date"},
    "price": {"type": "bytes", "logicalType": "decimal", "precision": 6, "scale": 2},
    "key": ["null", {"type": "string", "logicalType": "uuid"}],
    "raw": {"type": "fixed", "name": "Raw", "size": 2},
    "owner": {"type": "record", "name": "Owner", "fields": [{"name": "name", "type": "string"}]},
    "vet": ["null", "Owner"],
    "scores": {"type": "map", "values": "double"},
    "number": ["null", "int", "double"],
}
KEY = uuid.uuid5(uuid.NAMESPACE_DNS, "example.org")
ROW = {
    "id": 2**62 + 1,
    "size": 0.5,
    "kind": "DOG",
    "tags": ["a", None],
    "at": datetime.datetime(2026, 1, 2, 3, 4, 5, 678901, UTC),
    "day": datetime.date(2026, 1, 2),
    "price": decimal.Decimal("12.30"),
    "key": KEY,
    "raw": b"\xff\x00",
    "owner": {"name": "Ann"},
    "vet": {"name": "Bob"},
    "scores": {"x": 1.5},
    "number": 3,
}
EMPTY = {**ROW, "id": -1, "size": None, "tags": [], "key": None, "vet": None, "scores": {}, "number": None}


def write(path, rows, fields, codec="deflate"):
    names = [{"name": name, "type": kind} for name, kind in fields.items()]
    with open(path, "wb") as file:
        fastavro.writer(file, {"type": "record", "name": "Row", "fields": names}, rows, codec, sync_interval=1000)


def read(path, out, **parameters):
    return AvroExampleGen(str(path), splits={"all": 1}, **parameters).execute(out)


def test_values_of_all_types_survive(tmp_path):
    write(tmp_path / "a.avro", [ROW, EMPTY], FIELDS)
    found = read(tmp_path / "a.avro", tmp_path / "out").examples.read("all").to_pylist()
    assert found[0] == {
        "id": 2**62 + 1,
        "size": 0.5,
        "kind": "DOG",
        "tags": ["a", None],
        "at": "2026-01-02 03:04:05.678901Z",
        "day": "2026-01-02",
        "price": 12.3,
        "key": str(KEY),
        "raw": b"\xff\x00",
        "owner.name": "Ann",
        "vet.name": "Bob",
        "scores.key": ["x"],
        "scores.value": [1.5],
        "number": 3,
    }
    missing = {"id": -1, "size": None, "tags": [], "key": None, "vet.name": None, "number": None}
    assert found[1] == {**found[0], **missing, "scores.key": [], "scores.value": []}


def test_files_with_other_columns_are_read_together(tmp_path):
    write(tmp_path / "a.avro", [{"x": 1}] * 5000, {"x": "int"})
    write(tmp_path / "b.avro", [{"x": 0.5, "y": "z"}], {"x": "double", "y": "string"}, "null")
    found = read(tmp_path / "*.avro", tmp_path / "out").examples.read("all")
    assert (found.num_rows, sum(found["x"].to_pylist()), found["y"].drop_null().to_pylist()) == (5001, 5000.5, ["z"])


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (["int", "string"], [1, "a"], "a.avro: column 'x' is a union of int, string; expected one type, besides null"),
        (["long", "double"], [2**60 + 1, 0.5], "a.avro, from row 0: column 'x': Integer value 1152921504606846977"),
        (["null", "Row"], [None], "column 'x' has the type 'Row' within itself; columns cannot be recursive"),
    ],
)
def test_type_without_a_column_type_is_refused(tmp_path, kind, values, message):
    write(tmp_path / "a.avro", [{"x": value} for value in values], {"x": kind})
    with pytest.raises(DataError, match=message):
        read(tmp_path / "a.avro", tmp_path / "out")


def test_damaged_block_is_quarantined_with_its_number_of_rows(tmp_path):
    write(tmp_path / "a.avro", [{"x": "text " * 20} for _ in range(500)], {"x": "string"}, "null")
    whole = (tmp_path / "a.avro").read_bytes()
    (tmp_path / "a.avro").write_bytes(whole[:20000] + b"\xff" * 20 + whole[20020:])
    with pytest.raises(DataError, match=r"a.avro, from row \d+: damaged block"):
        read(tmp_path / "a.avro", tmp_path / "no")
    done = read(tmp_path / "a.avro", tmp_path / "out", bad_rows="quarantine")
    assert done.examples.rows("all") + done.metrics["quarantined"] == 500 and done.metrics["quarantined"] < 20
    (tmp_path / "a.avro").write_bytes(whole[:-1000])
    done = read(tmp_path / "a.avro", tmp_path / "cut", bad_rows="quarantine")
    assert 480 < done.examples.rows("all") < 500


@pytest.mark.parametrize("content", [b"", b"Obj\x01", b"text"])
def test_file_that_is_not_avro_is_refused(tmp_path, content):
    (tmp_path / "a.avro").write_bytes(content)
    with pytest.raises(DataError, match="a.avro: not an Avro file"):
        read(tmp_path / "a.avro", tmp_path / "out")


@pytest.mark.parametrize(("declared", "expected"), [("string", [str(2**60 + 1), "0.5"]), ("double", [2.0**60, 0.5])])
def test_union_of_numbers_is_read_as_declared(tmp_path, declared, expected):
    write(tmp_path / "a.avro", [{"x": 2**60 + 1}, {"x": 0.5}], {"x": ["long", "double"]})
    found = read(tmp_path / "a.avro", tmp_path / "out", column_types={"x": declared}).examples.read("all")
    assert found["x"].to_pylist() == expected
