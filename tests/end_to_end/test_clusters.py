"""Apache Flink and Apache Spark, for real: clusters of processes on loopback, and workers that are killed."""

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from benchmarks.clusters import spark
from tests.conftest import REPOSITORY, SHARED_DATA
from tests.end_to_end.documents import as_words, commands

pytestmark = pytest.mark.slow

CLUSTER = REPOSITORY / "benchmarks" / "clusters" / "cluster.py"
GUIDE = REPOSITORY / "docs" / "RUNNERS.md"
TAXI = SHARED_DATA / "tfx" / "chicago_taxi_simple.csv"
SPANS = 8
PORTS = {"--job-port": "8099", "--pool-port": "50000", "--master-port": "6123", "--web-port": "8081"}


def called(words, cwd, **more):
    """Run a command and return its output, which goes to a file because the cluster would keep a pipe open."""
    with open(cwd / "output.txt", "w+") as output:
        done = subprocess.run(list(map(str, words)), cwd=cwd, stdout=output, stderr=output, **more)
        output.seek(0)
        text = output.read()
    assert done.returncode == 0, (words, text)
    return text


def free_ports():
    """Return a free port for each port of a cluster."""
    sockets = [socket.socket() for _ in PORTS]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    found = dict(zip(PORTS, (str(one.getsockname()[1]) for one in sockets)))
    for one in sockets:
        one.close()
    return found


def skip_without(engine):
    for program in ("java", "mvn"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    if engine == "spark" and spark.missing():
        pytest.skip("neither PySpark 3.5 is installed nor SPARK_HOME set")
    if not TAXI.exists():
        pytest.skip(f"the Chicago taxi sample is not at {TAXI}")


class Cluster:
    def __init__(self, engine, home):
        self.home, self.engine = home, engine
        home.mkdir()
        ports = [f"{name}={port}" for name, port in free_ports().items()]
        self.options = shlex.split(called([sys.executable, CLUSTER, "start", engine, "--home", home, *ports], home))

    def pid(self, name):
        return int((self.home / f"{name}.pid").read_text())

    def python_workers(self):
        """Return the processes that the pool's server forked. Its first child tracks resources."""
        servers = [child for child in children(self.pid("pool")) if children(child)]
        return [worker for server in servers for worker in children(server)]


def children(pid):
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True).stdout
    return [int(word) for word in found.split()]


