"""Opening a database, the errors if that fails, and locks between hosts."""

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from kerasline.components.core.errors import StoreError
from kerasline.pipeline.executor import Executor
from kerasline.pipeline.metadata.database import Database
from kerasline.pipeline.metadata.liveness import alive, is_alive
from kerasline.pipeline.metadata.store import Run, Store, now, sqlite_url
from kerasline.pipeline.storage.artifact_root import ArtifactRoot
from tests.conftest import REPOSITORY
from tests.pipeline import quick
from tests.ports import free_port
from tests.postgres import PASSWORD, USER


def test_file_that_is_not_a_database_is_an_error(tmp_path):
    (tmp_path / "x.sqlite").write_text("no database, this is " * 100)
    with pytest.raises(StoreError, match="x.sqlite: file is not a database"):
        Store(sqlite_url(tmp_path / "x.sqlite"))


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nonsense", "metadata store 'nonsense': Could not parse"),
        ("foo://x/y", "expected a URL of sqlite or postgresql"),
        ("mysql://bob:hush-now@h/d", "expected a URL of sqlite or postgresql"),
        ("postgresql://bob:hush-now@host:port/d", "metadata store 'postgresql://bob:"),
        ("postgresql://bob:hush-now@x@host/d", "write an '@' in the password as %40"),
        ("postgresql://bob@h/d?password=hush-now&port=x", "password=***&port=x': Received non-integer port"),
        ("postgresql://bob:hush-now@h/d?no_such_option=1", "no_such_option"),
    ],
)
def test_wrong_url_is_an_error_in_one_line_without_the_password(url, message):
    with pytest.raises(StoreError) as refused:
        Store(url)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value) and "hush-now" not in str(refused.value)


@pytest.mark.parametrize("driver", ["postgresql", "postgresql+psycopg", "postgresql+psycopg2", "postgres"])
def test_psycopg_3_is_used_whatever_driver_the_url_names(postgres, driver):
    with (
        postgres.new_database() as url,
        Database(url.replace("postgresql", driver, 1)).transaction() as connection,
    ):
        assert type(connection.connection.dbapi_connection).__module__ == "psycopg"


def test_missing_driver_is_reported_with_the_command_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(StoreError, match=r"psycopg.*pip install 'kerasline\[postgres\]'") as refused:
        Store("postgresql://bob:hush-now@localhost/d")
    assert "hush-now" not in str(refused.value)


def unreachable(postgres, fault):
    """Return a URL with one fault, and the expected message."""
    if fault == "password":
        wrong = postgres.url("postgres", password="hush-now")
        return wrong, f'password authentication failed for user "{USER}" \\(check user and password'
    if fault == "no password":
        return (
            f"postgresql://{USER}@127.0.0.1:{postgres.port}/postgres",
            "no password supplied \\(give it in the URL",
        )
    if fault == "database":
        return postgres.url("nowhere"), 'database "nowhere" does not exist; create it: createdb nowhere'
    port = free_port()  # nobody listens: whoever connects is refused
    return f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{port}/d", f"{port} failed: Connection refused"


@pytest.mark.parametrize("fault", ["password", "no password", "database", "server"])
def test_refused_login_is_one_line_without_the_password(postgres, fault, monkeypatch, tmp_path):
    monkeypatch.setenv("PGPASSFILE", str(tmp_path / "none"))
    url, message = unreachable(postgres, fault)
    with pytest.raises(StoreError, match=message) as refused:
        Store(url)
    for secret in (PASSWORD, "hush-now", "\n"):
        assert secret not in str(refused.value)


def test_user_without_permission_to_create_tables_gets_advice(postgres):
    with postgres.new_database() as url:
        database = url.rpartition("/")[2]
        postgres.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC", database)  # as it is from PostgreSQL 15 on
        postgres.execute("CREATE ROLE guest LOGIN PASSWORD 'guest-word'")
        with pytest.raises(StoreError, match="permission denied for schema public.*own the database") as refused:
            Store(postgres.url(database, user="guest", password="guest-word"))
        assert "\n" not in str(refused.value) and "guest-word" not in str(refused.value)


def test_command_line_prints_the_same_error(cli, postgres):
    url, message = unreachable(postgres, "password")
    result = cli("runs", "--metadata", url)
    (line,) = result.stderr.splitlines()
    assert result.returncode == 2 and line.startswith("error: metadata store postgresql+psycopg://tester:***@")
    assert "password authentication failed" in line and "hush-now" not in result.stdout + result.stderr


# Locks between hosts

