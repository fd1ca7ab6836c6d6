"""A real Airflow 3 reads, runs, kills, retries and backfills DAG files, and reports what it sees."""

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.end_to_end.airflow_environment import PACKAGES, Airflow, wait
from tests.end_to_end.documents import as_words, blocks, commands

DAYS = REPOSITORY / "tests" / "end_to_end" / "days.py"
DATES = ("2026-11-01", "2026-11-02", "2026-11-03")

# Prints the DAGs that Airflow reads from the files, as JSON.
LOOK = """
import json, sys
from pathlib import Path
from airflow.dag_processing.dagbag import BundleDagBag
bag = BundleDagBag(sys.argv[1], bundle_path=Path(sys.argv[1]), bundle_name="tests")
print("RESULT" + json.dumps({"errors": bag.import_errors, "dags": {
    dag.dag_id: {
        "edges": sorted([a, b.task_id] for a in dag.task_ids for b in dag.get_task(a).downstream_list),
        "operators": sorted({type(one).__name__ for one in dag.tasks}),
        "retries": sorted({one.retries for one in dag.tasks}),
        "pools": {one.task_id: one.pool for one in dag.tasks},
        "params": {key: dag.params.get_param(key).schema | {"value": dag.params[key]} for key in dag.params},
        "schedule": type(dag.timetable).__name__, "catchup": dag.catchup, "tags": sorted(dag.tags),
        "about": dag.doc_md, "tasks": {one.task_id: one.doc_md for one in dag.tasks},
    } for dag in bag.dags.values()}}))
"""

LARGER = """
from airflow.sdk import DAG, task
from days import group
from kerasline.pipeline.runners.airflow.factory import pipeline_dag, pipeline_group, pipeline_params

made = pipeline_dag("{folder}/days.json", dag_id="made", schedule=None, tags=["mine"])

with DAG("larger", params=pipeline_params("{folder}/days.json")):
    @task
    def before(): ...

    @task
    def after(): ...

    before() >> group() >> pipeline_group("{folder}/days.json", "again") >> after()
"""


