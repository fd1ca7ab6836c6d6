"""Damaged and truncated files: a clear error or rows in quarantine, never a crash or a silent loss."""

import gzip
import json
import random

import fastavro
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from kerasline import AvroExampleGen, CsvExampleGen, JsonExampleGen, ParquetExampleGen, TfRecordExampleGen
from kerasline.components.core.errors import DataError

ROWS = 300


def csv_file(path):
    lines = [f"{i},{i / 7},name {i}" for i in range(ROWS)]
    path.write_text("id,size,name\n" + "\n".join(lines) + "\n")


def json_file(path):
    rows = [{"id": i, "size": i / 7, "name": f"name {i}"} for i in range(ROWS)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def parquet_file(path):
    table = pa.table(
        {"id": range(ROWS), "size": [i / 7 for i in range(ROWS)], "name": [f"name {i}" for i in range(ROWS)]}
    )
    pq.write_table(table, path, row_group_size=50, write_page_checksum=True)


def tfrecord_file(path):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for i in range(ROWS):
            features = {
                "id": tf.train.Feature(int64_list=tf.train.Int64List(value=[i])),
                "name": tf.train.Feature(bytes_list=tf.train.BytesList(value=[f"name {i}".encode()])),
            }
            writer.write(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())


def avro_file(path):
    fields = [{"name": "id", "type": "long"}, {"name": "name", "type": "string"}]
    with open(path, "wb") as file:
        rows = [{"id": i, "name": f"name {i}"} for i in range(ROWS)]
        fastavro.writer(file, {"type": "record", "name": "row", "fields": fields}, rows, sync_interval=500)


KINDS = {
    "avro": (AvroExampleGen, avro_file),
    "csv": (CsvExampleGen, csv_file),
    "json": (JsonExampleGen, json_file),
    "parquet": (ParquetExampleGen, parquet_file),
    "tfrecord": (TfRecordExampleGen, tfrecord_file),
}


def cut(data, dice):
    return data[: dice.randrange(len(data))]


def flip(data, dice):
    data = bytearray(data)
    for _ in range(dice.randint(1, 3)):
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    return bytes(data)


def replace(data, dice):
    at = dice.randrange(len(data))
    return data[:at] + dice.randbytes(dice.randint(1, 200)) + data[at + 50 :]


@pytest.mark.parametrize("damage", [cut, flip, replace])
@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_reported_or_quarantined(tmp_path, kind, damage):
    stage, write = KINDS[kind]
    write(tmp_path / "whole")
    whole = (tmp_path / "whole").read_bytes()
    detected = 0
    for seed in range(25):
        path = tmp_path / f"{seed}.{kind}"
        path.write_bytes(damage(whole, random.Random(seed)))
        for bad_rows in ("fail", "quarantine"):
            out = tmp_path / f"{seed}-{bad_rows}"
            try:
                done = stage(str(path), bad_rows=bad_rows, splits={"all": 1}).execute(out)
            except DataError as error:
                assert str(path) in str(error) and "\n" not in str(error), error
                detected += 1
                continue
            books = done.examples.read_json("examples.json")
            assert books["rows_read"] == done.examples.rows("all") + books["quarantined"]
            if books["quarantined"]:
                detected += 1
                lines = (done.examples.path / "quarantine.jsonl").read_text().splitlines()
                assert sum(json.loads(line)["rows"] for line in lines) == books["quarantined"]
    assert detected >= 5  # otherwise the damage had no effect


@pytest.mark.parametrize("kind", ["csv", "json"])
def test_truncated_compressed_file_is_an_error(tmp_path, kind):
    stage, write = KINDS[kind]
    write(tmp_path / "whole")
    packed = gzip.compress((tmp_path / "whole").read_bytes())
    (tmp_path / f"a.{kind}.gz").write_bytes(packed[: len(packed) // 2])
    for bad_rows in ("fail", "quarantine"):
        with pytest.raises(DataError, match=f"a.{kind}.gz"):
            stage(str(tmp_path / f"a.{kind}.gz"), bad_rows=bad_rows, splits={"all": 1}).execute(tmp_path / "out")


def quarantined(done):
    lines = (done.examples.path / "quarantine.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_bad_csv_rows_are_quarantined_with_location_and_reason(tmp_path):
    (tmp_path / "a.csv").write_bytes(
        b"id,size,name\n1,1.5,ann\n2,2.5\n3,three,bob\n4,4.5,\xff\nfive,5.5,eve\n\xff\n"
        + b"".join(b"%d,%d.5,fay\n" % (i, i) for i in range(6, 20))
    )
    done = CsvExampleGen(str(tmp_path / "a.csv"), bad_rows="quarantine", splits={"all": 1}).execute(tmp_path / "out")
    assert done.examples.read("all")["id"].to_pylist() == [1, *range(6, 20)]
    assert [field.type for field in done.examples.schema()] == [pa.int64(), pa.float64(), pa.string()]
    assert done.metrics["quarantined"] == 5
    found = {row["source"].rpartition("row ")[2]: row["reason"] for row in quarantined(done)}
    assert found == {
        "3": "expected 3 fields as in the header, received 2",
        "4": "column 'size': expected double as in the rows before, received 'three'",
        "5": "column 'name': not utf-8 text",
        "6": "column 'id': expected int64 as in the rows before, received 'five'",
        "7": "expected 3 fields as in the header, received 1",
    }


def test_bad_json_lines_are_quarantined_with_location_and_reason(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n\n{"a": \n[1]\n{"a": "x"}\n{"a": 2.5} {"a": 3}\n{"a": 4}')
    with pytest.raises(DataError, match="a.jsonl, line 3: .*put such rows into quarantine"):
        JsonExampleGen(str(tmp_path / "a.jsonl"), splits={"all": 1}).execute(tmp_path / "out")
    done = JsonExampleGen(str(tmp_path / "a.jsonl"), bad_rows="quarantine", splits={"all": 1}).execute(tmp_path / "out")
    assert done.examples.read("all")["a"].to_pylist() == [1, 4]
    assert [row["source"].rpartition(" ")[2] for row in quarantined(done)] == ["3", "4", "6", "5"]
    assert quarantined(done)[-1]["reason"] == "column 'a' changed from number to string"


def test_damaged_record_is_quarantined_and_others_are_kept(tmp_path):
    tfrecord_file(tmp_path / "a")
    data = bytearray((tmp_path / "a").read_bytes())
    data[20] ^= 1  # within the first record's message
    (tmp_path / "a").write_bytes(data)
    with pytest.raises(DataError, match="a, byte 0: damaged record"):
        TfRecordExampleGen(str(tmp_path / "a"), splits={"all": 1}).execute(tmp_path / "out")
    done = TfRecordExampleGen(str(tmp_path / "a"), bad_rows="quarantine", splits={"all": 1}).execute(tmp_path / "out")
    assert done.examples.read("all")["id"].to_pylist() == list(range(1, ROWS))
    assert done.metrics["quarantined"] == 1


def test_damaged_row_group_is_quarantined_as_a_whole(tmp_path):
    parquet_file(tmp_path / "a")
    data = bytearray((tmp_path / "a").read_bytes())
    place = pq.read_metadata(tmp_path / "a").row_group(2).column(0)
    start = place.dictionary_page_offset or place.data_page_offset
    data[start : start + 40] = b"\xff" * 40
    (tmp_path / "a").write_bytes(data)
    with pytest.raises(DataError, match="a, row group 2, from row 0: unreadable"):
        ParquetExampleGen(str(tmp_path / "a"), splits={"all": 1}).execute(tmp_path / "out")
    done = ParquetExampleGen(str(tmp_path / "a"), bad_rows="quarantine", splits={"all": 1}).execute(tmp_path / "out")
    assert done.examples.read("all")["id"].to_pylist() == [*range(100), *range(150, ROWS)]
    assert done.metrics["quarantined"] == 50