HOLDER = """
import os, sys, time
from kerasline.pipeline.metadata.store import Store
store = Store(sys.argv[1])
print("waiting", flush=True)
with store.held("the work"):
    child = os.fork() if "fork" in sys.argv else None
    if child != 0:
        print("held", child, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def hold(store_url):
    """Start a program that acquires the lock and holds it. Its output is read by `readline`."""
    programs, forked = [], []

    def start(*more):
        program = subprocess.Popen(
            [sys.executable, "-c", HOLDER, store_url, *more],
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            stdout=subprocess.PIPE,
            text=True,
        )
        programs.append(program)
        assert program.stdout.readline() == "waiting\n"
        return program

    def holds(program):
        given_up = threading.Timer(120, program.kill)
        given_up.start()
        word, child = program.stdout.readline().split()
        given_up.cancel()
        forked.extend([int(child)] if child != "None" else [])
        return word == "held"

    start.holds = holds
    yield start
    for program in programs:
        program.kill()
        program.wait()
    for child in forked:
        os.kill(child, signal.SIGKILL)


def waiting(postgres, url):
    """Return the number of sessions that wait for a named lock in the database."""
    rows = postgres.execute(
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted", url.rpartition("/")[2]
    )
    return rows[0][0]


@pytest.mark.parametrize("more", [(), ("fork",)], ids=["alone", "with a forked child that lives on"])
@pytest.mark.parametrize("store_url", ["postgresql"], indirect=True)
def test_second_holder_waits_until_the_first_is_killed(postgres, store_url, hold, more):
    first = hold(*more)
    assert hold.holds(first)
    second = hold()
    deadline = time.monotonic() + 60
    while not waiting(postgres, store_url) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert waiting(postgres, store_url) == 1
    first.send_signal(signal.SIGKILL)
    assert hold.holds(second)


@pytest.mark.parametrize("store_url", ["postgresql"], indirect=True)
def test_different_names_do_not_wait_and_names_are_released(store_url):
    store = Store(store_url)
    with store.held("a"), store.held("b"):
        pass
    with store.held("a"):
        pass


@pytest.mark.parametrize("store_url", ["postgresql"], indirect=True)
def test_lock_waits_outside_transactions_and_its_loss_is_harmless(postgres, store_url):
    store, database = Store(store_url), store_url.rpartition("/")[2]
    holder = "FROM pg_stat_activity JOIN pg_locks USING (pid) WHERE locktype = 'advisory'"
    holder += " AND datname = current_database()"
    with store.held("the work"):
        assert postgres.execute(f"SELECT state {holder}", database) == [("idle",)]
        postgres.execute(f"SELECT pg_terminate_backend(pid) {holder}", database)
        store.begin_run(Run("r1", "p", "p", "/root", "running", now()))
    assert [run.id for run in store.runs()] == ["r1"]
    with store.held("the work"):
        pass


def test_sqlite_needs_no_locks_between_hosts(tmp_path):
    store = Store(sqlite_url(tmp_path / "metadata.sqlite"))
    with store.held("a"), store.held("a"):
        pass


class _OtherHost(ArtifactRoot):
    """The same root, whose kernel's locks are not seen elsewhere."""

    def __init__(self, path, host):
        super().__init__(path)
        self._host = host

    def lock_file(self, fingerprint):
        return self.path / "locks" / f"{self._host}-{fingerprint[:32]}.lock"

    def run_lock_file(self, run_id):
        return self.path / "locks" / f"{self._host}-run-{run_id}.lock"


@pytest.mark.parametrize("store_url", ["postgresql"], indirect=True)
def test_run_is_alive_until_its_last_process_on_any_host_ends(store_url, tmp_path):
    store, here, there = Store(store_url), _OtherHost(tmp_path, "one"), _OtherHost(tmp_path, "two")
    assert not is_alive(store, here, "r1")
    with alive(store, there, "r1"):
        with alive(store, there, "r1"):
            assert is_alive(store, here, "r1") and not is_alive(store, here, "r2")
        assert is_alive(store, here, "r1") and is_alive(store, there, "r1")
    assert not is_alive(store, here, "r1")


@pytest.mark.parametrize("store_url", ["postgresql"], indirect=True)
def test_two_hosts_with_one_store_and_root_do_the_work_once(store_url, tmp_path):
    store, together = Store(store_url), threading.Barrier(2)
    start = quick.Start(seconds=0.5)
    pipeline = quick.Pipeline("quick", [start])

    def execute(host):
        store.begin_run(Run(host, "quick", "quick", str(tmp_path), "running", now()))
        executor = Executor(pipeline, store, _OtherHost(tmp_path, host), host, ["Start"])
        together.wait(timeout=60)
        return executor.execute("Start")

    with ThreadPoolExecutor(2) as hosts:
        found = list(hosts.map(execute, ("one", "two")))
    assert sorted(e.state for e in found) == ["cached", "ran"]
    assert found[0].folder == found[1].folder and found[0].outputs["report"].digest == found[1].outputs["report"].digest