@pytest.fixture(scope="module", params=["flink", "spark"])
def cluster(request, tmp_path_factory):
    skip_without(request.param)
    home = tmp_path_factory.mktemp("cluster") / request.param
    try:
        yield Cluster(request.param, home)
    finally:
        subprocess.run([sys.executable, str(CLUSTER), "stop", request.param, "--home", str(home)], check=True)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Return a folder with the trips in spans."""
    skip_without("flink")
    folder = tmp_path_factory.mktemp("work")
    trips = pyarrow.csv.read_csv(TAXI)
    rows = -(-len(trips) // SPANS)
    for span in range(SPANS):
        pq.write_table(trips.slice(span * rows, rows), folder / f"trips-{span + 1}.parquet")
    return folder


@pytest.fixture(scope="module")
def direct(work):
    """Return the folder of a run in one process."""
    folder = prepared(work / "direct")
    called(command("data_stages.py"), folder)
    return folder


def prepared(folder, pause_seconds=0.0):
    folder.mkdir()
    shutil.copy(REPOSITORY / "tests" / "end_to_end" / "pipelines" / "data_stages.py", folder)
    settings = {"data": str(folder.parent / "trips-{SPAN}.parquet"), "pause_seconds": pause_seconds}
    (folder / "settings.json").write_text(json.dumps(settings))
    return folder


def command(*arguments):
    return [sys.executable, str(REPOSITORY / "run_pipeline.py"), "run", *map(str, arguments), "--json", "summary.json"]


def published(folder):
    """Return the files that the run of a folder published, by stage, output and name."""
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["state"] == "succeeded"
    return {
        (node["name"], output, str(file.relative_to(path))): file
        for node in summary["nodes"]
        if node["name"] not in ("ModelBuilder", "Exporter")
        for output, path in node["outputs"].items()
        for file in sorted(Path(path).rglob("*"))
        if file.is_file() and file.suffix != ".keras"  # contains the time; Transform's state is compared instead
    }


def assert_same(found, expected):
    """Assert equal bytes, or for predictions and evaluations equal values up to rounding.

    TensorFlow adds the results of several threads in varying order.
    """
    assert set(found) == set(expected)
    for key, file in found.items():
        if file.read_bytes() != expected[key].read_bytes():
            assert key[0] in ("Evaluator", "BulkInferrer"), key
            ours, theirs = leaves(file), leaves(expected[key])
            assert set(ours) == set(theirs), key
            for name in [name for name in ours if isinstance(ours[name], (str, type(None)))]:
                assert ours.pop(name) == theirs[name], (key, name)
            for name, value in ours.items():
                assert value == pytest.approx(theirs[name], rel=1e-3, abs=1e-5, nan_ok=True), (key, name)


def leaves(file):
    """Return the columns of a Parquet file, or the leaves of a JSON file, by name."""
    if file.suffix == ".parquet":
        columns = pq.read_table(file).to_pydict()
        return {name: np.stack(c) if isinstance(c[0], (list, np.ndarray)) else c for name, c in columns.items()}
    found = {}

    def walk(name, value):
        if isinstance(value, (dict, list)):
            for key, part in value.items() if isinstance(value, dict) else enumerate(value):
                walk(f"{name}/{key}", part)
        elif not name.endswith("/megabytes"):  # varies with the size of the SavedModel
            found[name] = value

    walk("", json.loads(file.read_text()))
    return found


def test_data_stages_agree_with_one_process(cluster, work, direct):
    """The workers are in a pool, separate from the submitting process, as on several hosts."""
    assert "--environment_type=EXTERNAL" in cluster.options
    folder = prepared(work / cluster.engine)
    called([*command("data_stages.py"), "--", *cluster.options], folder)
    found = published(folder)
    assert_same(found, published(direct))
    assert {stage for stage, _, _ in found} >= {
        "ExampleGen",
        "StatisticsGen",
        "Transform",
        "Evaluator",
        "BulkInferrer",
    }


@pytest.mark.long
@pytest.mark.parametrize("killed", ["a Python worker", "a worker of the engine"])
def test_killed_workers_are_replaced_with_the_same_result(cluster, work, direct, killed):
    folder = prepared(work / f"{cluster.engine}, {killed}", pause_seconds=0.5)
    root = direct / "runs"
    expected = {key: value for key, value in published(direct).items() if key[0] == "BulkInferrer"}
    again = command("data_stages.py", "--root", root, "--node", "BulkInferrer", "--no-cache")
    with open(folder / "output.txt", "w") as output:
        running = subprocess.Popen([*again, "--", *cluster.options], cwd=folder, stdout=output, stderr=output)
        deadline = time.monotonic() + 300
        while not (done := list((root / "state").rglob("*.parquet.json"))):
            assert running.poll() is None and time.monotonic() < deadline, (folder / "output.txt").read_text()
            time.sleep(0.05)
        assert len(done) < 3 * SPANS / 2  # most shards are still to come
        os.kill(cluster.python_workers()[-1] if "Python" in killed else cluster.pid("worker-1"), signal.SIGKILL)
        assert running.wait(300) == 0, (folder / "output.txt").read_text()
    assert_same(published(folder), expected)


def test_guide_gives_the_same_statistics_on_every_runner(tmp_path):
    """Run the commands of docs/RUNNERS.md in order, for the installed engines."""
    skip_without("flink")
    (tmp_path / "trips.csv").symlink_to(TAXI)
    lines = [line for line in commands(GUIDE) if "sample_trips" not in line]
    ports, found = free_ports(), []
    stages = tmp_path / "runs" / "artifacts" / "taxi" / "StatisticsGen"
    started = None
    try:
        for line in lines:
            for name, default in PORTS.items():
                line = line.replace(f"127.0.0.1:{default}", f"127.0.0.1:{ports[name]}")
            words = as_words(line)
            words[1:2] = [str(REPOSITORY / words[1])]
            if "cluster.py" in words[1]:
                if words[3] == "spark" and spark.missing():
                    break
                started = words[3] if "start" in words else None
                words += ["--home", str(tmp_path / words[3])]
                words += [f"{name}={port}" for name, port in ports.items()] if started else []
            called([sys.executable, *words[1:]], tmp_path)
            if "run" in words:
                newest = max(stages.iterdir(), key=lambda path: path.stat().st_mtime)
                found.append((newest / "statistics" / "statistics.pb").read_bytes())
    finally:
        if started:
            subprocess.run([sys.executable, str(CLUSTER), "stop", started, "--home", str(tmp_path / started)])
    assert len(found) >= 5 and len(set(found)) == 1
