"""What the tests share: data, builders of small artifacts, and the command line as a process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
HOUSE = Path(__file__).resolve().parent.parent
SHARED_DATA = HOUSE.parent / "shared" / "data"
FASHION = Path("/usr/share/datasets/fashion-mnist")


@pytest.fixture
def make_examples(tmp_path):
    """Writes an Examples artifact of `{split: {column: values}}`, in shards of `shard_rows`."""
    import pyarrow as pa

    from components.artifacts import Examples
    from components.columnar import shards

    def make(splits, name="examples"):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        with shards.ExamplesWriter(Examples(folder), list(splits)) as writer:
            for split, columns in splits.items():
                batch = columns if isinstance(columns, pa.RecordBatch) else pa.RecordBatch.from_pydict(columns)
                writer.write(split, batch)
        return Examples(folder)

    return make


@pytest.fixture
def taxi_csv() -> Path:
    path = SHARED_DATA / "tfx" / "chicago_taxi_simple.csv"
    if not path.exists():
        pytest.skip(f"the Chicago taxi sample is not at {path}")
    return path


@pytest.fixture
def fashion_folder() -> Path:
    if not (FASHION / "train-images-idx3-ubyte.gz").exists():
        pytest.skip("the IDX files of Debian's package dataset-fashion-mnist are not installed")
    return FASHION


@pytest.fixture(scope="session")
def postgres():
    """A PostgreSQL server of the tests' own; see `tests.postgres`."""
    from tests.postgres import running_server

    with running_server() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request, tmp_path):
    """Where a metadata store may be made: a test that takes it runs on both databases."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'metadata.sqlite'}"
        return
    with request.getfixturevalue("postgres").new_database() as url:
        yield url


@pytest.fixture
def cli(tmp_path):
    """Calls the command line in a process of its own; `.summary` is what --json wrote."""

    def call(*arguments, wait=True, cwd=tmp_path):
        command = [sys.executable, str(HOUSE / "run_pipeline.py"), *map(str, arguments)]
        if not wait:
            return subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        result = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=600)
        if "--json" in arguments and "-" not in arguments:
            path = Path(arguments[arguments.index("--json") + 1])
            result.summary = json.loads(path.read_text()) if path.exists() else None
        return result

    return call
