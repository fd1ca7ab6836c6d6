"""A real Airflow 3 for the tests, in an environment of its own, controlled through its REST API."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.conftest import REPOSITORY
from tests.ports import free_port

FOLDER = REPOSITORY / "build" / "airflow"
# Versions that work together. Their dependencies are the newest that they allow.
PACKAGES = (
    "apache-airflow==3.3.2",
    "apache-airflow-providers-standard==1.21.0",
    "apache-airflow-providers-docker==4.6.1",
    "apache-airflow-providers-cncf-kubernetes==10.25.0",
)


def installed() -> Path:
    """Return the folder of Airflow's programs, after installing it there once.

    Raises:
        RuntimeError: it cannot be installed here.
    """
    mark = FOLDER / ".installed"
    if not mark.exists() or mark.read_text() != "\n".join(PACKAGES):
        FOLDER.mkdir(parents=True, exist_ok=True)
        pip = [str(FOLDER / "venv" / "bin" / "pip"), "install", "-q", "--disable-pip-version-check"]
        steps = ([sys.executable, "-m", "venv", "--clear", str(FOLDER / "venv")], [*pip, *PACKAGES])
        for step in steps:
            done = subprocess.run(step, capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(f"Airflow cannot be installed here: {done.stderr.strip()[-300:]}")
        mark.write_text("\n".join(PACKAGES))
    return FOLDER / "venv" / "bin"


class Airflow:
    """An AIRFLOW_HOME with a folder of DAG files, and the processes that use it.

    Args:
        home: a new folder.
        **variables: further environment variables of Airflow.
    """

    def __init__(self, home: Path, **variables: str) -> None:
        self.programs, self.home, self.dags = installed(), home, home / "dags"
        self.dags.mkdir(parents=True)
        self.port = free_port()
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("AIRFLOW", "PYTHON"))},
            "PATH": f"{self.programs}{os.pathsep}{os.environ['PATH']}",
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.dags),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__PARALLELISM": "4",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{self.port}/execution/",
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(self.port),
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "5",
            "AIRFLOW__SCHEDULER__ENABLE_HEALTH_CHECK": "False",
            "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.2",
            # Shared by the processes. Otherwise the first to start writes its own into airflow.cfg.
            "AIRFLOW__API_AUTH__JWT_SECRET": "for tests only, and no secret, but as long as it must be",
            "AIRFLOW__API__SECRET_KEY": "for tests only",
            "AIRFLOW__CORE__FERNET_KEY": "",
            **variables,
        }
        self._migrated = False
        self._token = ""

    def run(self, *arguments: Any, timeout: float = 1200) -> subprocess.CompletedProcess:
        """Call `airflow` and wait for its end."""
        self._migrate()
        return self._call(*arguments, timeout=timeout)

    def python(self, code: str, *arguments: Any) -> subprocess.CompletedProcess:
        """Run a program in Airflow's environment."""
        self._migrate()
        command = [str(self.programs / "python"), "-c", code, *map(str, arguments)]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=600)

    @contextlib.contextmanager
    def running(self) -> Iterator[Airflow]:
        """Run scheduler, DAG processor and API server, each in its own process group, within the block."""
        self._migrate()
        started = []
        try:
            for name in ("api-server", "scheduler", "dag-processor"):
                with (self.home / f"{name}.log").open("w") as log:
                    started.append(
                        subprocess.Popen(
                            [str(self.programs / "airflow"), name],
                            env=self.environment,
                            cwd=self.home,
                            stdout=log,
                            stderr=log,
                            start_new_session=True,
                        )
                    )
            wait(lambda: self._is_up(started), "the API server")
            yield self
        finally:
            for process in started:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGTERM)
            for process in started:
                try:
                    process.wait(30)
                except subprocess.TimeoutExpired:
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
            for process in self._left_over():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)

    def api(self, method: str, path: str, body: Any = None) -> Any:
        """Call the REST API and return its response."""
        if not self._token:
            self._token = self._request("GET", "/auth/token", None)["access_token"]
        return self._request(method, f"/api/v2/{path}", body)

    def trigger(self, dag_id: str, run_id: str, logical_date: str | None = None, **params: Any) -> str:
        """Start a run of a DAG once Airflow knows it, and return the id of the run."""
        wait(lambda: self._known(dag_id), f"DAG {dag_id}")
        self.api("PATCH", f"dags/{dag_id}", {"is_paused": False})
        body = {"dag_run_id": run_id, "logical_date": logical_date, "conf": params}
        return self.api("POST", f"dags/{dag_id}/dagRuns", body)["dag_run_id"]

    def state(self, dag_id: str, run_id: str) -> str:
        return self.api("GET", f"dags/{dag_id}/dagRuns/{run_id}")["state"]

    def finished(self, dag_id: str, run_id: str) -> dict[str, dict[str, Any]]:
        """Wait for the end of a run, and return its tasks by id."""
        wait(lambda: self.state(dag_id, run_id) in ("success", "failed"), f"{dag_id} {run_id}", 1500)
        return self.tasks(dag_id, run_id)

    def tasks(self, dag_id: str, run_id: str) -> dict[str, dict[str, Any]]:
        found = self.api("GET", f"dags/{dag_id}/dagRuns/{run_id}/taskInstances?limit=100")["task_instances"]
        return {one["task_id"]: one for one in found}

    def _migrate(self) -> None:
        if not self._migrated:
            done = self._call("db", "migrate", timeout=600)
            assert done.returncode == 0, done.stderr
            self._migrated = True

    def _call(self, *arguments: Any, timeout: float) -> subprocess.CompletedProcess:
        command = [str(self.programs / "airflow"), *map(str, arguments)]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=timeout)

    def _is_up(self, started: list[subprocess.Popen]) -> bool:
        for process in started:
            assert process.poll() is None, f"{process.args} ended; see {self.home}"
        try:
            return bool(self.api("GET", "monitor/health"))
        except (OSError, ValueError):
            return False

    def _left_over(self) -> list[int]:
        """Return the processes of tasks that outlived their parents. They all have this AIRFLOW_HOME."""
        ours, found = f"AIRFLOW_HOME={self.home}".encode(), []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if ours in (folder / "environ").read_bytes().split(b"\0"):
                    found.append(int(folder.name))
        return found

    def _known(self, dag_id: str) -> bool:
        try:
            return bool(self.api("GET", f"dags/{dag_id}"))
        except urllib.error.HTTPError:
            return False

    def _request(self, method: str, path: str, body: Any) -> Any:
        headers = {"Content-Type": "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.loads(answer.read() or "null")
        except urllib.error.HTTPError as error:
            error.msg = f"{error.msg}: {error.read().decode(errors='replace')[:500]}"
            raise


def wait(condition: Callable[[], Any], name: str, seconds: float = 300) -> Any:
    """Wait until the condition is true, and return its value."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.5)
    raise TimeoutError(f"{name} did not come within {seconds:.0f} s")
