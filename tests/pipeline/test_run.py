"""Whole runs of the quick pipeline through the command line: cache, faults, sub-graphs, listings."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

from kerasline.components.core.errors import StoreError
from kerasline.pipeline.metadata.database import Database
from kerasline.pipeline.metadata.store import Store
from kerasline.pipeline.recipes import HELPERS
from tests.conftest import REPOSITORY
from tests.marks import slowly

QUICK = REPOSITORY / "tests" / "pipeline" / "quick.py"
OTHER = '"other", [Join(Left(start), Right(start), name="Last")]'


@dataclass(frozen=True)
class Metadata:
    """The metadata store of a test, and the command-line options that select it."""

    url: str
    options: tuple = ()

    def executions(self, columns="*", where="1 = 1"):
        """Return rows of the table, or none while no run has created it."""
        try:
            with Database(self.url).transaction() as connection:
                return connection.execute(sa.text(f"SELECT {columns} FROM executions WHERE {where}")).all()
        except StoreError:
            return []


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def metadata(request, tmp_path):
    """On SQLite the default: a file in the root. On PostgreSQL a test is slow, unless it says otherwise."""
    if request.param == "sqlite":
        yield Metadata(f"sqlite:///{tmp_path / 'root' / 'metadata.sqlite'}")
        return
    with request.getfixturevalue("postgres").new_database() as url:
        yield Metadata(url, ("--metadata", url))


on_both = pytest.mark.parametrize("metadata", ["sqlite", "postgresql"], indirect=True)


@pytest.fixture
def run(cli, tmp_path, metadata):
    def call(*more, file=QUICK, root=tmp_path / "root"):
        return cli("run", file, "--root", root, "--json", tmp_path / "summary.json", *metadata.options, *more)

    return call


def states(result):
    return {node["name"]: node["state"] for node in result.summary["nodes"]}


def output(result, node, name):
    nodes = {n["name"]: n for n in result.summary["nodes"]}
    return Path(nodes[node]["outputs"][name]) / "number.txt"


@on_both
def test_second_run_is_cached(run):
    first, second = run(), run()
    assert first.returncode == second.returncode == 0
    assert first.summary["state"] == "succeeded" and output(first, "Join", "joined").read_text() == "603"
    assert set(states(first).values()) == {"ran"} and set(states(second).values()) == {"cached"}
    assert "Join" in first.stdout and "joined 603" in first.stdout


def test_changed_parameter_reruns_only_dependent_stages(run):
    run()
    assert states(run("--set", "Start.number=5")) == dict.fromkeys(["Start", "Left", "Right", "Join"], "ran")
    assert states(run("--set", "Right.seconds=0.01")) == {
        "Start": "cached",
        "Left": "cached",
        "Right": "ran",
        "Join": "cached",  # the same content
    }


def test_touched_file_stays_cached_and_changed_constant_reruns(run, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(QUICK.read_text())
    run(file=file)
    file.write_text("# a remark\n" + QUICK.read_text())
    assert set(states(run(file=file)).values()) == {"cached"}
    file.write_text(QUICK.read_text().replace("FACTOR = 3", "FACTOR = 4"))
    assert states(run(file=file)) == {"Start": "cached", "Left": "ran", "Right": "cached", "Join": "ran"}


def test_no_cache_runs_everything(run):
    run()
    assert set(states(run("--no-cache")).values()) == {"ran"}


@pytest.mark.parametrize("fault", ["changed", slowly("deleted"), slowly("emptied")])
def test_damaged_artifact_is_produced_again_and_reported(run, fault):
    path = output(run(), "Left", "left")
    if fault == "changed":
        path.write_text("7")
    elif fault == "deleted":
        shutil.rmtree(path.parents[1])
    else:
        path.unlink()
    again = run()
    assert states(again)["Left"] == "ran" and output(again, "Left", "left").read_text() == "6"
    assert "run again: " in again.stdout
    assert set(states(run()).values()) == {"cached"}


def test_failed_stage_skips_only_dependent_stages(run):
    result = run("--set", "Left.fail=true")
    assert result.returncode == 1 and result.summary["state"] == "failed"
    assert states(result) == {"Start": "ran", "Left": "failed", "Right": "ran", "Join": "skipped"}
    assert result.stderr == "error: Left: row 3 is upside down; turn it\n"


def test_crash_prints_one_line_and_logs_its_traceback(run, tmp_path):
    result = run("--set", "Right.crash=true")
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    log = tmp_path / "root" / "logs" / f"{result.summary['run_id']}.log"
    assert "Right: KeyError: 'oops'" in line and str(log) in line
    assert "Traceback" in log.read_text() and "quick.py" in log.read_text()
    assert not list((tmp_path / "root" / "staging").iterdir())


def test_independent_branches_run_in_parallel(run, metadata):
    result = run("--set", "Left.seconds=2", "--set", "Right.seconds=2")
    assert result.returncode == 0
    times = metadata.executions("started, finished", "node IN ('Left', 'Right')")
    (left_start, left_end), (right_start, right_end) = sorted(times)
    assert right_start < left_end and left_start < right_end


def test_single_node_runs_on_existing_artifacts(run):
    assert run("--node", "Left").returncode == 1  # Start has never run
    run()
    assert states(run("--node", "Left", "--no-cache")) == {"Left": "ran"}
    assert states(run("--from", "Right", "--no-cache")) == {"Right": "ran", "Join": "ran"}
    assert states(run("--to", "Left")) == {"Start": "cached", "Left": "cached"}


def test_later_call_of_a_run_does_not_use_a_failed_stage(run):
    """Each call runs one stage, as Airflow's tasks do."""
    run()
    apart = ("--run-id", "apart", "--node")
    assert states(run(*apart, "Start")) == {"Start": "cached"}
    assert states(run(*apart, "Left", "--set", "Left.fail=true")) == {"Left": "failed"}
    assert states(run(*apart, "Right")) == {"Right": "cached"}
    last = run(*apart, "Join")
    assert states(last) == {"Join": "skipped"} and last.returncode == 0
    assert last.summary["nodes"][0]["message"] == "not run, because Left failed"
    assert states(run(*apart, "Left")) == {"Left": "cached"}
    assert states(run(*apart, "Join")) == {"Join": "cached"}


