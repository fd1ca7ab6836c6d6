"""Measure what Airflow adds to a run of the penguins recipe: `python benchmarks/airflow.py`.

A real Airflow (scheduler, DAG processor and API server, on SQLite) runs the DAG file in one root, after `run` has run
the same pipeline in another. Times come from Airflow's API and logs and from the metadata store. The time to read the
DAG file, beyond the import of airflow.sdk, is measured first.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from tests.end_to_end.airflow_environment import Airflow  # noqa: E402

PARTS = {
    "waiting for the scheduler": "from the end of the last upstream stage to Airflow's start of the task",
    "Airflow's task process": "to the start of the command",
    "interpreter and imports": "of the command, to the start of the stage",
    "the stage": "the stage itself, including the import of TensorFlow or Beam",
    "report and exit": "to the end of the command",
    "Airflow's end of the task": "to the end of the task",
}

# The imports of the command line.
IMPORTS = """
import kerasline.pipeline.commands.app, kerasline.pipeline.commands.screen
import kerasline.pipeline.loading, kerasline.pipeline.recipes.penguins, kerasline.pipeline.run
"""

PARSE = """
import sys, time
def clock(): return time.perf_counter(), time.process_time()
a = clock()
import airflow.sdk
b = clock()
from airflow.dag_processing.dagbag import DagBag
from airflow.dag_processing.importers import python_importer
c = clock()
import importlib.util
spec = importlib.util.spec_from_file_location("measured", sys.argv[1])
module = importlib.util.module_from_spec(spec)
sys.modules["measured"] = module
from airflow.sdk import BaseOperatorLink, CronDataIntervalTimetable, Param, dag, task, task_group
task.bash
d = clock()
spec.loader.exec_module(module)
e = clock()
print("RESULT", *(y - x for x, y in zip(a, b)), *(y - x for x, y in zip(d, e)))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=5, help="number of times to read the file")
    times = parser.parse_args().times
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        airflow = Airflow(folder / "home")
        command(folder, "airflow", "penguins", "-o", airflow.dags / "penguins.py", "--root", folder / "dag")
        print_parse(airflow, times)
        clock = time.perf_counter()
        command(folder, "run", "penguins", "--root", folder / "run", "--json", folder / "run.json")
        whole = time.perf_counter() - clock
        alone = {node["name"]: node["seconds"] for node in json.loads((folder / "run.json").read_text())["nodes"]}
        with airflow.running():
            tasks = airflow.finished("penguins", airflow.trigger("penguins", "measured"))
            moments = {task: moments_of(airflow, folder, tasks, task) for task in tasks}
        print_table(moments, alone, whole, imports())


def command(folder: Path, *arguments: Any) -> None:
    words = [sys.executable, str(REPOSITORY / "run_pipeline.py"), *map(str, arguments)]
    subprocess.run(words, cwd=folder, check=True, stdout=subprocess.DEVNULL)


def print_parse(airflow: Airflow, times: int) -> None:
    file = airflow.dags / "penguins.py"
    found = []
    for _ in range(times):
        output = airflow.python(PARSE, file).stdout
        found.append([float(word) for word in output.partition("RESULT ")[2].split()])
    sdk, sdk_processor, parse, parse_processor = (statistics.median(column) * 1e3 for column in zip(*found))
    print(
        f"the DAG file is read in {parse:.0f} ms ({parse_processor:.0f} ms of processor time), "
        f"airflow.sdk imported in {sdk:.0f} ms ({sdk_processor:.0f} ms)"
    )


def imports() -> float:
    """Return the seconds of the command's interpreter and imports, the median of five processes."""
    found = []
    for _ in range(5):
        clock = time.perf_counter()
        subprocess.run([sys.executable, "-c", IMPORTS], cwd=REPOSITORY, check=True)
        found.append(time.perf_counter() - clock)
    return statistics.median(found)


def moments_of(airflow: Airflow, folder: Path, tasks: dict[str, Any], task: str) -> dict[str, float]:
    """Return the seconds of each part of a task."""
    lines = airflow.api("GET", f"dags/penguins/dagRuns/measured/taskInstances/{task}/logs/1")["content"]
    events = {line["event"].partition(":")[0]: moment(line["timestamp"]) for line in lines if line.get("timestamp")}
    begins = events["Running command"]
    ends = next(at for event, at in events.items() if event.startswith("Command exited"))
    with contextlib.closing(sqlite3.connect(folder / "dag" / "metadata.sqlite")) as database:
        query = "SELECT started, finished FROM executions WHERE node = ?"
        started, finished = database.execute(query, (task,)).fetchone()
    started, finished = moment(started + "Z"), moment(finished + "Z")
    start, end = (moment(tasks[task][key]) for key in ("start_date", "end_date"))
    run = airflow.api("GET", "dags/penguins/dagRuns/measured")
    before = [moment(tasks[one]["end_date"]) for one in upstream(airflow, task)] or [moment(run["queued_at"])]
    parts = (
        start - max(before),
        begins - start,
        started - begins,
        finished - started,
        ends - finished,
        end - ends,
    )
    return dict(zip(PARTS, parts)) | {"until": end - moment(run["queued_at"])}


def upstream(airflow: Airflow, task: str) -> list[str]:
    known = airflow.api("GET", "dags/penguins/tasks")["tasks"]
    return [one["task_id"] for one in known if task in one["downstream_task_ids"]]


def moment(text: str) -> float:
    return datetime.datetime.fromisoformat(text.replace(" ", "T").replace("Z", "+00:00")).timestamp()


def print_table(found: dict[str, dict[str, float]], alone: dict[str, float], whole: float, imported: float) -> None:
    width = max(map(len, PARTS)) + 2
    print(f"\n{'seconds':{width}}{'mean':>8}{'max':>8}  of {len(found)} tasks")
    for part, about in PARTS.items():
        values = [one[part] for one in found.values()]
        print(f"{part:{width}}{statistics.mean(values):8.2f}{max(values):8.2f}  {about}")
    added = [sum(one[part] for part in PARTS if part != "the stage") - imported for one in found.values()]
    rest = f"all parts but the stage, less {imported:.2f} s of interpreter and imports"
    print(f"{'added beyond imports':{width}}{statistics.mean(added):8.2f}{max(added):8.2f}  {rest}")
    stages = [(name, one["the stage"], alone[name]) for name, one in found.items()]
    print(
        "\nstages, under Airflow and in one process: "
        + ", ".join(f"{name} {task:.1f} and {stage:.1f}" for name, task, stage in stages)
    )
    print(
        f"the DAG run took {max(one['until'] for one in found.values()):.1f} s, `run` {whole:.1f} s; "
        f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    )


if __name__ == "__main__":
    main()