@pytest.fixture(scope="module")
def installed():
    try:
        from tests.end_to_end.airflow_environment import installed

        return installed()
    except (RuntimeError, OSError) as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Return a folder with a file of numbers for each day: 1, then 1 and 2, then 1 to 3."""
    folder = tmp_path_factory.mktemp("airflow")
    (folder / "data").mkdir()
    for count, date in enumerate(DATES, 1):
        (folder / "data" / f"{date}.csv").write_text("number\n" + "".join(f"{n}\n" for n in range(1, count + 1)))
    return folder


@pytest.fixture(scope="module")
def write(place):
    """Return a function that writes a DAG file with the command line."""

    def call(output, recipe, *more):
        command = [
            sys.executable,
            REPOSITORY / "run_pipeline.py",
            "airflow",
            recipe,
            "-o",
            output,
            "--root",
            place / "root",
        ]
        command += ["--retry-minutes", "0", *more]
        done = subprocess.run(list(map(str, command)), cwd=place, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    return call


@pytest.fixture(scope="module")
def airflow(installed, place, write):
    """Return an Airflow with all DAG files of these tests. kerasline is on its path, without its dependencies."""
    airflow = Airflow(
        place / "home", PYTHONPATH=str(REPOSITORY), AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT="30"
    )
    daily = ("--schedule", "@daily", "--start-date", DATES[0])
    write(airflow.dags / "days.py", DAYS, *daily, "--pool", "Total=default_pool")
    write(place / "days.json", DAYS, *daily)
    write(airflow.dags / "refusing.py", DAYS, "--dag-id", "refusing", "--set", "Publish.refuse=true")
    refuse = ("--set", "Publish.refuse=true", "--fail-refused", "--retries", "0")
    write(airflow.dags / "failing.py", DAYS, "--dag-id", "failing", *refuse)
    write(airflow.dags / "elsewhere.py", DAYS, "--dag-id", "elsewhere", "--operator", "external-python", *daily)
    write(
        airflow.dags / "docker.py",
        DAYS,
        "--dag-id",
        "docker",
        "--operator",
        "docker",
        "--image",
        "kerasline:1",
        *daily,
    )
    write(
        airflow.dags / "pods.py",
        DAYS,
        "--dag-id",
        "pods",
        "--operator",
        "kubernetes",
        "--image",
        "kerasline:1",
        *daily,
    )
    write(airflow.dags / "penguins.py", "penguins")
    (airflow.dags / "larger.py").write_text(LARGER.format(folder=place))
    return airflow


@pytest.fixture(scope="module")
def look(airflow):
    done = airflow.python(LOOK, airflow.dags)
    assert "RESULT" in done.stdout, done.stderr
    return json.loads(done.stdout.partition("RESULT")[2])


@pytest.fixture(scope="module")
def running(airflow):
    with airflow.running():
        yield airflow


def rows(place, query):
    with contextlib.closing(sqlite3.connect(place / "root" / "metadata.sqlite")) as database:
        return database.execute(query).fetchall()


def states(place, run_id):
    return dict(rows(place, f"SELECT node, state FROM executions WHERE run_id = '{run_id}'"))


def metrics(place, run_id, node):
    (found,) = rows(place, f"SELECT metrics FROM executions WHERE run_id = '{run_id}' AND node = '{node}'")
    return json.loads(found[0])


def word(place, run_id):
    (found,) = rows(place, f"SELECT folder FROM executions WHERE run_id = '{run_id}' AND node = 'Total'")
    return Path(found[0], "total", "word.txt").read_text()


@pytest.mark.slow
def test_airflow_reads_every_file_and_finds_the_graph_of_the_pipeline(look):
    assert look["errors"] == {}
    assert set(look["dags"]) == {
        "days",
        "refusing",
        "failing",
        "elsewhere",
        "docker",
        "pods",
        "penguins",
        "made",
        "larger",
    }
    graph = [["ExampleGen", "StatisticsGen"], ["ExampleGen", "Total"], ["Total", "Publish"]]
    for name in ("days", "refusing", "elsewhere", "docker", "pods", "made"):
        assert look["dags"][name]["edges"] == graph
    days, penguins = look["dags"]["days"], look["dags"]["penguins"]
    assert days["about"].startswith("Numbers of a day, and their sum.") and days["tags"] == ["days", "kerasline"]
    assert days["schedule"] == "CronDataIntervalTimetable" and days["retries"] == [1]
    assert days["tasks"]["Publish"] == "Publishes the total, unless that is refused."
    assert days["params"]["Total.word"] == {"type": "string", "section": "Total", "value": "plain"}
    assert penguins["params"]["Trainer.epochs"]["type"] == ["null", "integer"]
    assert ["Transform", "Trainer"] in penguins["edges"] and len(penguins["tasks"]) == 12
    operators = {name: look["dags"][name]["operators"] for name in ("days", "elsewhere", "docker", "pods")}
    assert operators == {
        "days": ["_BashDecoratedOperator"],
        "elsewhere": ["_PythonExternalDecoratedOperator"],
        "docker": ["_DockerDecoratedOperator"],
        "pods": ["_KubernetesCmdDecoratedOperator"],
    }


@pytest.mark.slow
def test_factory_matches_the_dag_file_and_groups_fit_into_a_larger_dag(look):
    made, days, larger = (look["dags"][name] for name in ("made", "days", "larger"))
    for key in ("edges", "operators", "params", "retries"):
        assert made[key] == days[key]
    assert made["tags"] == ["mine"] and made["schedule"] != days["schedule"]
    edges = {tuple(edge) for edge in larger["edges"]}
    assert {
        ("before", "days.ExampleGen"),
        ("days.Total", "days.Publish"),
        ("again.Total", "again.Publish"),
    } <= edges
    assert {("days.Publish", "again.ExampleGen"), ("days.StatisticsGen", "again.ExampleGen")} <= edges
    assert {("again.Publish", "after"), ("again.StatisticsGen", "after")} <= edges


@pytest.mark.slow
@pytest.mark.parametrize("operator", ["days", "elsewhere", "made"])
def test_dags_test_runs_a_pipeline_on_the_span_of_its_date(airflow, place, operator):
    typed = 'it\'s "quoted" $(touch spilt) {{ 6 * 7 }} {% raw %} \u00e9'
    conf = json.dumps({"Total.word": typed, "Total.seconds": 0.25 if operator == "days" else 0.5})
    done = airflow.run("dags", "test", operator, "2026-11-02", "--conf", conf)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    run_id = rows(place, f"SELECT id FROM runs WHERE id LIKE '{operator}.%'")[0][0]
    assert set(states(place, run_id)) == {"ExampleGen", "StatisticsGen", "Total", "Publish"}
    # The interval of a daily run is the day that has ended. Without a schedule it is the date itself.
    assert metrics(place, run_id, "ExampleGen")["spans"] == DATES[1 if operator == "made" else 0]
    assert word(place, run_id) == typed and not list(place.rglob("spilt"))


@pytest.mark.slow
def test_containers_receive_the_same_arguments_as_a_command(airflow, place):
    """Docker and Kubernetes are not available, so this test checks the arguments that they would receive."""
    done = airflow.run("tasks", "render", "docker", "Total", "2026-11-02")
    assert done.returncode == 0, done.stderr
    assert "'dag_id': 'docker'" in done.stdout and "2026-11-01" in done.stdout
    code = """
