"""Sixteen processes publish concurrently into one root and one store, and some are killed meanwhile."""

import collections
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest
import sqlalchemy as sa

from kerasline.pipeline.executor import Executor
from kerasline.pipeline.metadata.database import Database
from kerasline.pipeline.metadata.store import Run, Store, now
from kerasline.pipeline.storage.artifact_root import ArtifactRoot
from tests.pipeline import quick

WRITERS = 16
KILLED = 4
# So few that several processes often come to the same work at once.
NUMBERS = 50


class _RecordingStore(Store):
    """A store that appends each acknowledged record to a file."""

    def __init__(self, url, acknowledged):
        super().__init__(url)
        self._acknowledged = acknowledged

    def record(self, execution):
        super().record(execution)
        if execution.state != "running":
            paths = [artifact.path for artifact in execution.outputs.values()]
            line = " ".join([execution.run_id, execution.node, execution.id, execution.state, *paths])
            os.write(self._acknowledged, f"{line}\n".encode())  # in the kernel's hands: a kill does not take it back


def _publish(url, folder, writer, started, ends):
    """Run the quick pipeline repeatedly, with numbers that the other processes use too."""
    acknowledged = os.open(folder / f"{writer}.acknowledged", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    store, root, chance = _RecordingStore(url, acknowledged), ArtifactRoot(folder / "root"), random.Random(writer)
    started.wait(timeout=300)
    turn = 0
    while turn == 0 or time.time() < ends.value:
        pipeline = quick.pipeline(None).with_parameters({"Start.number": str(chance.randrange(NUMBERS))})
        run_id = f"w{writer}-{turn}"
        store.begin_run(Run(run_id, "quick", "quick", str(root.path), "running", now()))
        executor = Executor(pipeline, store, root, run_id, pipeline.order)
        executions = [executor.execute(node) for node in pipeline.order]
        assert all(e.state in ("ran", "cached") for e in executions), executions
        store.remember_digest(f"/shared/{turn}", "1", run_id)
        store.finish_run(run_id, "succeeded", 0.1)
        turn += 1
    os.close(acknowledged)


@pytest.mark.parametrize("seconds", [5, pytest.param(60, marks=[pytest.mark.slow, pytest.mark.long])])
def test_everything_acknowledged_to_sixteen_processes_is_stored_once(store_url, tmp_path, seconds):
    Store(store_url)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["kerasline.pipeline.metadata.store", "kerasline.pipeline.executor", "tests.pipeline.quick"]
    )
    started, ends = context.Barrier(WRITERS + 1), context.Value("d", float("inf"))
    writers = [context.Process(target=_publish, args=(store_url, tmp_path, n, started, ends)) for n in range(WRITERS)]
    for writer in writers:
        writer.start()
    started.wait(timeout=300)
    ends.value = time.time() + seconds
    for writer in writers[:KILLED]:
        time.sleep(seconds / 2 / KILLED)
        os.kill(writer.pid, signal.SIGKILL)
    for writer in writers:
        writer.join()
    assert [w.exitcode for w in writers] == [-signal.SIGKILL] * KILLED + [0] * (WRITERS - KILLED)

    files = [tmp_path / f"{n}.acknowledged" for n in range(WRITERS)]
    acknowledged = [line.split() for file in files for line in file.read_text().splitlines()]
    assert len(acknowledged) >= (WRITERS - KILLED) * 4
    _check_store(store_url, tmp_path / "root", acknowledged)


def _check_store(url, root, acknowledged):
    rows = _rows(url, "SELECT run_id, node, id, state, fingerprint, folder FROM executions")
    places = collections.Counter((row.run_id, row.node) for row in rows)
    assert set(places.values()) == {1}
    written = {row.id: row for row in rows}
    for run_id, node, key, state, *_ in acknowledged:
        assert (written[key].run_id, written[key].node, written[key].state) == (run_id, node, state)
    # Recorded but not acknowledged: a process was killed in between.
    unfinished = [row for row in rows if row.id not in {line[2] for line in acknowledged}]
    assert len(unfinished) <= KILLED and all(row.run_id.startswith(killed_runs()) for row in unfinished)

    paths = collections.Counter(row.path for row in _rows(url, "SELECT path FROM artifacts"))
    assert set(paths.values()) == {1}
    outputs = _rows(
        url,
        "SELECT execution_id, path FROM events JOIN artifacts ON artifact_id = artifacts.id WHERE direction = 'out'",
    )
    tied = collections.defaultdict(list)
    for row in outputs:
        tied[row.execution_id].append(row.path)
    assert all(sorted(tied[key]) == sorted(published) for _, _, key, _, *published in acknowledged)
    assert all(Path(path, "number.txt").is_file() for path in paths)

    # One worker on a fingerprint at a time: the work was done once, and its folder is the one there is.
    ran = collections.Counter(row.fingerprint for row in rows if row.state == "ran")
    assert set(ran.values()) == {1}
    folders = collections.Counter(path.name.partition("-")[0] for path in root.glob("artifacts/*/*/*"))
    assert set(folders.values()) == {1}


def killed_runs():
    return tuple(f"w{n}-" for n in range(KILLED))


def _rows(url, query):
    with Database(url).transaction() as connection:
        return connection.execute(sa.text(query)).all()
