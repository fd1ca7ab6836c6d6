"""DAGs and task groups for the user's own DAG files, from the description that `airflow RECIPE -o FILE.json` wrote.

It runs in Airflow's environment and only needs airflow.sdk and the standard library, not kerasline's dependencies::

    from kerasline.pipeline.runners.airflow.factory import pipeline_dag

    nightly = pipeline_dag("/pipelines/penguins.json", dag_id="nightly", schedule="0 3 * * *")
"""

from __future__ import annotations

import datetime
import json
import os
import shlex
import urllib.parse
import zoneinfo
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, BaseOperatorLink, CronDataIntervalTimetable, Param, TaskGroup, task

from kerasline.pipeline.runners.airflow.description import Description, read
from kerasline.pipeline.runners.airflow.stage import FACTS, SKIPPED, arguments, run_name, untemplated


def pipeline_dag(description: str | Path | Description, **options: Any) -> DAG:
    """Return a DAG with a task for each stage of a pipeline.

    Args:
        description: a description or its file.
        **options: arguments of airflow.sdk.DAG, which override the description: dag_id, schedule, params, ...
    """
    known = _read(description)
    defaults = {
        "dag_id": known.dag_id,
        "schedule": _schedule(known),
        "start_date": _start(known),
        "catchup": known.timing.catchup,
        "max_active_runs": known.timing.max_active_runs,
        "tags": list(known.tags),
        "doc_md": known.about,
    }
    params = options.pop("params", None)
    with DAG(**(defaults | options)) as dag:
        _stages(known)
    # Set after the tasks, because Airflow copies all params for each task, four times.
    dag.params.update(pipeline_params(known) if params is None else params)
    return dag


def pipeline_group(description: str | Path | Description, group_id: str | None = None, **options: Any) -> TaskGroup:
    """Return a task group with the stages of a pipeline: `load >> pipeline_group("penguins.json") >> notify`.

    Args:
        group_id: defaults to the name of the pipeline.
        **options: arguments of airflow.sdk.TaskGroup.
    """
    known = _read(description)
    with TaskGroup(group_id or known.group, **options) as group:
        _stages(known)
    return group


def pipeline_params(description: str | Path | Description) -> dict[str, Param]:
    """Return the parameters that can be set when a run is started, for a DAG that has the pipeline as a group."""
    return {
        key: Param(setting.default, setting.about or None, **setting.schema, section=key.partition(".")[0])
        for key, setting in _read(description).settings.items()
    }


def _read(description: str | Path | Description) -> Description:
    return description if isinstance(description, Description) else read(description)


def _schedule(known: Description) -> Any:
    schedule = known.timing.schedule
    if schedule and known.dated and schedule not in ("@once", "@continuous"):
        # With a plain expression the runs of Airflow 3 have an instant instead of an interval.
        return CronDataIntervalTimetable(schedule, timezone=known.timing.timezone)
    return schedule


def _start(known: Description) -> datetime.datetime:
    zone = zoneinfo.ZoneInfo(known.timing.timezone)
    return datetime.datetime.fromisoformat(known.timing.start).replace(tzinfo=zone)


def _stages(known: Description) -> None:
    run_stage, plan = _decorator(known), _plan(known)
    tasks = {}
    for stage in known.stages:
        pool = {"pool": stage.pool} if stage.pool else {}
        tasks[stage.node] = run_stage.override(task_id=stage.node, doc_md=stage.about, **pool)(
            *((stage.node, FACTS, untemplated(json.dumps(plan))) if _runs_elsewhere(known) else (stage.node,))
        )
        tasks[stage.node].operator.operator_extra_links = (Report(known.place.reports),)
    for stage in known.stages:
        for before in stage.after:
            tasks[before] >> tasks[stage.node]


class Report(BaseOperatorLink):
    """The button on a task that opens the report of its run."""

    name = "Report"

    def __init__(self, reports: str) -> None:
        self._reports = reports

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        group = ti_key.task_id.removesuffix(operator.op_args[0]).rstrip(".")
        return f"{self._reports}/{urllib.parse.quote(run_name(ti_key.dag_id, group, ti_key.run_id))}.html"


def _decorator(known: Description) -> Any:
    """Return the decorated function that runs a stage with the operator of the description."""
    place, plan = known.place, _plan(known)
    common = {
        "skip_on_exit_code": SKIPPED,
        "retries": known.timing.retries,
        "retry_delay": datetime.timedelta(minutes=known.timing.retry_minutes),
    }

    def words(node: str, airflow: dict[str, Any]) -> list[str]:
        return [*shlex.split(place.command), *arguments(node, _facts(airflow), plan)]

    def bash(node: str, **airflow: Any) -> str:
        return untemplated(shlex.join(words(node, airflow)))

    def kubernetes(node: str, **airflow: Any) -> list[str]:
        return [untemplated(word) for word in words(node, airflow)]

    if place.operator == "command":
        return task.bash(cwd=place.folder, **common)(bash)
    if place.operator == "kubernetes":
        pod = os.environ.get("KERASLINE_POD")
        return task.kubernetes_cmd(image=place.image, pod_template_file=pod, **common)(kubernetes)
    if place.operator == "docker":
        return task.docker(
            image=place.image,
            python_command="python",
            expect_airflow=False,
            mount_tmp_dir=False,
            auto_remove="force",
            mounts=[{"source": place.root, "target": place.root, "type": "bind"}],
            private_environment={key: os.environ[key] for key in ["KERASLINE_METADATA"] if key in os.environ},
            **common,
        )(_run_elsewhere)
    python, *rest = shlex.split(place.command)
    paths = {} if rest[:1] == ["-m"] else {"env_vars": {"PYTHONPATH": str(Path(rest[0]).parent)}}
    return task.external_python(python=python, expect_airflow=False, **paths, **common)(_run_elsewhere)


def _run_elsewhere(node: str, facts: dict[str, str], plan: str) -> None:
    from kerasline.pipeline.runners.airflow.stage import run

    run(node, facts, plan)


def _runs_elsewhere(known: Description) -> bool:
    return known.place.operator in ("docker", "external-python")


def _facts(airflow: dict[str, Any]) -> dict[str, str]:
    """Return the values that the templates in `FACTS` would have."""
    interval = (airflow.get("data_interval_start"), airflow.get("data_interval_end"))
    start, end = ("" if moment is None else moment.isoformat() for moment in interval)
    return {
        "dag_id": airflow["dag"].dag_id,
        "task_id": airflow["ti"].task_id,
        "run_id": airflow["run_id"],
        "params": json.dumps({key: airflow["params"][key] for key in airflow["params"]}),
        "start": start,
        "end": end,
    }


def _plan(known: Description) -> dict[str, Any]:
    return {
        "recipe": known.recipe,
        "root": known.place.root,
        "folder": None if known.place.operator == "docker" else known.place.folder,
        "metadata": known.place.metadata,
        "defaults": {key: setting.default for key, setting in known.settings.items()},
        "fixed": dict(known.fixed),
        "dated": list(known.dated),
        "timezone": known.timing.timezone,
        "skipped": 1 if known.fail_refused else SKIPPED,
    }
