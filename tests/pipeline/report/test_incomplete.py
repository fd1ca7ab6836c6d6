"""Runs that lack something: failed, cached, partly run, killed, or with their outputs gone."""

import os
import shutil
import signal
import sqlite3
import time

import pytest

from kerasline.pipeline.metadata.store import Execution, Run, Store, StoredArtifact, now, sqlite_url
from kerasline.pipeline.report.gather import gather
from tests.pipeline.report.conftest import QUICK, call, report, text_of

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def root(tmp_path):
    return tmp_path / "root"


def drawn(made):
    return [text.text for svg in made.section("stages").iter(f"{SVG}svg") for text in svg.iter(f"{SVG}text")]


def edges(made):
    return [e for e in made.section("stages").iter(f"{SVG}path") if (e.get("class") or "").startswith("edge")]


def test_failure_message_is_at_the_top(root):
    call("run", QUICK, "--root", root, "--set", "Left.fail=true")
    made = report(root, "latest")
    first = text_of(next(e for e in made.section("overview").iter("div") if "verdict" in (e.get("class") or "")))
    assert first == "Left failed row 3 is upside down; turn it"
    assert {"Left", "failed", "Join", "skipped", "Right"} <= {text.split(" ·")[0] for text in drawn(made)}
    assert "not run, because Left failed" in made.text("stages")
    assert made.summary["sections"] == ["overview", "stages", "environment", "card"]
    assert "failed; missing entries were not produced" in made.card.read_text()


def test_failed_stage_is_drawn_below_its_earlier_inputs(root):
    call("run", QUICK, "--root", root)
    call("run", QUICK, "--root", root, "--set", "Left.fail=true")
    assert len(edges(report(root, "latest"))) == 3  # to Left, to Right, and from Left, that Join waited for


def test_cached_stages_show_the_outputs_of_the_run_that_made_them(root):
    call("run", QUICK, "--root", root, "--run-id", "one")
    call("run", QUICK, "--root", root, "--run-id", "two")
    made = report(root, "two", "--against", "one")
    assert drawn(made).count("cached") == 4 and len(edges(made)) == 4
    assert {row[3] for row in made.table("Fingerprints")} == {"one"}
    assert "All parameters are the same." in made.text("compare")


def test_single_node_run_shows_its_borrowed_inputs(root):
    call("run", QUICK, "--root", root)
    call("run", QUICK, "--root", root, "--node", "Join", "--no-cache")
    made = report(root, "latest")
    assert drawn(made).count("from an earlier run") == 3 and len(edges(made)) == 4
    assert "Stages 1" in made.text("overview")


def test_baseline_is_not_shown_as_the_model(root):
    store = Store(sqlite_url(root / "metadata.sqlite"))
    made = {run: StoredArtifact("SavedModel", str(root / run), run, 1) for run in ("old", "new")}
    for run, artifact in made.items():
        store.begin_run(Run(run, "p", "p.py", str(root), "succeeded", now()))
        store.record(
            Execution(run, "p", "Exporter", "c", "ran", now(), finished=now(), outputs={"saved_model": artifact})
        )
    store.begin_run(Run("judged", "p", "p.py", str(root), "succeeded", now()))
    inputs = {"baseline": made["old"], "saved_model": made["new"]}
    store.record(Execution("judged", "p", "Evaluator", "c", "ran", now(), inputs=inputs))
    stages = {stage.name: stage for stage in gather(store, store.run("judged")).stages}
    assert stages["Exporter"].run_id == "new" and stages["Exporter"].state == "earlier"
    assert stages["Evaluator"].sources == ("Exporter",)


def test_deleted_outputs_are_marked(root):
    call("run", QUICK, "--root", root)
    shutil.rmtree(root / "artifacts" / "quick" / "Left")
    assert "Deleted outputs: left." in report(root, "latest").text("stages")


def test_killed_run_is_shown_as_interrupted(root, cli):
    process = cli("run", QUICK, "--root", root, "--set", "Right.seconds=60", wait=False)
    for _ in range(600):
        with (
            sqlite3.connect(root / "metadata.sqlite")
            if (root / "metadata.sqlite").exists()
            else sqlite3.connect("") as base
        ):
            try:
                if base.execute("SELECT 1 FROM executions WHERE node='Left' AND state='ran'").fetchall():
                    break
            except sqlite3.OperationalError:
                pass
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    made = report(root, "latest")
    assert "interrupted" in made.text("overview") and "Right" in drawn(made)


def test_metadata_store_may_be_elsewhere(root, tmp_path):
    url = f"sqlite:///{tmp_path}/elsewhere.sqlite"
    call("run", QUICK, "--root", root, "--metadata", url)
    made = report(root, "latest", "--metadata", url)
    assert made.html.parent == root / "reports" and drawn(made).count("Join") == 1