def test_resumed_run_with_other_parameters_drops_earlier_outputs(run):
    run("--run-id", "mine")
    again = run("--run-id", "mine", "--set", "Start.number=5")
    assert set(states(again).values()) == {"ran"} and output(again, "Join", "joined").read_text() == "1506"


def test_changed_input_fails_the_stage(run):
    first = run("--node", "Start")
    output(first, "Start", "report").write_text("9")
    refused = run("--node", "Left")
    assert refused.returncode == 1 and "number.txt was changed; run Start again first" in refused.stderr
    whole = run()
    assert output(whole, "Join", "joined").read_text() == "603", "and no output derived from it is in the cache"


def test_run_id_belongs_to_one_pipeline(run, tmp_path):
    file = tmp_path / "other.py"
    file.write_text(QUICK.read_text().replace('Pipeline("quick"', 'Pipeline("other"'))
    assert run("--run-id", "mine").returncode == 0
    refused = run("--run-id", "mine", file=file)
    assert refused.returncode == 2 and "run 'mine' belongs to the pipeline 'quick'; choose another ID" in refused.stderr
    assert set(states(run("--run-id", "mine")).values()) == {"cached"}


def test_state_of_a_run_in_several_calls_covers_all_stages(cli, run, metadata, tmp_path):
    def state():
        root = ["--root", tmp_path / "root", *metadata.options, "--json", tmp_path / "runs.json"]
        return {r["id"]: (r["state"], r["seconds"]) for r in cli("runs", *root).summary}["apart"]

    apart = ("--run-id", "apart", "--node")
    assert run(*apart, "Start").returncode == 0
    assert run(*apart, "Left", "--set", "Left.fail=true").returncode == 1
    assert run(*apart, "Right").returncode == 0
    assert state()[0] == "failed"
    assert run(*apart, "Left").returncode == 0
    assert state()[0] == "succeeded"
    ((began, ended),) = metadata.executions("min(started), max(finished)", "run_id = 'apart'")
    whole = datetime.fromisoformat(str(ended)) - datetime.fromisoformat(str(began))
    assert state()[1] >= whole.total_seconds() > 0


