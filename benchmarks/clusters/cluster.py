"""Flink or Spark on this host: a master, workers, Beam's job server and a pool of Python workers.

    python benchmarks/clusters/cluster.py start flink --workers 2
    python benchmarks/clusters/cluster.py start spark --workers 2
    python benchmarks/clusters/cluster.py stop flink

`start` prints the Beam options to use. It needs Java 11 or 17, Maven, and for Spark PySpark 3.5 (or SPARK_HOME).
Maven builds the job server once, in build/clusters. All processes listen only on loopback.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
BUILT = REPOSITORY / "build" / "clusters"
sys.path.insert(0, str(REPOSITORY))  # as a script, this file knows only its own folder

from benchmarks.clusters import flink, spark  # noqa: E402
from benchmarks.clusters.settings import Process, Settings  # noqa: E402

ENGINES = {"flink": flink, "spark": spark}
READY_SECONDS, STOP_SECONDS = 120, 10


class ClusterError(Exception):
    """A cluster cannot be started. The message says why."""


def main() -> None:
    given = _parsed()
    try:
        if given.action == "stop":
            stop(given.home or BUILT / given.engine)
        else:
            print(" ".join(start(given.engine, _settings(given))))
    except ClusterError as error:
        sys.exit(f"{given.engine}: {error}")


def start(engine: str, settings: Settings) -> list[str]:
    """Start all processes and wait until the cluster accepts work.

    Returns:
        The Beam options to use the cluster.

    Raises:
        ClusterError: a program is not installed, a port is in use, or a process ended.
    """
    module = ENGINES[engine]
    missing = [program for program in ("java", "mvn") if shutil.which(program) is None] or module.missing()
    if missing:
        raise ClusterError(f"{missing[0]} is not installed")
    if list(settings.home.glob("*.pid")):
        raise ClusterError(f"a cluster runs already, or did: {Path(__file__).name} stop {engine}")
    settings.home.mkdir(parents=True, exist_ok=True)
    for process in [*module.processes(job_server(engine), settings), _worker_pool(settings)]:
        _launch(process, settings.home)
    try:
        _wait(module, settings)
    except ClusterError:
        stop(settings.home)
        raise
    return _beam_options(settings)


def stop(home: Path) -> None:
    """End all processes that were started with this home, if any are left."""
    files = sorted(home.glob("*.pid"))
    found = [int(file.read_text()) for file in files]
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in filter(_is_alive, found):
            os.kill(pid, number)
        deadline = time.monotonic() + STOP_SECONDS
        while any(map(_is_alive, found)) and time.monotonic() < deadline:
            time.sleep(0.1)
    for file in files:
        file.unlink()


def job_server(engine: str) -> Path:
    """Return the jar of Beam's job server, built on first use."""
    jar = BUILT / f"{engine}-job-server.jar"
    if not jar.exists():
        BUILT.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=BUILT) as folder:
            shutil.copy(HERE / "pom.xml", folder)
            for sources in filter(Path.is_dir, (HERE / "java" / "both", HERE / "java" / engine)):
                shutil.copytree(sources, Path(folder, "src", "main", "java"), dirs_exist_ok=True)
            built = subprocess.run(
                ["mvn", "--batch-mode", "--quiet", "package", "-P", engine], cwd=folder, capture_output=True, text=True
            )
            if built.returncode:
                raise ClusterError(f"Maven could not build the job server: {built.stdout[-1000:]}")
            os.replace(Path(folder, "target", "job-server.jar"), jar)
    return jar


def _worker_pool(settings: Settings) -> Process:
    """Return a pool of SDK workers separate from the submitting process, as on a cluster of several hosts."""
    command = [sys.executable, "-m", "kerasline.pipeline.runners.worker_pool", f"--port={settings.pool_port}"]
    return Process("pool", command, {"PYTHONPATH": str(REPOSITORY)})


def _launch(process: Process, home: Path) -> None:
    with open(home / f"{process.name}.log", "w") as log:
        started = subprocess.Popen(
            process.command,
            cwd=home,
            env={**os.environ, **process.environment},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    (home / f"{process.name}.pid").write_text(str(started.pid))


def _wait(engine, settings: Settings) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while not (engine.is_ready(settings) and settings.is_open(settings.job_port, settings.pool_port)):
        ended = [file.stem for file in settings.home.glob("*.pid") if not _is_alive(int(file.read_text()))]
        if ended or time.monotonic() > deadline:
            name = ended[0] if ended else "jobserver"
            last = (settings.home / f"{name}.log").read_text(errors="replace").strip()[-1000:]
            raise ClusterError(f"{name} {'ended' if ended else 'is not ready'}; its log ends with: {last}")
        time.sleep(0.2)


def _beam_options(settings: Settings) -> list[str]:
    return [
        "--runner=PortableRunner",
        f"--job_endpoint=127.0.0.1:{settings.job_port}",
        "--environment_type=EXTERNAL",
        f"--environment_config=127.0.0.1:{settings.pool_port}",
        f"--parallelism={max(settings.workers, 1)}",
    ]


def _is_alive(pid: int) -> bool:
    try:
        os.waitpid(pid, os.WNOHANG)  # reaps a child that has ended, which is a zombie until then
    except ChildProcessError:
        pass
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _settings(given: argparse.Namespace) -> Settings:
    chosen = {name: value for name, value in vars(given).items() if name not in ("action", "engine", "home")}
    return Settings(home=given.home or BUILT / given.engine, **chosen)


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=["start", "stop"])
    parser.add_argument("engine", choices=list(ENGINES))
    parser.add_argument("--home", type=Path, help="folder of logs and process ids; build/clusters/ENGINE by default")
    parser.add_argument("--workers", type=int, default=2, help="number of workers; 0: inside the job server")
    parser.add_argument("--slots", type=int, default=4, help="concurrent tasks per worker")
    parser.add_argument("--job-port", type=int, default=8099, help="port of Beam's job server")
    parser.add_argument("--pool-port", type=int, default=50000, help="port of the pool of Python workers")
    parser.add_argument("--master-port", type=int, default=6123)
    parser.add_argument("--web-port", type=int, default=8081, help="port of the engine's web page")
    given = parser.parse_args()
    given.home = given.home and given.home.resolve()
    return given


if __name__ == "__main__":
    main()
