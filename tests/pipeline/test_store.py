import multiprocessing
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from components.errors import StoreError
from pipeline.lineage import trace
from pipeline.store import Execution, Run, Store, StoredArtifact, now, sqlite_url


@pytest.fixture
def store(tmp_path):
    return Store(sqlite_url(tmp_path / "metadata.sqlite"))


def begin(store, run_id="r1"):
    store.begin_run(Run(run_id, "p", "p", "/root", "running", now()))


def done(node, run_id="r1", **more):
    return Execution(run_id, "p", node, "c", "ran", now(), finished=now(), folder=f"/{node}", **more)


def test_an_execution_is_recorded_once_a_node_and_run(store):
    begin(store)
    store.record(done("A", metrics={"x": 1}))
    store.record(done("A", metrics={"x": 2}))
    assert [(e.node, e.metrics) for e in store.executions("r1")] == [("A", {"x": 2})]


def test_lineage_is_told_in_both_directions(store):
    begin(store)
    raw, model = StoredArtifact("Examples", "/raw", "d1", 1), StoredArtifact("Model", "/model", "d2", 1)
    store.record(done("A", outputs={"examples": raw}))
    store.record(done("B", inputs={"examples": raw}, outputs={"model": model}))
    (up,) = trace(store, "/model")
    assert up["made_by"]["node"] == "B" and up["made_by"]["from"][0]["made_by"]["node"] == "A"
    (down,) = trace(store, raw.id[:6])
    assert down["used_by"][0]["into"][0]["path"] == "/model"
    assert len(trace(store, "r1")) == 2
    with pytest.raises(StoreError, match="neither an artifact nor a run"):
        trace(store, "zzz")


def test_what_is_no_database_is_said_to_be_none(tmp_path):
    (tmp_path / "x.sqlite").write_text("no database, this is " * 100)
    with pytest.raises(StoreError, match="x.sqlite: file is not a database"):
        Store(sqlite_url(tmp_path / "x.sqlite"))


@pytest.mark.parametrize("url", ["nonsense", "foo://x/y"])
def test_a_wrong_url_is_one_line(url):
    with pytest.raises(StoreError, match="metadata store"):
        Store(url)


def test_a_database_locked_for_seconds_is_waited_for(store, tmp_path):
    begin(store)
    holder = sqlite3.connect(tmp_path / "metadata.sqlite", isolation_level=None, check_same_thread=False)
    holder.execute("BEGIN EXCLUSIVE")
    threading.Timer(2.0, lambda: holder.execute("COMMIT")).start()
    clock = time.monotonic()
    store.record(done("A"))
    assert time.monotonic() - clock > 1.5
    assert [e.node for e in store.executions("r1")] == ["A"]


def _record_many(url, writer):
    store = Store(url)
    for number in range(20):
        store.record(done(f"{writer}-{number}"))


def test_processes_writing_at_once_lose_nothing(store):
    begin(store)
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_record_many, args=(store.url, w)) for w in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert {e.node for e in store.executions("r1")} == {f"{w}-{n}" for w in range(4) for n in range(20)}


def test_programs_that_make_one_store_at_once_all_open_it(tmp_path):
    """SQLite refuses, without waiting, one of two that turn a new file to write-ahead logging."""
    urls = [sqlite_url(tmp_path / f"{number}.sqlite") for number in range(60)]
    together = threading.Barrier(4)

    def open_all(_):
        for url in urls:
            together.wait(timeout=60)
            Store(url).runs()

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(open_all, range(4)))


def test_a_run_is_found_by_the_beginning_of_its_id(store):
    begin(store, "abc-1")
    begin(store, "abd-2")
    assert store.run("abc").id == "abc-1"
    with pytest.raises(StoreError, match="2 runs begin so"):
        store.run("ab")
    with pytest.raises(StoreError, match="no such run"):
        store.run("x")
