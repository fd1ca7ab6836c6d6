"""Compare SqlExampleGen's reader with pandas, by number of rows and database: `python benchmarks/sql.py`.

Both read the same rows through SQLAlchemy in batches of 8,192, alternately in one process. PostgreSQL is started on
loopback if it is installed.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

import pandas as pd  # noqa: E402
import sqlalchemy  # noqa: E402

from kerasline.components.data.sources.sql import ROWS_PER_BATCH, SqlSource  # noqa: E402

COLUMNS = "id, miles, fare, company"
QUERY = f"SELECT {COLUMNS} FROM trips"


def read_by_kerasline(url: str) -> int:
    return sum(batch.num_rows for batch in SqlSource(url).batches(QUERY))


def read_by_pandas(url: str) -> int:
    engine = sqlalchemy.create_engine(url)
    with engine.connect().execution_options(stream_results=True) as connection:
        return sum(len(chunk) for chunk in pd.read_sql(sqlalchemy.text(QUERY), connection, chunksize=ROWS_PER_BATCH))


def fill(url: str, rows: int) -> None:
    if url.startswith("sqlite"):
        numbers = f"(WITH RECURSIVE g(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM g LIMIT {rows}) SELECT n FROM g) AS g"
    else:
        numbers = f"generate_series(0, {rows - 1}) AS g(n)"
    columns = "n AS id, n / CAST(7 AS DOUBLE PRECISION) AS miles, n % 97 AS fare, 'Company ' || n % 50 AS company"
    with sqlalchemy.create_engine(url).begin() as connection:
        connection.execute(sqlalchemy.text("DROP TABLE IF EXISTS trips"))
        connection.execute(sqlalchemy.text(f"CREATE TABLE trips AS SELECT {columns} FROM {numbers}"))


@contextlib.contextmanager
def databases(folder: str) -> Iterator[dict[str, str]]:
    """Yield the URL of an empty database by product."""
    found = {"SQLite": f"sqlite:///{folder}/trips.db"}
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(BaseException):  # the helper of the tests skips where PostgreSQL is missing
            from tests.postgres import running_server

            url = stack.enter_context(stack.enter_context(running_server()).new_database())
            found["PostgreSQL"] = url.replace("postgresql://", "postgresql+psycopg://")
        yield found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="*", default=[4_000, 100_000, 1_000_000])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print("| database | rows | SqlExampleGen's reader, s | pandas.read_sql in chunks, s |\n|---|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder, databases(folder) as urls:
        for name, url in urls.items():
            for rows in options.rows:
                fill(url, rows)
                best = {read_by_kerasline: float("inf"), read_by_pandas: float("inf")}
                for _ in range(options.rounds):
                    for read in best:
                        gc.collect()
                        clock = time.perf_counter()
                        assert read(url) == rows
                        best[read] = min(best[read], time.perf_counter() - clock)
                print(f"| {name} | {rows:,} | {best[read_by_kerasline]:.2f} | {best[read_by_pandas]:.2f} |", flush=True)


if __name__ == "__main__":
    main()
