"""Values reach the examples exactly, or an error names their file, column and value."""

import itertools
import json
import sqlite3
import sys
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kerasline import InMemoryExampleGen, JsonExampleGen, ParquetExampleGen, SqlExampleGen
from kerasline.components.core.errors import DataError, ParameterError
from kerasline.components.data.sources.json_lines import JsonSource
from kerasline.components.data.sources.sql import ROWS_PER_BATCH, SqlSource

ALL = {"all": 1}
ID, TOO_LARGE = 1234567890123456789, 12345678901234567891


def read(stage, folder):
    return stage.execute(folder / "out").examples.read("all")


def write_json(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_parquet(path, **columns):
    pq.write_table(pa.table(columns), path)


@pytest.mark.parametrize("rows", [[{"id": TOO_LARGE}], [{"id": ID}, {"id": 1.5}], [{"of": {"id": [ID, 1.5]}}]])
def test_rounded_integer_of_json_is_an_error(tmp_path, rows):
    write_json(tmp_path / "a.jsonl", *rows)
    with pytest.raises(DataError, match=rf"a.jsonl, line 1: column '(of\.)?id': ({ID}|{TOO_LARGE}) .*column_types"):
        read(JsonExampleGen(str(tmp_path / "a.jsonl"), splits=ALL), tmp_path)


def test_fraction_in_a_later_json_file_does_not_round_earlier_ids(tmp_path):
    write_json(tmp_path / "1.jsonl", {"id": ID})
    write_json(tmp_path / "2.jsonl", {"id": 1.5})
    with pytest.raises(DataError, match=rf"1.jsonl, from line 1: column 'id': {ID} has no exact float64.*=string"):
        read(JsonExampleGen(str(tmp_path / "*.jsonl"), splits=ALL), tmp_path)
    text = JsonExampleGen(str(tmp_path / "*.jsonl"), splits=ALL, column_types={"id": "string"})
    assert read(text, tmp_path)["id"].to_pylist() == [str(ID), "1.5"]


def test_rounding_can_be_declared(tmp_path):
    write_json(tmp_path / "a.jsonl", {"id": ID}, {"id": 1.5})
    stage = JsonExampleGen(str(tmp_path / "a.jsonl"), splits=ALL, column_types={"id": "double"})
    assert read(stage, tmp_path)["id"].to_pylist() == [float(ID), 1.5]


def test_json_values_are_read_as_text_as_they_are_spelled(tmp_path):
    (tmp_path / "a.jsonl").write_text(
        '{"u": {"id": 1.50}, "id": 1}\n{"u": {"id": "x"}}\n{"u": {"id": true}}\n{"u": {}}\n'
    )
    stage = JsonExampleGen(str(tmp_path / "a.jsonl"), splits=ALL, column_types={"u.id": "string"})
    assert read(stage, tmp_path).to_pydict() == {"u.id": ["1.50", "x", "true", None], "id": [1, None, None, None]}


def test_json_text_that_looks_like_a_date_stays_text(tmp_path):
    write_json(tmp_path / "1.jsonl", *[{"d": "2024-01-01", "of": [{"t": "2024-01-01T10:00:00Z"}]}] * 3)
    write_json(tmp_path / "2.jsonl", {"d": "n/k", "of": []}, {"d": "NA", "of": [{"t": "null"}]})
    assert read(JsonExampleGen(str(tmp_path / "*.jsonl"), splits=ALL), tmp_path).to_pydict() == {
        "d": ["2024-01-01"] * 3 + ["n/k", "NA"],
        "of.t": [["2024-01-01T10:00:00Z"]] * 3 + [[], ["null"]],
    }


def test_many_bad_json_lines_are_found_in_few_passes(tmp_path, monkeypatch):
    rows = [{"a": "x" if number % 50 == 49 else number} for number in range(20_000)]
    write_json(tmp_path / "a.jsonl", *rows)
    parsed = []
    parse = JsonSource._consistent.__globals__["_parse"]
    monkeypatch.setitem(
        JsonSource._consistent.__globals__,
        "_parse",
        lambda block, types: parsed.append(len(block)) or parse(block, types),
    )
    done = JsonExampleGen(str(tmp_path / "a.jsonl"), splits=ALL, bad_rows="quarantine").execute(tmp_path / "out")
    assert done.metrics["quarantined"] == 400
    assert sum(parsed) < 15 * (tmp_path / "a.jsonl").stat().st_size


def test_parquet_ids_are_not_rounded_by_a_float_file(tmp_path):
    write_parquet(tmp_path / "1.parquet", id=[ID, 2])
    write_parquet(tmp_path / "2.parquet", id=[0.5])
    with pytest.raises(DataError, match=rf"1.parquet, row group 0: column 'id': {ID} has no exact float64.*=string"):
        read(ParquetExampleGen(str(tmp_path / "*.parquet"), splits=ALL), tmp_path)
    text = ParquetExampleGen(str(tmp_path / "*.parquet"), splits=ALL, column_types={"id": "string"})
    assert read(text, tmp_path)["id"].to_pylist() == [str(ID), "2", "0.5"]


def test_large_integers_with_an_exact_float_may_join_fractions(tmp_path):
    write_parquet(tmp_path / "1.parquet", id=[2**60, -(2**62), None])
    write_parquet(tmp_path / "2.parquet", id=[0.5])
    found = read(ParquetExampleGen(str(tmp_path / "*.parquet"), splits=ALL), tmp_path)
    assert found["id"].to_pylist() == [2.0**60, -(2.0**62), None, 0.5]


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        (pa.array([TOO_LARGE], pa.uint64()), f"{TOO_LARGE} not in range"),
        (pa.array([Decimal("12345678901234567890.12")]), "12345678901234567890.12 has no exact float64"),
        (pa.array([[Decimal(TOO_LARGE)]]), f"{TOO_LARGE} has no exact float64"),
    ],
)
def test_value_that_no_example_can_hold_is_an_error(tmp_path, values, problem):
    write_parquet(tmp_path / "a.parquet", x=values)
    with pytest.raises(DataError, match=f"a.parquet, row group 0: column 'x': .*{problem}.*column_types.x=string"):
        read(ParquetExampleGen(str(tmp_path / "a.parquet"), splits=ALL), tmp_path)
    with pytest.raises(DataError, match=f"column 'x': .*{problem}.*convert the column"):
        read(InMemoryExampleGen(pa.table({"x": values}), splits=ALL), tmp_path / "memory")


