"""Fixtures of several tests: data, builders of small artifacts, the command line, servers."""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import hypothesis
import pytest

from tests import forking
from tests.ports import free_port

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Without compiled files, each process of a run would compile the modules and rewrite the assertions of all tests anew.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in a shell's background job; children inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)
# On a machine with other work, any example may take long, the first one also for imports.
hypothesis.settings.register_profile("any load", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("any load")
REPOSITORY = Path(__file__).resolve().parent.parent
SHARED_DATA = REPOSITORY.parent / "shared" / "data"
FASHION = Path("/usr/share/datasets/fashion-mnist")


def pytest_collection_finish():
    """Exclude the libraries from garbage collection. Each stage collects, which would take 0.6 s with TensorFlow's."""
    gc.freeze()


@pytest.fixture
def make_examples(tmp_path):
    """Write an Examples artifact from `{split: {column: values}}`."""
    import pyarrow as pa

    from kerasline.components.core.artifacts import Examples
    from kerasline.components.data import shards

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
    """Return a PostgreSQL server for the tests. See `tests.postgres`."""
    from tests.postgres import running_server

    with running_server() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request, tmp_path):
    """Return the URL of an empty metadata store. Tests that use it run on both databases."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'metadata.sqlite'}"
        return
    with request.getfixturevalue("postgres").new_database() as url:
        yield url


@pytest.fixture
def cli(tmp_path):
    """Call the command line in a process. `.summary` of the result is the content of the --json file."""

    def call(*arguments, wait=True, cwd=tmp_path):
        command = [sys.executable, str(REPOSITORY / "run_pipeline.py"), *map(str, arguments)]
        if not wait:
            return forking.Forked(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        result = forking.run(command, cwd=cwd, capture_output=True, text=True, timeout=600)
        if "--json" in arguments and "-" not in arguments:
            path = Path(arguments[arguments.index("--json") + 1])
            result.summary = json.loads(path.read_text()) if path.exists() else None
        return result

    return call


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory):
    """Return the address of an S3 server on loopback, and its log with a line per request."""
    pytest.importorskip("moto.server")
    pytest.importorskip("s3fs")
    log = tmp_path_factory.mktemp("s3") / "requests.log"
    process, address = start_s3(log)
    yield address, log
    process.kill()
    process.wait()


def start_s3(log, port=None, **environment):
    """Start an S3 server and return its process and address. The caller ends it."""
    port = port or free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env={**os.environ, **environment})
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return process, f"http://127.0.0.1:{port}"
        except OSError:
            time.sleep(0.05)
    process.kill()
    raise RuntimeError(f"the S3 server did not start: {log.read_text()}")


@pytest.fixture(scope="module")
def s3(s3_server, request):
    """Return the URL of an empty bucket. This process and its children reach it by environment variables."""
    settings = {
        "AWS_ENDPOINT_URL": s3_server[0],
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    import s3fs

    bucket = request.module.__name__.rpartition(".")[2].replace("_", "-")
    s3fs.S3FileSystem().mkdir(bucket)
    yield f"s3://{bucket}"
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)
