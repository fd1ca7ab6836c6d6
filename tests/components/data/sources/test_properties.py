"""What another library wrote is read equal, or refused by name: every kind of file, and SQL."""

import contextlib
import json
import math
import sqlite3
import uuid

import fastavro
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from kerasline.components.core.errors import DataError
from kerasline.components.data.quarantine import Quarantine
from kerasline.components.data.sources.avro_files import AvroSource
from kerasline.components.data.sources.json_lines import JsonSource
from kerasline.components.data.sources.memory import MemorySource
from kerasline.components.data.sources.parquet_files import ParquetSource
from kerasline.components.data.sources.source import SchemaChanged
from kerasline.components.data.sources.sql import SqlSource

INTEGERS = st.integers(-(2**63), 2**63 - 1)
LARGE = st.one_of(INTEGERS, st.integers(-(10**25), 10**25), st.integers(2**53 - 2, 2**53 + 2))
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6) | st.sampled_from(
    ["", "NA", "null", "2024-01-01", "01234", "True", "1e5"]
)
BOOLEANS = st.booleans()
SCALARS = [INTEGERS, LARGE, FLOATS, LARGE | FLOATS, TEXTS, BOOLEANS, TEXTS | LARGE, BOOLEANS | INTEGERS]
LISTS = [st.lists(kind | st.none(), max_size=3) for kind in (INTEGERS, FLOATS, TEXTS, LARGE | FLOATS)]
EXAMPLES = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)


def columns(kinds):
    """Generate columns `a` and `b`, a list of each of one kind, with values missing here and there."""
    column = st.sampled_from(kinds).flatmap(lambda kind: st.lists(kind | st.none(), min_size=4, max_size=4))
    return st.fixed_dictionaries({"a": column, "b": column})


def read(source, part):
    """Read a part as ExampleGen does, and return its columns."""
    while True:
        try:
            batches = list(source.batches(part))
            if not source.merge_inferred([source.inferred]):
                return pa.Table.from_batches(batches).to_pydict()
        except SchemaChanged:
            continue


def is_equal(found, written):
    if isinstance(found, list):  # a single value is a list of one in a column of lists
        written = written if isinstance(written, list) else [written]
        return len(found) == len(written) and all(map(is_equal, found, written))
    if written is None or isinstance(written, str):
        return type(found) is type(written) and found == written
    return isinstance(found, (int, float)) and found == written  # exact, also between int, float and bool


def check(source, part, written, place):
    """Check that the columns are read as they were written, or that one line names the place and a column."""
    try:
        found = read(source, part)
    except DataError as error:
        message = str(error)
        assert place in message and ("'a'" in message or "'b'" in message) and "\n" not in message, message
        return
    for name, values in written.items():
        if name in found:
            assert all(map(is_equal, found[name], values)), (values, found[name])
        else:  # a column without any value
            assert not any(value not in (None, []) for value in values)


@EXAMPLES
@given(written=columns([*SCALARS, *LISTS]))
def test_json_lines(tmp_path, written):
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(json.dumps(dict(zip(written, row))) for row in zip(*written.values())))
    check(JsonSource(Quarantine(None), {}), [file], written, str(file))


def test_json_lists_may_begin_with_null(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text('{"a": null}\n{"a": [null, null, 1]}\n{"a": [2]}')
    assert read(JsonSource(Quarantine(None), {}), [file]) == {"a": [None, [None, None, 1], [2]]}


@EXAMPLES
@given(first=columns([*SCALARS, *LISTS]), second=columns([*SCALARS, *LISTS]))
def test_parquet_files_with_different_types(tmp_path, first, second):
    files, written = [], {name: first[name] + second[name] for name in first}
    for number, part in enumerate((first, second)):
        files.append(tmp_path / f"{number}.parquet")
        try:
            pq.write_table(pa.table({name: pa.array(values) for name, values in part.items()}), files[-1])
        except (pa.ArrowException, OverflowError):
            assume(False)  # Arrow itself has no type for these values
    check(ParquetSource(Quarantine(None), {}), files, written, str(tmp_path))


@EXAMPLES
@given(written=columns([INTEGERS, FLOATS, TEXTS, BOOLEANS]))
def test_avro_files(tmp_path, written):
    names = {int: "long", float: "double", str: "string", bool: "boolean"}
    fields = []
    for name, values in written.items():
        kinds = {type(value) for value in values if value is not None} or {str}
        fields.append({"name": name, "type": ["null", names[kinds.pop()]]})
    file = tmp_path / "rows.avro"
    with file.open("wb") as out:
        schema = {"type": "record", "name": "row", "fields": fields}
        fastavro.writer(out, schema, [dict(zip(written, row)) for row in zip(*written.values())])
    check(AvroSource(Quarantine(None), {}), [file], written, str(file))


@EXAMPLES
@given(written=columns([INTEGERS, FLOATS, INTEGERS | FLOATS, TEXTS, TEXTS | INTEGERS]))
def test_sql(tmp_path, written):
    file = tmp_path / f"{uuid.uuid4()}.db"
    with contextlib.closing(sqlite3.connect(file)) as database, database:
        database.execute("CREATE TABLE rows (a, b)")
        database.executemany("INSERT INTO rows VALUES (?, ?)", zip(written["a"], written["b"]))
    check(SqlSource(f"sqlite:///{file}"), "SELECT a, b FROM rows", written, str(file))


@EXAMPLES
@given(written=columns([INTEGERS, FLOATS, TEXTS, BOOLEANS, *LISTS]))
def test_data_frames(written):
    try:
        table = pa.table(pd.DataFrame({name: pd.Series(values, dtype=object) for name, values in written.items()}))
    except (pa.ArrowException, OverflowError):
        assume(False)
    check(MemorySource(), table, written, "")


def test_comparison_is_exact():
    assert is_equal(2.0**53, 2**53) and not is_equal(float(2**53 + 2), 2**53 + 1)
    assert not is_equal("1", 1) and not is_equal(1, "1") and not is_equal(math.nan, 1.0)


@pytest.mark.parametrize("wrong", [{"a": [1.0], "b": [2]}, {"a": [2**53]}])
def test_check_finds_a_changed_value(wrong):
    with pytest.raises(AssertionError):
        check(MemorySource(), pa.table({"a": [0.5], "b": [2]}), wrong, "")