def test_run_is_active_while_any_of_its_calls_is(cli, run, metadata, tmp_path):
    run("--run-id", "apart", "--node", "Start")
    left = ("--run-id", "apart", "--node", "Left", "--set", "Left.seconds=5")
    process = cli("run", QUICK, "--root", tmp_path / "root", *metadata.options, *left, wait=False)
    deadline = time.monotonic() + 60
    while not metadata.executions("id", "node = 'Left'") and time.monotonic() < deadline:
        time.sleep(0.1)
    run("--run-id", "apart", "--node", "Right")
    assert process.poll() is None
    (recorded,) = Store(metadata.url).runs()
    assert (recorded.state, recorded.finished) == ("running", None)
    assert process.wait() == 0
    (recorded,) = Store(metadata.url).runs()
    assert recorded.state == "succeeded"


def test_skipped_stages_can_have_their_own_exit_status(run):
    apart = ("--run-id", "apart", "--node")
    run(*apart, "Start")
    run(*apart, "Left", "--set", "Left.fail=true")
    run(*apart, "Right")
    assert run(*apart, "Join").returncode == 0
    assert run(*apart, "Join", "--skipped-code", "99").returncode == 99
    assert run(*apart, "Right", "--skipped-code", "99").returncode == 0
    assert run("--set", "Left.fail=true", "--skipped-code", "99").returncode == 1


def test_report_option_writes_the_report(run, tmp_path):
    def reports():
        return len(list((tmp_path / "root" / "reports").glob("*.html")))

    run("--no-report")
    assert reports() == 0
    run()  # all is cached
    assert reports() == 0
    run("--report")
    assert reports() == 1


def test_single_stage_needs_no_orchestrator(run, metadata, tmp_path):
    run()
    code = """
import sys
from kerasline.pipeline.commands.app import main
try: main(sys.argv[1:])
except SystemExit as stop: assert stop.code == 0, stop.code
assert "apache_beam" not in sys.modules
"""
    command = [sys.executable, "-c", code, "run", QUICK, "--root", "root", "--node", "Left", "--no-cache"]
    command += metadata.options
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    result = subprocess.run(list(map(str, command)), cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.returncode == 0 and "Left" in result.stdout and "ran" in result.stdout, result.stderr


def test_metadata_store_can_be_set_in_the_environment(cli, tmp_path, monkeypatch):
    monkeypatch.setenv("KERASLINE_METADATA", f"sqlite:///{tmp_path}/elsewhere.sqlite")
    assert cli("run", QUICK, "--root", tmp_path / "root").returncode == 0
    assert (tmp_path / "elsewhere.sqlite").exists() and not (tmp_path / "root" / "metadata.sqlite").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "penguin"], "no recipe 'penguin'; did you mean 'penguins'?"),
        (["run", "nothing.py"], "nothing.py: no such file"),
        (["run", QUICK, "--set", "Left.sconds=1"], "Left.sconds: no such parameter; did you mean 'seconds'?"),
        (["run", QUICK, "--set", "Lft.seconds=1"], "did you mean 'Left'?"),
        (["run", QUICK, "--set", "Left.seconds=fast"], "Left.seconds: expected float, received 'fast'"),
        (["run", QUICK, "--set", "seconds"], "expected NODE.PARAM=VALUE"),
        (["run", QUICK, "--node", "Up"], "has no node 'Up'"),
        (["run", QUICK, "--metadata", "nonsense"], "metadata store 'nonsense'"),
        (["run", QUICK, "--root", "/proc/nowhere"], "--root /proc/nowhere"),
        (["run", QUICK, "--nope"], "No such option"),
        (["show", "x", "--root", "none"], "none: no pipeline root"),
        (["frobnicate"], "No such command"),
    ],
)
def test_wrong_call_prints_one_line_and_exits_with_2(cli, arguments, message):
    result = cli(*arguments)
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert message in line and line.startswith("error: ")


