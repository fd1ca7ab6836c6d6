"""Files that functions of the user read while a stage runs."""

import json
import sqlite3
import threading
from pathlib import Path

import pytest

import kerasline as kl
from kerasline.pipeline.undeclared_files import warning, watched

READER = """
import threading
from pathlib import Path

import kerasline as kl

HERE = Path(__file__).parent

@kl.component
def Count(report: kl.Output[kl.Report], ways: str = "open"):
    (report.path / "own.txt").write_text("written by this stage")
    (report.path / "own.txt").read_text()
    WAYS[ways]()

def indirectly():
    import helper
    helper.words()

def in_a_thread():
    thread = threading.Thread(target=WAYS["open"])
    thread.start()
    thread.join()

def own_temporary_file():
    (HERE / "temporary.txt").write_text("a")
    (HERE / "temporary.txt").read_text()

WAYS = {
    "open": lambda: open(HERE / "words.txt").read(),
    "indirectly": indirectly,
    "in_a_thread": in_a_thread,
    "own_temporary_file": own_temporary_file,
    "nothing": lambda: None,
}

def pipeline(settings):
    return kl.Pipeline("reader", [Count(FILES)])
"""
HELPER = """
from pathlib import Path

def words():
    return (Path(__file__).parent / "words.txt").read_text()
"""


@pytest.fixture
def run(tmp_path):
    """Run a stage that reads `words.txt` in some way, and return its execution."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "words.txt").write_text("a b")
    (folder / "helper.py").write_text(HELPER)

    def call(ways, files=""):
        file = folder / f"reader{abs(hash(files))}.py"
        file.write_text(READER.replace("FILES", files))
        summary = kl.run(file, root=tmp_path / "runs", parameters={"Count.ways": ways}, report=False)
        return summary.execution("Count")

    return call


@pytest.mark.parametrize("ways", ["open", "indirectly", "in_a_thread"])
def test_reading_an_undeclared_file_warns_even_if_cached(run, ways):
    for state in ("ran", "cached"):
        done = run(ways)
        assert done.state == state
        assert done.message.startswith("warning: reads ") and "words.txt (" in done.message
        assert done.message.endswith("; add to files=[...] of Count, or the cache does not notice changes")


@pytest.mark.parametrize("ways", ["own_temporary_file", "nothing"])
def test_other_reads_are_no_warning(run, ways):
    assert run(ways).message is None


def test_changed_declared_file_reruns_the_stage_without_warning(run, tmp_path):
    declared = "files=[HERE / 'words.txt']"
    assert [run("open", declared).state, run("open", declared).state] == ["ran", "cached"]
    (tmp_path / "project" / "words.txt").write_text("a c")
    again = run("open", declared)
    assert again.state == "ran" and again.message is None


def test_stages_side_by_side_are_warned_of_their_own_files(tmp_path):
    found = {}

    def stage(name):
        with watched([], []) as undeclared:
            barrier.wait()
            (tmp_path / name).read_text()
            barrier.wait()
            found[name] = {Path(path).name for path in undeclared}

    barrier = threading.Barrier(2)
    names = ("first.txt", "second.txt")
    for name in names:
        (tmp_path / name).write_text(name)
    threads = [threading.Thread(target=stage, args=[name]) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {name: {name} for name in names}


def test_files_read_by_keras_are_detected(tmp_path):
    import keras
    import numpy as np
    import pandas as pd
    import tensorflow as tf

    layer = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    layer.save_weights(tmp_path / "a.weights.h5")
    layer.save(tmp_path / "b.keras")
    (tmp_path / "c.txt").write_text("x\ny\n")
    np.save(tmp_path / "d.npy", np.ones(2))
    (tmp_path / "e.json").write_text("{}")
    sqlite3.connect(tmp_path / "f.sqlite").execute("CREATE TABLE t (x)")
    pd.DataFrame({"x": [1]}).to_parquet(tmp_path / "g.parquet")
    for name in ("h.png", "i.txt", "j.tfrecord", "k.csv"):
        (tmp_path / name).write_text("1\n")
    with watched([], []) as found:
        layer.load_weights(tmp_path / "a.weights.h5")
        keras.saving.load_model(tmp_path / "b.keras")
        keras.layers.StringLookup(vocabulary=str(tmp_path / "c.txt"))
        np.load(tmp_path / "d.npy")
        json.loads((tmp_path / "e.json").read_text())
        sqlite3.connect(tmp_path / "f.sqlite")
        pd.read_parquet(tmp_path / "g.parquet")
        tf.io.read_file(str(tmp_path / "h.png"))
        tf.data.TextLineDataset([str(tmp_path / "i.txt")])
        tf.data.TFRecordDataset(tf.constant(str(tmp_path / "j.tfrecord")))
        tf.data.experimental.CsvDataset(str(tmp_path / "k.csv"), [tf.int32])
        layer.save_weights(tmp_path / "written.weights.h5")
    assert "".join(Path(path).name[0] for path in found) == "abcdefghijk"
    assert all(place.startswith(__file__) for place in found.values())
    assert "and 8 more; add to files=[...] of Trainer" in warning("Trainer", found)
