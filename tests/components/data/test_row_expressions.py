"""Conditions on rows give the rows that SQLite gives."""

import random
import sqlite3

import pyarrow as pa
import pytest

from kerasline.components.core.errors import DataError, ParameterError
from kerasline.components.data.row_expressions import RowExpression

DICE = random.Random(0)
ROWS = [
    (DICE.choice([None, *range(-3, 4)]), DICE.choice([None, -1.5, 0.0, 2.5]), DICE.choice([None, "a", "b'c", "a b"]))
    for _ in range(200)
]
BATCH = pa.RecordBatch.from_pydict({name: [row[i] for row in ROWS] for i, name in enumerate(["n", "x", "t u"])})


@pytest.fixture(scope="module")
def database():
    connection = sqlite3.connect(":memory:")
    connection.execute('CREATE TABLE rows (number INTEGER, n INTEGER, x REAL, "t u" TEXT)')
    connection.executemany("INSERT INTO rows VALUES (?, ?, ?, ?)", [(i, *row) for i, row in enumerate(ROWS)])
    return connection


@pytest.mark.parametrize(
    "condition",
    [
        "n > 0",
        "n = 1 OR x < 0 AND n <> 2",
        "(n == 1 or x < 0) and n != 2",
        "NOT n >= 1",
        "not (n > 0 or x > 0)",
        "x IS NULL",
        "n IS NOT NULL AND x is not null",
        "n IN (1, 2, -3)",
        "n NOT IN (1, 2)",
        "n BETWEEN -1 AND 2 AND x <= 2.5e0",
        "n NOT BETWEEN -1 AND 2",
        "\"t u\" = 'b''c'",
        "\"t u\" LIKE 'a%'",
        "\"t u\" NOT LIKE 'a_b'",
        "n * 2 + 1 > x - -.5",
        "n - 1 - 1 = 0",
        "`t u` IN ('a', 'b''c') AND 0 < n",
    ],
)
def test_rows_are_those_of_sqlite(database, condition):
    expected = [row for (row,) in database.execute(f"SELECT number FROM rows WHERE {condition} ORDER BY number")]
    numbered = BATCH.append_column("number", pa.array(range(len(ROWS))))
    assert RowExpression(condition, "rows").filter(numbered)["number"].to_pylist() == expected


@pytest.mark.parametrize(
    "condition", ["", "n >", "n > 0)", "n ? 1", "n > 'a", "n IN ()", "NOT", "n BETWEEN 1", "n > 0 n"]
)
def test_text_that_is_no_condition_is_an_error(condition):
    with pytest.raises(ParameterError, match="ExampleGen.rows: expected a condition such as"):
        RowExpression(condition, "ExampleGen.rows")


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("m > 0", "no column 'm'"),
        ("n = 'a'", "does not fit the types of the columns .n is int64"),
        ("n", "does not fit"),
        ("5", "does not fit"),
    ],
)
def test_condition_that_does_not_fit_the_data_is_an_error(condition, message):
    with pytest.raises(DataError, match=message):
        RowExpression(condition, "ExampleGen.rows").filter(BATCH)


def test_large_integers_are_compared_with_fractions():
    batch = pa.RecordBatch.from_pydict({"n": [2**40, 2, -(2**40)]})
    for condition, expected in (("n > 2.5", [2**40]), ("n / 2.0 = 1.0", [2]), ("n < -2.5", [-(2**40)])):
        assert RowExpression(condition, "rows").filter(batch).column("n").to_pylist() == expected
