"""The metadata store on both databases: records are stored once and found again."""

import dataclasses
import math
import multiprocessing
import os
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import sqlalchemy as sa

from kerasline.components.core.errors import StoreError
from kerasline.pipeline.metadata.database import Database
from kerasline.pipeline.metadata.lineage import trace
from kerasline.pipeline.metadata.store import Execution, Run, Store, StoredArtifact, now, sqlite_url


@pytest.fixture
def store(store_url):
    return Store(store_url)


def begin(store, run_id="r1", **more):
    store.begin_run(Run(run_id, "p", "p", "/root", "running", now(), **more))


def done(node, run_id="r1", **more):
    return Execution(run_id, "p", node, "c", "ran", now(), **{"finished": now(), "folder": f"/{node}", **more})


def test_execution_is_recorded_once_per_node_and_run(store):
    begin(store)
    store.record(done("A", metrics={"x": 1}))
    store.record(done("A", metrics={"x": 2}))
    assert [(e.node, e.metrics) for e in store.executions("r1")] == [("A", {"x": 2})]


def test_recorded_values_are_read_back_unchanged(store):
    begin(store)
    raw, model = StoredArtifact("Examples", "/raw", "d1", 1), StoredArtifact("Model", "/model", "d2", 2**40)
    execution = done(
        "A",
        inputs={"raw": raw, "again": raw},
        outputs={"model": model},
        metrics={"x": {"y": [1, 2.5, None, True, "z"]}},
        fingerprint="f" * 64,
        message="well",
        seconds=0.25,
    )
    store.record(execution)
    assert store.executions("r1") == [execution]


def test_resumed_run_keeps_its_start_and_executions(store):
    begin(store, settings={"A.x": "1"})
    store.record(done("A"))
    store.finish_run("r1", "failed", 2.0)
    before = store.run("r1")
    begin(store, settings={"A.x": "2"})
    after = store.run("r1")
    assert after == dataclasses.replace(before, state="running", finished=None, settings={"A.x": "2"})
    assert [e.node for e in store.executions("r1")] == ["A"]


def test_lineage_is_found_in_both_directions(store):
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


def test_latest_is_the_runs_own_execution_or_the_newest(store):
    for number, run_id in enumerate(("r1", "r2", "r3")):
        begin(store, run_id)
        store.record(done("A", run_id, finished=now().replace(year=2001 + number)))
    store.record(done("A", "r3", folder=None, finished=now()))  # gave no outputs
    assert store.latest("p", "A", "r1").run_id == "r1"
    assert store.latest("p", "A", "r3").run_id == "r2"
    assert store.latest("p", "A", "another").run_id == "r2"
    assert store.latest("p", "B", "r1") is None and store.latest("q", "A", "r1") is None
    assert [e.run_id for e in store.history("p", "A")] == ["r2", "r1"]


def test_fingerprint_finds_the_newest_until_its_folder_is_forgotten(store):
    for number, run_id in enumerate(("r1", "r2")):
        begin(store, run_id)
        store.record(
            done("A", run_id, fingerprint="f", folder=f"/{run_id}", finished=now().replace(year=2001 + number))
        )
    assert store.published("f").folder == "/r2"
    store.forget_artifacts(["/r2", "/never"])
    assert store.published("f").folder == "/r1"
    store.forget_artifacts(["/r1"])
    assert store.published("f") is None


def test_digest_is_remembered_until_the_file_changes(store):
    store.remember_digest("/trips.csv", "1 7", "old")
    store.remember_digest("/trips.csv", "2 8", "new")
    assert store.known_digest("/trips.csv", "2 8") == "new"
    assert store.known_digest("/trips.csv", "1 7") is None
    store.remember_digest("/" + "x" * 4000, "1", "d")  # longer than an index takes: hashed every time
    assert store.known_digest("/" + "x" * 4000, "1") is None


def test_run_is_found_by_a_prefix_of_its_id(store):
    begin(store, "abc-1")
    begin(store, "abd-2")
    assert store.run("abc").id == "abc-1"
    with pytest.raises(StoreError, match="2 runs begin with it"):
        store.run("ab")
    with pytest.raises(StoreError, match="no such run"):
        store.run("x")


def test_execution_of_an_unknown_run_is_an_error_in_one_line(store):
    with pytest.raises(StoreError, match="(?i)foreign key") as refused:
        store.record(done("A", "unknown"))
    assert "\n" not in str(refused.value)


# Values that one of the two databases, or JSON, does not take by itself

HARD_TEXTS = [
    "nul \0 in it",
    os.fsdecode(b"caf\xe9 is no UTF-8"),
    "\U0001f600 and \u0000\udc80",
    "x" * 1500,
    "a\\b%'\"",
]


@pytest.mark.parametrize("text", HARD_TEXTS, ids=ascii)
def test_any_text_is_stored_in_any_column(store, text):
    store.begin_run(Run(text, text, text, text, text, now(), {text: text}))
    artifact = StoredArtifact(text, "/" + text, text, 1)
    execution = Execution(
        text,
        text,
        text,
        text,
        "ran",
        now(),
        text,
        text,
        {text: text},
        text,
        now(),
        0.5,
        {text: artifact},
        {text: artifact},
    )
    store.record(execution)
    store.remember_digest(text, text, text)
    assert store.executions(text) == [execution] and store.runs()[0].settings == {text: text}
    assert store.known_digest(text, text) == text
    assert store.published(text) == store.latest(text, text, text) == execution
    assert store.artifact("/" + text) == artifact


