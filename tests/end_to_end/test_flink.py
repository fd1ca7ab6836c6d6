"""Apache Flink, for real: a job server with a cluster in it, and a cluster of processes on loopback."""

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys

import pytest

from tests.conftest import HOUSE


@pytest.fixture
def ports():
    """The environment in which a cluster takes ports that are free."""
    names, sockets = ("JOB_PORT", "REST_PORT", "RPC_PORT"), [socket.socket() for _ in range(3)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    found = {name: str(one.getsockname()[1]) for name, one in zip(names, sockets)}
    for one in sockets:
        one.close()
    return {**os.environ, **found}


@pytest.mark.slow
def test_the_guide_gives_the_same_statistics_on_every_runner(tmp_path, taxi_csv, ports):
    """The commands of docs/FLINK.md, one after the other."""
    for program in ("java", "mvn"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    (tmp_path / "trips.csv").symlink_to(taxi_csv)
    found = []
    try:
        for block in re.findall(r"```bash\n(.*?)```", (HOUSE / "docs" / "FLINK.md").read_text(), re.S):
            for line in block.splitlines():
                words = shlex.split(line.replace("127.0.0.1:8099", f"127.0.0.1:{ports['JOB_PORT']}"))
                if words[0] == "python":
                    words[:2] = [sys.executable, str(HOUSE / "run_pipeline.py")]
                else:
                    words[0] = str(HOUSE / words[0])
                with open(tmp_path / "output", "w+") as output:  # a pipe would stay open in the cluster
                    done = subprocess.run(words, cwd=tmp_path, env=ports, stdout=output, stderr=output)
                    output.seek(0)
                    assert done.returncode == 0, (line, output.read())
                if "run" in words:
                    stages = tmp_path / "runs" / "artifacts" / "taxi" / "StatisticsGen"
                    newest = max(stages.iterdir(), key=lambda path: path.stat().st_mtime)
                    found.append((newest / "statistics" / "statistics.pb").read_bytes())
    finally:
        subprocess.run([str(HOUSE / "benchmarks" / "flink" / "cluster.sh"), "stop"])
    assert len(list(stages.iterdir())) == len(found) == 5 and len(set(found)) == 1