def test_exception_in_a_users_file_is_reported_with_its_line(cli, tmp_path):
    (tmp_path / "mine.py").write_text("x = 1\nraise RuntimeError('not today')\n")
    result = cli("run", "mine.py")
    assert result.returncode == 2
    assert "RuntimeError: not today" in result.stderr and "mine.py, line 2" in result.stderr


def test_concurrent_runs_of_one_root_do_the_work_once(cli, tmp_path, metadata):
    arguments = ["run", QUICK, "--root", tmp_path / "root", "--set", "Start.seconds=1", *metadata.options]
    both = [cli(*arguments, wait=False) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0], [p.stderr.read() for p in both]
    counts = metadata.executions("state, count(*)", "1 = 1 GROUP BY state")
    assert {state: count for state, count in counts} == {"ran": 4, "cached": 4}


def test_full_disk_prints_one_line_and_leaves_nothing_partial(tmp_path):
    """On a file system of 200 kB; needs the right to mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("no right to mount a small file system")
    file = tmp_path / "big.py"
    file.write_text(
        QUICK.read_text().replace(
            "write(outputs.report, self.number)",
            "(outputs.report.path / 'big').write_bytes(bytes(10**6))",
        )
    )
    try:
        command = [sys.executable, REPOSITORY / "run_pipeline.py", "run", file, "--root", disk / "root"]
        command += ["--metadata", f"sqlite:///{tmp_path}/m.sqlite"]
        result = subprocess.run(command, capture_output=True, text=True)
        assert result.returncode == 1
        assert "error: Start: No space left on device" in result.stderr
        assert len(result.stderr.splitlines()) == 1
        assert not list((disk / "root" / "staging").iterdir())
    finally:
        subprocess.run(["umount", disk], check=True)


def test_ctrl_c_ends_a_chain_of_stages_in_one_line(cli, run, metadata, tmp_path):
    chain = ("--to", "Left", "--set", "Left.seconds=60", *metadata.options)
    process = cli("run", QUICK, "--root", tmp_path / "root", *chain, wait=False)
    deadline = time.monotonic() + 60
    while not metadata.executions("id", "node = 'Left'") and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, message = process.communicate(timeout=60)
    assert process.returncode == 130 and message.splitlines()[-1].startswith("error: interrupted; ")
    assert "Traceback" not in message


def test_killed_run_is_shown_as_interrupted_and_the_next_completes(cli, run, tmp_path, metadata):
    root = ["--root", tmp_path / "root", *metadata.options]
    process = cli("run", QUICK, *root, "--set", "Right.seconds=30", wait=False)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if metadata.executions("id", "node = 'Left' AND state = 'ran'"):
            break
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    listing = cli("runs", *root, "--json", tmp_path / "runs.json")
    assert [r["state"] for r in listing.summary] == ["interrupted"]
    again = run()
    assert states(again) == {"Start": "cached", "Left": "cached", "Right": "ran", "Join": "ran"}


def test_run_killed_before_recording_is_recovered_from_its_folder(run, metadata):
    run()
    with Database(metadata.url).transaction(write=True) as connection:
        connection.execute(sa.text("DELETE FROM events"))
        connection.execute(sa.text("DELETE FROM executions"))
    assert set(states(run()).values()) == {"cached"}


@on_both
def test_listings_show_runs_stages_and_lineage(cli, run, tmp_path, metadata):
    first = run("--run-id", "my-run")
    root = ["--root", tmp_path / "root", *metadata.options]
    assert "my-run" in cli("runs", *root).stdout
    shown = cli("show", "my-run", *root, "--json", tmp_path / "show.json").summary
    for summary in (shown, first.summary):  # stages of one row may begin in either order
        summary["nodes"].sort(key=lambda node: node["name"])
    assert shown == {**first.summary, "seconds": shown["seconds"]}
    tree = cli("lineage", output(first, "Join", "joined").parent, *root).stdout
    assert all(node in tree for node in ("Start", "Left", "Right", "Join"))
    report = cli("report", "latest", *root, "-o", tmp_path / "report.html")
    assert report.returncode == 0 and "my-run" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_lineage_survives_a_resumed_run(cli, run, tmp_path, metadata):
    for _ in range(2):
        made = run("--run-id", "mine")
    run()
    command = ["lineage", output(made, "Left", "left").parent, "--root", tmp_path / "root", *metadata.options]
    assert cli(*command, "--json", tmp_path / "lineage.json").returncode == 0
    (traced,) = json.loads((tmp_path / "lineage.json").read_text())
    assert (traced["made_by"]["node"], traced["made_by"]["run_id"]) == ("Left", "mine")
    assert [(user["node"], user["run_id"]) for user in traced["used_by"]] == [("Join", "mine")]


def test_gc_removes_artifacts_that_no_kept_run_uses(cli, run, tmp_path, metadata):
    old = output(run(), "Join", "joined")
    new = output(run("--set", "Start.number=9"), "Join", "joined")
    (tmp_path / "root" / "staging" / "Left-dead").mkdir()
    root = ["--root", tmp_path / "root", *metadata.options]
    cli("gc", "--keep", 1, "--dry-run", *root)
    assert old.exists()
    removed = cli("gc", "--keep", 1, *root, "--json", tmp_path / "gc.json").summary
    assert len(removed) == 5 and not old.exists() and new.exists()
    assert states(run())["Join"] == "ran"


@pytest.mark.parametrize("later", [("--set", "Left.fail=true"), slowly(("--to", "Left")), slowly(("--node", "Start"))])
def test_gc_keeps_the_last_whole_run_when_later_runs_are_not_whole(cli, run, tmp_path, metadata, later):
    good = run()
    for number in (7, 8):
        run("--set", f"Start.number={number}", *later)
    assert cli("gc", "--keep", 1, "--root", tmp_path / "root", *metadata.options).returncode == 0
    assert set(states(run()).values()) == {"cached"}
    assert output(good, "Join", "joined").read_text() == "603"


def test_gc_keeps_what_a_kept_stage_read_from_an_earlier_run(cli, run, tmp_path, metadata):
    first = run()
    for _ in range(2):
        run("--node", "Join")
    cli("gc", "--keep", 1, "--root", tmp_path / "root", *metadata.options)
    assert output(first, "Left", "left").exists() and output(first, "Right", "right").exists()


def test_equal_stages_of_two_pipelines_share_the_cache(run, tmp_path):
    one, two = tmp_path / "one.py", tmp_path / "two.py"
    one.write_text(QUICK.read_text())
    two.write_text(QUICK.read_text().replace('"quick", [Join(Left(start), Right(start))]', OTHER))
    first, second = run(file=one), run(file=two)
    assert set(states(second).values()) == {"cached"} and "missing or broken" not in second.stdout
    assert output(second, "Last", "joined") == output(first, "Join", "joined")
    shutil.rmtree(output(first, "Left", "left").parents[1])
    again = run(file=two)
    assert states(again)["Left"] == "ran" and "missing or broken" in again.stdout


def test_latest_is_a_run_and_in_comparisons_one_of_the_same_pipeline(cli, run, tmp_path, metadata):
    other = tmp_path / "other.py"
    other.write_text(QUICK.read_text().replace('"quick", [Join(Left(start), Right(start))]', OTHER))
    run("--run-id", "first")
    run("--run-id", "second", "--set", "Start.number=5")
    run("--run-id", "third", file=other)
    options = ["--root", tmp_path / "root", *metadata.options, "--json", tmp_path / "found.json"]
    assert cli("lineage", "latest", *options).returncode == 0
    assert "Start" in {item["made_by"]["node"] for item in json.loads((tmp_path / "found.json").read_text())}
    assert cli("report", "second", "--against", "latest", *options).returncode == 0
    assert json.loads((tmp_path / "found.json").read_text())["comparison"]["run_id"] == "first"
    alone = cli("report", "third", "--against", "latest", *options)
    assert alone.returncode == 2
    assert alone.stderr == "error: --against latest: third is the only run of other; run it again first\n"


def test_gc_removes_partial_results_unused_for_long(cli, run, tmp_path, metadata):
    run()
    cache = tmp_path / "root" / "cache" / "Transform"
    for name, days in (("forgotten", 31), ("used", 1)):
        part = cache / name / "part"
        part.parent.mkdir(parents=True)
        part.write_bytes(b"state")
        os.utime(part, (time.time() - days * 86_400,) * 2)
    removed = cli("gc", "--root", tmp_path / "root", *metadata.options, "--json", tmp_path / "gc.json").summary
    assert [path.name for path in cache.iterdir()] == ["used"] and len(removed) == 1


@on_both
def test_help_listings_and_cached_runs_import_nothing_heavy(run, tmp_path, metadata):
    run()
    code = """
