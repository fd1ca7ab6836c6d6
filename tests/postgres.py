"""A PostgreSQL server for the tests, on loopback. It is started and removed by them."""

from __future__ import annotations

import ctypes
import glob
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.ports import free_port

USER, PASSWORD = "tester", "s3cret-word"
START_SECONDS = 120
PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Server:
    """A running server, with password authentication."""

    port: int

    def url(self, database: str, *, user: str = USER, password: str = PASSWORD) -> str:
        return f"postgresql://{user}:{password}@127.0.0.1:{self.port}/{database}"

    @contextmanager
    def new_database(self) -> Iterator[str]:
        """Create an empty database, yield its URL, and drop it at the end."""
        name = f"test_{uuid.uuid4().hex[:12]}"
        self.execute(f"CREATE DATABASE {name}")
        yield self.url(name)
        self.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def execute(self, statement: str, database: str = "postgres") -> list[tuple]:
        """Execute a statement and return its rows, if any."""
        import psycopg

        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []


@contextmanager
def running_server() -> Iterator[Server]:
    """Start a server in a temporary folder, and remove both at the end. Skip if PostgreSQL is not installed."""
    pytest.importorskip("psycopg", reason="psycopg, PostgreSQL's driver, is not installed")
    initdb, postgres = (program(name) for name in ("initdb", "postgres"))
    folder = Path(tempfile.mkdtemp(prefix="kerasline-postgres-"))
    try:
        _initialize(initdb, folder)
        server = Server(free_port())
        command = [postgres, "-D", folder / "data", "-p", server.port, "-k", folder]
        # Durability is not needed here.
        settings = ["listen_addresses=127.0.0.1", "fsync=off", "full_page_writes=off", "max_connections=200"]
        command += [part for setting in settings for part in ("-c", setting)]
        with open(folder / "log", "wb") as log:
            process = subprocess.Popen(
                list(map(str, command)), stdout=log, stderr=log, preexec_fn=_end_with_parent, **_unprivileged()
            )
        try:
            _await(server, process, folder / "log")
            yield server
        finally:
            process.send_signal(signal.SIGQUIT)
            process.wait()
    finally:
        shutil.rmtree(folder)


def program(name: str) -> str:
    """Return the path of a PostgreSQL program: on the PATH, or in Debian's folder for the newest version."""
    debian = sorted(glob.glob(f"/usr/lib/postgresql/*/bin/{name}"), key=lambda p: float(p.split("/")[4]))
    found = shutil.which(name) or next(reversed(debian), None)
    if found is None:
        pytest.skip(f"PostgreSQL's {name} is neither on the PATH nor in /usr/lib/postgresql (apt install postgresql)")
    return found


def _initialize(initdb: str, folder: Path) -> None:
    (folder / "password").write_text(PASSWORD)
    if user := _unprivileged().get("user"):
        for path in (folder, folder / "password"):
            shutil.chown(path, user, _unprivileged()["group"])
    command = [initdb, "-D", folder / "data", "-U", USER, "--pwfile", folder / "password"]
    command += ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync"]
    made = subprocess.run(command, capture_output=True, text=True, cwd="/", **_unprivileged())
    assert made.returncode == 0, made.stderr


def _unprivileged() -> dict:
    """PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    names = {entry.pw_name: entry for entry in pwd.getpwall()}
    entry = names.get("postgres") or names["nobody"]
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGQUIT)


def _await(server: Server, process: subprocess.Popen, log: Path) -> None:
    import psycopg

    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            server.execute("SELECT 1")
            return
        except psycopg.OperationalError:
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)