def test_type_that_no_example_can_hold_is_an_error(tmp_path):
    table = pa.table({"x": pa.array([(1, 2, 3)], pa.month_day_nano_interval())})
    with pytest.raises(DataError, match="column 'x': Unsupported cast from month_day_nano_interval"):
        read(InMemoryExampleGen(table, splits=ALL), tmp_path)


@pytest.mark.parametrize("digits", range(1, 16))
def test_decimals_become_the_nearest_floats(tmp_path, digits):
    numbers = [
        Decimal(sign * (10**digits // 7 + k)).scaleb(-scale) for sign in (1, -1) for k in range(9) for scale in (0, 2)
    ]
    found = read(InMemoryExampleGen({"x": [*numbers, None]}, splits=ALL), tmp_path)
    assert found["x"].to_pylist() == [*map(float, numbers), None]


def test_equal_times_of_different_units_are_equal_texts(tmp_path):
    half = {"s": 1, "ms": 1500, "us": 1_500_000, "ns": 1_500_000_000}
    for unit, count in half.items():
        kind = pa.time32(unit) if unit in ("s", "ms") else pa.time64(unit)
        write_parquet(
            tmp_path / f"{unit}.parquet",
            at=pa.array([count, None], pa.timestamp(unit)),
            clock=pa.array([count, None], kind),
            took=pa.array([count, None], pa.duration(unit)),
        )
    found = read(ParquetExampleGen(str(tmp_path / "*.parquet"), splits=ALL), tmp_path).to_pydict()
    assert set(found["at"]) == {"1970-01-01 00:00:01.000000", "1970-01-01 00:00:01.500000", None}
    assert set(found["clock"]) == {"00:00:01.000000", "00:00:01.500000", None}
    assert set(found["took"]) == {10**9, 15 * 10**8, None}
    precise = pa.table({"at": pa.array([1], pa.timestamp("ns", "UTC"))})
    assert read(InMemoryExampleGen(precise, splits=ALL), tmp_path / "b")["at"].to_pylist() == [
        "1970-01-01 00:00:00.000000001Z"
    ]


@pytest.mark.parametrize(
    ("column", "problem"),
    [
        ([2**70], "too large"),
        (["a", 1], "tried to convert|Expected bytes"),
        (pd.period_range("2024-01", periods=2, freq="M"), "values of type pandas.period have no counterpart"),
    ],
)
def test_column_in_memory_that_does_not_fit_is_named(tmp_path, column, problem):
    data = pd.DataFrame({"x": column}) if isinstance(column, pd.PeriodIndex) else {"x": column}
    with pytest.raises(DataError, match=f"ExampleGen.input: column 'x': .*{problem}.*; convert the column"):
        read(InMemoryExampleGen(data, splits=ALL), tmp_path)


def test_index_of_selected_rows_is_no_column_and_arrays_are_tensors(tmp_path):
    frame = pd.DataFrame({"x": [1, 2, 3]})
    assert read(InMemoryExampleGen(frame[frame.x > 1], splits=ALL), tmp_path / "a").to_pydict() == {"x": [2, 3]}
    indexed = read(InMemoryExampleGen(frame.set_index(pd.Index([7, 8, 9], name="id")), splits=ALL), tmp_path / "b")
    assert indexed["id"].to_pylist() == [7, 8, 9]
    images = read(InMemoryExampleGen({"x": np.arange(12).reshape(3, 2, 2)}, splits=ALL), tmp_path / "c")
    assert images["x"].combine_chunks().to_numpy_ndarray().tolist() == np.arange(12).reshape(3, 2, 2).tolist()


def test_column_without_a_name_is_an_error(tmp_path):
    write_json(tmp_path / "a.jsonl", {"a": 1, "": 2})
    with pytest.raises(DataError, match="column 2 has no name; name it"):
        read(JsonExampleGen(str(tmp_path / "a.jsonl"), splits=ALL), tmp_path)


def test_unknown_declared_column_is_an_error(tmp_path):
    write_parquet(tmp_path / "a.parquet", ident=[1])
    with pytest.raises(DataError, match="no column 'idnt', .*did you mean 'ident'"):
        read(ParquetExampleGen(str(tmp_path / "*.parquet"), splits=ALL, column_types={"idnt": "string"}), tmp_path)
    with pytest.raises(ParameterError, match="column_types.ident: expected the name of an Arrow type"):
        read(ParquetExampleGen(str(tmp_path / "*.parquet"), splits=ALL, column_types={"ident": "text"}), tmp_path)


def test_nested_values_keep_their_structure_and_nulls(tmp_path):
    rows = [
        {"a": [{"b": [{"c": 1, "d": ["x"]}, {"c": None, "d": None}]}, None], "deep": [[[1, None], None], None, []]},
        {"a": None, "deep": None},
        {"a": [{"b": None}, {"b": []}], "deep": []},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    write_json(tmp_path / "a.jsonl", *rows)
    for kind, name in ((ParquetExampleGen, "a.parquet"), (JsonExampleGen, "a.jsonl")):
        assert read(kind(str(tmp_path / name), splits=ALL), tmp_path / name[-5:]).to_pydict() == {
            "a.b.c": [[[1, None], None], None, [None, []]],
            "a.b.d": [[[["x"], None], None], None, [None, []]],
            "deep": [[[[1, None], None], None, []], None, []],
        }


def test_maps_in_maps_become_lists_of_keys_and_values(tmp_path):
    kind = pa.map_(pa.string(), pa.map_(pa.string(), pa.int32()))
    table = pa.table({"m": pa.array([[("k", [("z", 1)])], None, []], kind)})
    assert read(InMemoryExampleGen(table, splits=ALL), tmp_path).to_pydict() == {
        "m.key": [["k"], None, []],
        "m.value.key": [[["z"]], None, []],
        "m.value.value": [[[1]], None, []],
    }


def database(path, kind, values):
    with sqlite3.connect(path) as connection:
        connection.execute(f"CREATE TABLE t (x {kind})")
        connection.executemany("INSERT INTO t VALUES (?)", ((value,) for value in values))
    return f"sqlite:///{path}"


def test_query_is_read_in_large_batches(tmp_path):
    url = database(tmp_path / "a.db", "INTEGER", range(ROWS_PER_BATCH * 2 + 1))
    sizes = [batch.num_rows for _, batch in SqlSource(url)._read("SELECT * FROM t")]
    assert sizes == [ROWS_PER_BATCH, ROWS_PER_BATCH, 1]


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ([*[ID] * ROWS_PER_BATCH, 0.5], f"from row 0: column 'x': {ID} has no exact float64"),
        (["a", 1], "from row 0: column 'x': 1 after 'a'"),
    ],
)
def test_value_of_a_query_that_does_not_fit_is_an_error(tmp_path, values, problem):
    url = database(tmp_path / "a.db", "", values)
    with pytest.raises(DataError, match=problem + ".*cast the column in ExampleGen.query"):
        read(SqlExampleGen(url, query="SELECT * FROM t", splits=ALL), tmp_path)


def test_colons_and_percent_signs_of_a_query_are_characters(tmp_path):
    url = database(tmp_path / "a.db", "TEXT", ["a:b", "c"])
    found = read(SqlExampleGen(url, query="SELECT * FROM t WHERE x LIKE '%:b'", splits=ALL), tmp_path)
    assert found["x"].to_pylist() == ["a:b"]


def test_cost_of_a_query_grows_with_its_rows(tmp_path):
    """16 times the batches take at most 17 times the function calls: a batch does not look at the rows before it."""
    calls = []
    for rows in (6 * ROWS_PER_BATCH, 81 * ROWS_PER_BATCH):
        batches = SqlSource(database(tmp_path / f"{rows}.db", "INTEGER", range(rows))).batches("SELECT * FROM t")
        assert next(batches).num_rows  # Imports and connecting happen here, and are not counted.
        calls.append(calls_of(sum, (batch.num_rows for batch in batches)))
    assert calls[1] < 17 * calls[0]


def calls_of(function, *arguments):
    """Return how many functions of Python and C a call makes."""
    count = itertools.count()
    sys.setprofile(lambda frame, event, arg: next(count) if event in ("call", "c_call") else None)
    try:
        function(*arguments)
    finally:
        sys.setprofile(None)
    return next(count)
