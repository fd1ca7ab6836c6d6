"""The kinds of ExampleGen other than CSV and TFDS, and the ways to split."""

import sqlite3

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kerasline import (
    CsvExampleGen,
    InMemoryExampleGen,
    JsonExampleGen,
    ParquetExampleGen,
    SqlExampleGen,
)
from kerasline.components.core.errors import DataError, ParameterError
from kerasline.pipeline.fingerprint import node_fingerprint

FRAME = pd.DataFrame({"id": range(1000), "part": ["old", "new"] * 500, "tags": [["a"], ["a", "b"]] * 500})
ALL = {"all": 1}


def ids(done, split):
    return set(done.examples.read(split)["id"].to_pylist())


def test_rows_have_the_same_split_from_every_format(tmp_path):
    FRAME.to_parquet(tmp_path / "a.parquet")
    FRAME.to_json(tmp_path / "a.jsonl", orient="records", lines=True)
    kinds = [
        InMemoryExampleGen(FRAME, split_key=["id"]),
        InMemoryExampleGen(pa.Table.from_pandas(FRAME), split_key=["id"]),
        ParquetExampleGen(str(tmp_path / "*.parquet"), split_key=["id"]),
        JsonExampleGen(str(tmp_path / "a.jsonl"), split_key=["id"]),
    ]
    done = [kind.execute(tmp_path / str(number)) for number, kind in enumerate(kinds)]
    for split in ("train", "eval", "test"):
        assert len({frozenset(ids(one, split)) for one in done}) == 1
    table = pa.concat_tables([done[3].examples.read(split) for split in ("train", "eval", "test")]).sort_by("id")
    assert table["tags"].to_pylist() == FRAME["tags"].to_list()


def test_split_of_a_row_does_not_depend_on_other_rows(tmp_path):
    few = InMemoryExampleGen(FRAME[:300], split_key=["id"]).execute(tmp_path / "few")
    many = InMemoryExampleGen(FRAME.sample(frac=1, random_state=0), split_key=["id"]).execute(tmp_path / "many")
    for split in ("train", "eval", "test"):
        assert ids(few, split) == {i for i in ids(many, split) if i < 300}


def test_ratio_splits_are_exact_to_a_few_rows(tmp_path):
    done = InMemoryExampleGen(FRAME, split_by="ratio", splits={"train": 7, "eval": 3}).execute(tmp_path)
    assert abs(done.examples.rows("train") - 700) <= 3
    assert ids(done, "train") | ids(done, "eval") == set(range(1000))


def test_column_names_the_split(tmp_path):
    splits = {"old": 1, "new": 1}
    done = InMemoryExampleGen(FRAME, split_by="column", split_key=["part"], splits=splits).execute(tmp_path / "out")
    assert ids(done, "old") == set(range(0, 1000, 2))
    with pytest.raises(DataError, match="expected the name of a split .* received 'new'"):
        InMemoryExampleGen(FRAME, split_by="column", split_key=["part"], splits={"old": 1}).execute(tmp_path / "no")


def test_splits_may_be_files(tmp_path):
    for name, rows in (("train", FRAME[:600]), ("eval", FRAME[600:])):
        (tmp_path / name).mkdir()
        rows.drop(columns="tags").to_csv(tmp_path / name / "a.csv", index=False)
    splits = {"train": "train/*.csv", "eval": "eval/*.csv"}
    done = CsvExampleGen(str(tmp_path), splits=splits).execute(tmp_path / "out")
    assert (ids(done, "train"), ids(done, "eval")) == (set(range(600)), set(range(600, 1000)))


def test_wider_type_in_a_later_file_does_not_duplicate_rows(tmp_path):
    pq.write_table(pa.table({"id": range(10)}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"id": [10.5] * 10, "more": ["x"] * 10}), tmp_path / "b.parquet")
    done = ParquetExampleGen(str(tmp_path / "*.parquet"), splits=ALL).execute(tmp_path / "out")
    assert done.examples.read("all").to_pydict() == {
        "id": [*map(float, range(10)), *[10.5] * 10],
        "more": [None] * 10 + ["x"] * 10,
    }


def test_sql_query_is_read(tmp_path):
    with sqlite3.connect(tmp_path / "a.db") as database:
        FRAME.drop(columns="tags").to_sql("rows", database, index=False)
    url = f"sqlite:///{tmp_path}/a.db"
    query = "SELECT id, part, id / 2.0 AS half FROM rows WHERE id < 500 ORDER BY id"
    done = SqlExampleGen(url, query=query, splits=ALL).execute(tmp_path / "out")
    assert done.examples.read("all").slice(0, 2).to_pydict() == {
        "id": [0, 1],
        "part": ["old", "new"],
        "half": [0.0, 0.5],
    }
    assert done.examples.rows("all") == 500
    parts = {"train": "SELECT * FROM rows WHERE part = 'old'", "eval": "SELECT * FROM rows WHERE part = 'new'"}
    done = SqlExampleGen(url, splits=parts).execute(tmp_path / "parts")
    assert ids(done, "train") == set(range(0, 1000, 2))