def test_numpy_and_non_finite_metrics_are_stored(store):
    begin(store)
    metrics = {
        "worst": float("nan"),
        "best": [float("inf"), -math.inf, 1.5],
        "deep": {"x": np.float32("nan"), 3: np.arange(3)},
        "other": {1},
        "written": {"$float": "nan, said a user"},
    }
    store.record(done("A", metrics=metrics))
    found = store.executions("r1")[0].metrics
    assert math.isnan(found["worst"]) and found["best"] == [math.inf, -math.inf, 1.5]
    assert math.isnan(found["deep"]["x"]) and found["deep"]["3"] == [0, 1, 2]
    assert found["other"] == "{1}" and found["written"] == {"$float": "nan, said a user"}


# Several programs at once


def _record_many(url, writer):
    store = Store(url)
    for number in range(20):
        store.record(done(f"{writer}-{number}"))


def test_concurrent_writers_lose_nothing(store):
    begin(store)
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_record_many, args=(store.url, w)) for w in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert {e.node for e in store.executions("r1")} == {f"{w}-{n}" for w in range(4) for n in range(20)}


def test_concurrent_threads_record_a_node_and_its_artifacts_once(store):
    begin(store)
    together = threading.Barrier(6)

    def record_many(writer):
        for number in range(15):
            artifacts = [StoredArtifact("Report", f"/{number}/{part}", "d", 1) for part in range(4)]
            named = {a.path: a for a in (artifacts if writer % 2 else reversed(artifacts))}
            together.wait(timeout=120)
            store.record(done("A", outputs=named, message=str(writer)))
            store.remember_digest(f"/{number}", str(writer), str(writer))

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(record_many, range(6)))
    (execution,) = store.executions("r1")
    assert {a.path for a in execution.outputs.values()} == {f"/14/{part}" for part in range(4)}
    with Database(store.url).transaction() as connection:
        counts = [connection.execute(sa.text(f"SELECT count(*) FROM {t}")).scalar() for t in ("artifacts", "events")]
        paths = connection.execute(sa.text("SELECT count(DISTINCT path) FROM artifacts")).scalar()
    assert counts == [60, 4] and paths == 60
    digests = [[store.known_digest(f"/{n}", str(w)) for w in range(6)] for n in range(15)]
    assert all(len([d for d in found if d is not None]) == 1 for found in digests)


def test_runs_that_record_artifacts_in_other_orders_do_not_deadlock(store):
    artifacts = [[StoredArtifact("Report", f"/{n}/{part}", "d", 1) for part in range(300)] for n in range(12)]
    together = threading.Barrier(2)

    def record_many(run_id):
        begin(store, run_id)
        for number, made in enumerate(artifacts):
            ordered = made if run_id == "forth" else made[::-1]
            execution = done(f"N{number}", run_id, outputs={a.path: a for a in ordered})
            together.wait(timeout=120)
            store.record(execution)

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(record_many, ("forth", "back")))
    forth, back = ({e.node: set(e.outputs) for e in store.executions(run_id)} for run_id in ("forth", "back"))
    assert forth == back == {f"N{n}": {a.path for a in made} for n, made in enumerate(artifacts)}


def _record_in_fork(store, name):
    for number in range(10):
        store.record(done(f"{name}-{number}"))
        assert store.executions("r1")


def test_forked_children_do_not_share_connections(store):
    begin(store)
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=_record_in_fork, args=(store, f"child{n}")) for n in range(3)]
    for child in children:
        child.start()
    _record_in_fork(store, "parent")
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0, 0, 0]
    names = ("parent", "child0", "child1", "child2")
    assert {e.node for e in store.executions("r1")} == {f"{name}-{n}" for name in names for n in range(10)}


def test_concurrent_processes_create_one_store(tmp_path):
    """SQLite refuses, without waiting, one of two that turn a new file to write-ahead logging."""
    urls = [sqlite_url(tmp_path / f"{number}.sqlite") for number in range(60)]
    _open_together(urls)


def test_concurrent_processes_create_one_store_on_postgresql(postgres):
    with postgres.new_database() as url:
        for number in range(10):
            schema = f"s{number}"
            postgres.execute(f"CREATE SCHEMA {schema}", url.rpartition("/")[2])
            _open_together([f"{url}?options=-csearch_path%3D{schema}"])


def _open_together(urls):
    together = threading.Barrier(4)

    def open_all(_):
        for url in urls:
            together.wait(timeout=60)
            assert Store(url).runs() == []

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(open_all, range(4)))


def test_database_locked_for_seconds_is_waited_for(tmp_path):
    store = Store(sqlite_url(tmp_path / "metadata.sqlite"))
    begin(store)
    holder = sqlite3.connect(tmp_path / "metadata.sqlite", isolation_level=None, check_same_thread=False)
    holder.execute("BEGIN EXCLUSIVE")
    threading.Timer(2.0, lambda: holder.execute("COMMIT")).start()
    clock = time.monotonic()
    store.record(done("A"))
    assert time.monotonic() - clock > 1.5
    assert [e.node for e in store.executions("r1")] == ["A"]