import sys
from kerasline.pipeline.commands.app import main
try: main(sys.argv[1:])
except SystemExit as stop: assert stop.code == 0, stop.code
heavy = {"tensorflow", "keras", "apache_beam", "pandas", "tensorflow_datasets", "alembic"} & set(sys.modules)
assert not heavy, heavy
"""
    root = ["--root", "root", *metadata.options]
    for arguments in (["--help"], ["recipes"], ["runs", *root], ["run", QUICK, *root]):
        command = [sys.executable, "-c", code, *map(str, arguments)]
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr


def test_recipes_are_listed_with_their_descriptions(cli, tmp_path):
    listing = cli("recipes", "--json", tmp_path / "recipes.json").summary
    files = {path.stem for path in (REPOSITORY / "pipeline" / "recipes").glob("[a-z]*.py")}
    assert {item["name"] for item in listing} == files - HELPERS and "penguins" in files - HELPERS
    assert all(item["about"] for item in listing)


def test_json_on_standard_output_is_valid(cli):
    assert json.loads(cli("recipes", "--json", "-").stdout)


SETTER = """
import builtins, time
original = builtins.__import__
def lazily(name, *more, **named):
    raise AssertionError(f"{name} is imported meanwhile")
builtins.__import__ = lazily
time.sleep(1)
builtins.__import__ = original
"""
ALONE = """
import time
from kerasline.components.core.artifacts import Report
from kerasline.components.core.component import Component, Output
from kerasline.pipeline.dag import Pipeline

class Changing(Component):
    imported_alone = ("changes_imports",)
    report: Output[Report]
    def run(self, inputs, outputs, context):
        import changes_imports
        (outputs.report.path / "number.txt").write_text("1")

class Importing(Component):
    report: Output[Report]
    def run(self, inputs, outputs, context):
        until = time.monotonic() + 2
        while time.monotonic() < until:
            from email.parser import Parser
            Parser()
        (outputs.report.path / "number.txt").write_text("1")

def pipeline(settings):
    return Pipeline("alone", [Importing(), Changing()])
"""


def test_modules_that_replace_import_are_imported_before_stages(run, tmp_path, monkeypatch):
    (tmp_path / "changes_imports.py").write_text(SETTER)
    (tmp_path / "alone.py").write_text(ALONE)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(REPOSITORY)]))
    result = run(file=tmp_path / "alone.py")
    assert result.returncode == 0, result.stderr