@pytest.mark.parametrize(
    ("url", "query", "message"),
    [
        ("sqlite:///{}/a.db", "SELECT * FROM nowhere", "no such table: nowhere.*see ExampleGen.query"),
        ("nodb://x", "SELECT 1", "ExampleGen.input: .*give the SQLAlchemy URL"),
        ("sqlite:///{}/a.db", None, "ExampleGen.query: no query"),
    ],
)
def test_failing_query_is_an_error(tmp_path, url, query, message):
    with pytest.raises((DataError, ParameterError), match=message):
        SqlExampleGen(url.format(tmp_path), query=query).execute(tmp_path / "out")


@pytest.mark.slow
def test_wide_rows_long_strings_and_bytes_are_preserved(tmp_path):
    random = np.random.default_rng(0)
    table = pa.table(
        {
            **{f"c{i}": random.normal(size=50) for i in range(1000)},
            "text": ["x" * 2_000_000] * 50,
            "bytes": [random.bytes(100_000) for _ in range(50)],
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    done = ParquetExampleGen(str(tmp_path / "a.parquet"), splits=ALL).execute(tmp_path / "out")
    assert done.examples.read("all").equals(table)


def test_fingerprint_of_a_table_is_its_content():
    def fingerprint(data):
        return node_fingerprint(InMemoryExampleGen(data), {}, lambda path: "")

    assert fingerprint({"a": list(range(10**5))}) == fingerprint({"a": list(range(10**5))})
    changed = list(range(10**5))
    changed[5000] = -1
    assert fingerprint({"a": changed}) != fingerprint({"a": list(range(10**5))})


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"splits": {"train": 1, "eval": "eval.csv"}}, "either a size or a location"),
        ({"splits": {"train": 1, "eval": 0}}, "expected positive sizes"),
        ({"splits": {"train": 1, "../eval": 1}}, "expected names that folders can have, received '../eval'"),
        ({"splits": {}}, "either a size or a location"),
        ({"split_by": "column"}, "expected one column"),
        ({"split_key": ["idd"]}, "no column 'idd'.*did you mean 'id'"),
    ],
)
def test_invalid_splits_are_an_error(tmp_path, parameters, message):
    with pytest.raises((DataError, ParameterError), match=message):
        InMemoryExampleGen(FRAME, **parameters).execute(tmp_path)


def test_input_that_is_not_a_table_is_an_error(tmp_path):
    with pytest.raises(DataError, match="ExampleGen.input: expected .* table .* received int"):
        InMemoryExampleGen(3).execute(tmp_path)


def test_rows_and_columns_are_selected_and_counted(tmp_path):
    stage = InMemoryExampleGen(FRAME, rows="id >= 100 AND part = 'new'", columns=["id"], split_key=["part"], splits=ALL)
    done = stage.execute(tmp_path / "out")
    assert done.examples.read("all").to_pydict() == {"id": list(range(101, 1000, 2))}
    assert done.metrics == {"all": 450, "columns": 1, "left_out": 550}
    facts = done.examples.read_json("examples.json")
    assert (facts["rows_read"], facts["left_out"]) == (1000, 550)


def test_equal_selected_rows_are_in_the_same_split(tmp_path):
    frame = pd.DataFrame({"a": [number % 50 for number in range(1000)], "other": range(1000)})
    done = InMemoryExampleGen(frame, columns=["a"]).execute(tmp_path / "out")
    found = [set(done.examples.read(split)["a"].to_pylist()) for split in done.examples.splits]
    assert sum(map(len, found)) == 50


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"columns": ["idd"]}, "ExampleGen.columns: no column 'idd'; did you mean 'id'"),
        ({"rows": "idd > 0"}, "ExampleGen.rows: the data has no column 'idd'; did you mean 'id'"),
        ({"rows": "id >"}, "ExampleGen.rows: expected a condition"),
        ({"rows": "id < 0"}, "has no rows"),
    ],
)
def test_invalid_selection_is_an_error(tmp_path, parameters, message):
    with pytest.raises((DataError, ParameterError), match=message):
        InMemoryExampleGen(FRAME, **parameters).execute(tmp_path)