import datetime, sys
from pathlib import Path
from types import SimpleNamespace
from airflow.dag_processing.dagbag import BundleDagBag
bag = BundleDagBag(sys.argv[1], bundle_path=Path(sys.argv[1]), bundle_name="tests")
dag = bag.dags["pods"]
task = dag.get_task("Total")
days = [datetime.datetime(2026, 11, day, tzinfo=datetime.timezone.utc) for day in (1, 2)]
known = {"dag": dag, "ti": SimpleNamespace(task_id="Total"), "run_id": "one",
         "params": {"Total.word": "{{ 6 * 7 }}"},
         "data_interval_start": days[0], "data_interval_end": days[1]}
words = task.python_callable("Total", **known)
print("RESULT", [task.render_template(word, {}) for word in words], task.image)
"""
    received = airflow.python(code, airflow.dags).stdout.partition("RESULT ")[2].strip()
    words = [
        "python",
        "-m",
        "kerasline",
        "run",
        str(DAYS),
        "--node",
        "Total",
        "--root",
        str(place / "root"),
        "--run-id",
        "pods.one",
        "--set",
        "ExampleGen.span=2026-11-01",
        "--set",
        "Total.word={{ 6 * 7 }}",
        "--skipped-code",
        "99",
        "--report",
    ]
    assert received == f"{words} kerasline:1"


@pytest.mark.slow
@pytest.mark.long
def test_triggered_run_succeeds_and_is_cached_for_the_command_line(running, place):
    run_id = running.trigger("penguins", "chosen", **{"Trainer.epochs": 20})
    tasks = running.finished("penguins", run_id)
    assert {one["state"] for one in tasks.values()} == {"success"} and len(tasks) == 12
    assert running.api("GET", "importErrors")["import_errors"] == []
    ours = f"penguins.{run_id}"
    ((state, settings),) = rows(place, f"SELECT state, settings FROM runs WHERE id = '{ours}'")
    assert state == "succeeded" and json.loads(settings) == {"Trainer.epochs": "20"}
    links = running.api("GET", f"dags/penguins/dagRuns/{run_id}/taskInstances/Evaluator/links")["extra_links"]
    assert links == {"Report": f"file://{place}/root/reports/{ours}.html"}
    assert (place / "root" / "reports" / f"{ours}.html").exists()
    command = [
        sys.executable,
        REPOSITORY / "run_pipeline.py",
        "run",
        "penguins",
        "--set",
        "Trainer.epochs=20",
        "--root",
        place / "root",
        "--json",
        place / "again.json",
    ]
    assert subprocess.run(list(map(str, command)), cwd=place).returncode == 0
    assert {node["state"] for node in json.loads((place / "again.json").read_text())["nodes"]} == {"cached"}


@pytest.mark.slow
@pytest.mark.long
def test_killed_training_is_retried_from_its_checkpoint(running, place):
    changes = {"Trainer.epochs": 150, "Trainer.batch_size": 8, "Trainer.checkpoint_epochs": 5}
    run_id = running.trigger("penguins", "killed", **changes)
    written = "Trainer-*/**/step-*[1-9]*.npz"  # the first is of step 0
    wait(lambda: list((place / "root" / "state").glob(written)), "a checkpoint", 600)
    (stage,) = processes("--node Trainer")
    os.killpg(os.getpgid(stage), signal.SIGKILL)
    done_before = rows(place, "SELECT node, id FROM executions WHERE run_id = 'penguins.killed' AND state != 'running'")
    tasks = running.finished("penguins", run_id)
    assert {one["state"] for one in tasks.values()} == {"success"}
    tries = {name: one["try_number"] for name, one in tasks.items()}
    assert tries == dict.fromkeys(tries, 1) | {"Trainer": 2}
    after = dict(rows(place, "SELECT node, id FROM executions WHERE run_id = 'penguins.killed'"))
    assert len(done_before) >= 5 and all(after[node] == execution for node, execution in done_before)
    ((folder,),) = rows(place, "SELECT folder FROM executions WHERE run_id = 'penguins.killed' AND node = 'Trainer'")
    assert json.loads(Path(folder, "trained_model", "training.json").read_text())["resumed_at_step"] > 0


@pytest.mark.slow
@pytest.mark.long
def test_stage_whose_airflow_task_died_finishes_and_runs_once(running, place):
    """SIGKILL ends Airflow's process of the task. The process that it started holds the stage's lock until it ends."""
    marks = place / "marks.txt"
    run_id = running.trigger("days", "orphan", **{"Total.seconds": 20, "Total.marks": str(marks)})
    (stage,) = wait(lambda: processes("days.orphan", "--node Total"), "the stage")
    wait(lambda: states(place, "days.orphan").get("Total") == "running", "the stage at work")
    os.kill(parent_outside_group(stage), signal.SIGKILL)
    tasks = running.finished("days", run_id)
    assert tasks["Total"]["try_number"] == 2 and {one["state"] for one in tasks.values()} == {"success"}
    assert marks.read_text() == "once\n"


@pytest.mark.slow
@pytest.mark.long
def test_stopping_a_task_stops_its_command(running, place):
    run_id = running.trigger("days", "stopped", **{"Total.seconds": 500})
    wait(lambda: processes("days.stopped", "--node Total"), "the stage")
    body = {"new_state": "failed"}
    running.api("PATCH", f"dags/days/dagRuns/{run_id}/taskInstances/Total", body)
    wait(lambda: not processes("days.stopped", "--node Total"), "the end of the stage", 200)
    assert running.finished("days", run_id)["Total"]["state"] == "failed"


@pytest.mark.slow
@pytest.mark.long
def test_refused_model_skips_or_with_fail_refused_fails_its_task(running, place):
    refusing = running.finished("refusing", running.trigger("refusing", "one"))
    assert {name: one["state"] for name, one in refusing.items()} == {
        "ExampleGen": "success",
        "StatisticsGen": "success",
        "Total": "success",
        "Publish": "skipped",
    }
    assert running.state("refusing", "one") == "success"
    assert rows(place, "SELECT state FROM runs WHERE id = 'refusing.one'") == [("succeeded",)]
    assert running.finished("failing", running.trigger("failing", "one"))["Publish"]["state"] == "failed"
    assert running.state("failing", "one") == "failed"


@pytest.mark.slow
@pytest.mark.long
def test_two_groups_in_a_dag_are_separate_runs(running, place):
    tasks = running.finished("larger", running.trigger("larger", "one", **{"Total.word": "larger"}))
    assert {one["state"] for one in tasks.values()} == {"success"} and len(tasks) == 10
    for group in ("days", "again"):
        assert set(states(place, f"larger.{group}.one")) == {"ExampleGen", "StatisticsGen", "Total", "Publish"}
        assert word(place, f"larger.{group}.one") == "larger"


@pytest.mark.slow
def test_backfill_runs_each_date_on_its_own_span_in_parallel(installed, place, write, tmp_path):
    """The backfill is created before the scheduler starts, because Airflow on SQLite refuses it afterwards."""
    airflow = Airflow(tmp_path / "home")
    write(airflow.dags / "filled.py", DAYS, "--dag-id", "filled", "--schedule", "@daily", "--start-date", DATES[0])
    begin = ("backfill", "create", "--dag-id", "filled", "--from-date", DATES[0], "--to-date", DATES[2])
    more = ("--max-active-runs", "3", "--dag-run-conf", '{"Total.seconds": 1}')
    for command in (("dags", "reserialize"), (*begin, *more)):
        done = airflow.run(*command)
        assert done.returncode == 0, done.stderr
    with airflow.running():
        airflow.api("PATCH", "dags/filled", {"is_paused": False})
        found = wait(lambda: filled_back(airflow), "the backfill", 900)
    assert {one["state"] for one in found} == {"success"}
    for count, (date, one) in enumerate(zip(DATES, sorted(found, key=lambda one: one["dag_run_id"])), 1):
        ours = f"filled.{one['dag_run_id']}"
        assert metrics(place, ours, "ExampleGen")["spans"] == date
        assert metrics(place, ours, "Total")["total"] == count * (count + 1) / 2
        assert one["data_interval_start"].startswith(date)
    starts, ends = ([one[which] for one in found] for which in ("start_date", "end_date"))
    assert max(starts) < min(ends)


def filled_back(airflow):
    """Return the three runs of the backfill once all have ended."""
    every = airflow.api("GET", "dags/filled/dagRuns?limit=50")["dag_runs"]
    found = [one for one in every if one["run_type"] == "backfill"]  # the schedule starts another run
    return len(found) == 3 and all(one["state"] in ("success", "failed") for one in found) and found


@pytest.mark.slow
@pytest.mark.long
def test_commands_and_dag_files_of_the_guide_work(installed, tmp_path, taxi_csv):
    """Run the commands of docs/AIRFLOW.md in order, and load its DAG files."""
    guide = REPOSITORY / "docs" / "AIRFLOW.md"
    airflow = Airflow(tmp_path / "home", PYTHONPATH=str(REPOSITORY), AIRFLOW__CORE__DAGS_FOLDER=str(tmp_path / "dags"))
    (tmp_path / "dags").mkdir()
    (tmp_path / "trips").mkdir()
    for date in DATES:
        (tmp_path / "trips" / f"{date}.csv").symlink_to(taxi_csv)
    airflow.run("version")
    for line in commands(guide):
        words = as_words(line)
        if words[1:3] == ["-m", "venv"]:
            continue  # `installed` has done it
        if words[1:2] == ["install"]:
            assert words[2].removesuffix("*") in PACKAGES[0]
            continue
        done = subprocess.run(words, cwd=tmp_path, env=airflow.environment, capture_output=True, text=True)
        assert done.returncode == 0, (line, done.stdout[-2000:], done.stderr[-2000:])
    for number, program in enumerate(blocks(guide, "python")):
        text = program.replace("penguins.json", str(tmp_path / "penguins.json"))
        (tmp_path / "dags" / f"own{number}.py").write_text(text)
    done = airflow.python(LOOK, tmp_path / "dags")
    found = json.loads(done.stdout.partition("RESULT")[2])
    assert found["errors"] == {} and set(found["dags"]) == {"penguins", "taxi", "larger", "nightly", "both"}
    runs = airflow.run("dags", "list-runs", "taxi", "-o", "json").stdout
    found = json.loads(runs[runs.index("[{") :])
    assert sorted(one["logical_date"][:10] for one in found) == list(DATES)
    assert all(one["run_id"].startswith("backfill__") for one in found)


def processes(*texts):
    """Return the ids of kerasline's processes whose command line has the texts."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            line = (folder / "cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
            if all(text in line for text in ("kerasline run", *texts)) and not line.startswith("/usr/bin/bash"):
                found.append(int(folder.name))
    return found


def parent_outside_group(process):
    """Return the process that started the group of a process: the Airflow task that called the shell."""
    group = os.getpgid(process)
    while os.getpgid(process) == group:
        process = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    return process
