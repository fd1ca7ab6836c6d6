"""Convert an Airflow task to a call of kerasline. DAG files have copies of these functions.

Only needs the standard library, except for `run`.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import re
import sys
import zoneinfo
from collections.abc import Collection, Mapping
from typing import Any

# The exit status that BashOperator interprets as a skipped task.
SKIPPED = 99


def run_name(dag_id: str, group: str, run_id: str) -> str:
    """Return the run id for a DAG run, or for a task group in it. It is the same for all stages and retries."""
    full = ".".join(part for part in (dag_id, group, run_id) if part)
    name = re.sub(r"[^A-Za-z0-9_.:+-]", "-", full).lstrip("_.:+-")
    if name == full and len(name) <= 100:
        return name
    return f"{name[:91]}-{hashlib.sha256(full.encode()).hexdigest()[:8]}"


def changed(params: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return the params that were changed when the run was started. The others are left to the pipeline.

    Unknown params of a node are passed on, so that the pipeline reports a misspelt name.
    """
    nodes = {key.partition(".")[0] for key in defaults}
    ours = {key: value for key, value in params.items() if "." in key and key.partition(".")[0] in nodes}
    return {key: value for key, value in ours.items() if key not in defaults or value != defaults[key]}


def spans(
    nodes: Collection[str], settings: Mapping[str, Any], interval: tuple[Any, Any], timezone: str
) -> dict[str, str]:
    """Return the dates of a data interval as the parameter `span` of these nodes: 2026-11-03, or FIRST:LAST.

    A run without an interval, such as some that are started by hand, reads the newest date. A node whose
    `input` was set to a path without dates has no span.
    """
    start, end = interval
    if start is None:
        return {}
    zone = zoneinfo.ZoneInfo(timezone)
    first = start.astimezone(zone).date()
    # The interval covers its last day only if it ends at the following midnight.
    last = end.astimezone(zone).date() - datetime.timedelta(days=1)
    dates = str(first) if last <= first else f"{first}:{last}"
    return {f"{node}.span": dates for node in nodes if "{YYYY}" in str(settings.get(f"{node}.input", "{YYYY}"))}


def options(settings: Mapping[str, Any]) -> list[str]:
    """Return the settings as options of the command line."""
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in settings.items()}
    return [word for key, text in texts.items() for word in ("--set", f"{key}={text}")]


def untemplated(text: str) -> str:
    """Return a Jinja template that renders to the text, so that input from a form is not rendered."""
    return text.replace("{", "{{ '{' }}")


# Facts of a run, as Jinja templates, for functions that run in an environment without Airflow.
FACTS = {
    "dag_id": "{{ dag.dag_id }}",
    "task_id": "{{ ti.task_id }}",
    "run_id": "{{ run_id }}",
    "params": "{{ params | tojson }}",
    "start": "{{ data_interval_start | default('', true) }}",
    "end": "{{ data_interval_end | default('', true) }}",
}


def run(node: str, facts: Mapping[str, str], plan: str) -> None:
    """Run a stage in this process, and exit with the status of the stage unless it is 0.

    Args:
        facts: the rendered templates of `FACTS`.
        plan: recipe, root, folder, metadata, defaults, fixed, dated, timezone and skipped of the DAG file, as JSON.
    """
    from kerasline.pipeline.commands.process import new_app, run_app
    from kerasline.pipeline.commands.running import run as run_command

    known = json.loads(plan)
    if known["folder"]:
        os.chdir(known["folder"])
    _, *words = arguments(node, facts, known)  # an application with one command has no command name
    status = run_app(new_app(run_command), words)
    if status:  # after success, the script that Airflow generates around this function writes its result
        sys.exit(status)


def arguments(node: str, facts: Mapping[str, str], plan: Mapping[str, Any]) -> list[str]:
    """Return the arguments of kerasline's command line for a stage of a DAG run."""
    run_id = run_name(facts["dag_id"], facts["task_id"].removesuffix(node).rstrip("."), facts["run_id"])
    settings = {**plan["fixed"], **changed(json.loads(facts["params"]), plan["defaults"])}
    start, end = (datetime.datetime.fromisoformat(facts[key]) if facts[key] else None for key in ("start", "end"))
    settings = {**spans(plan["dated"], settings, (start, end), plan["timezone"]), **settings}
    metadata = ["--metadata", plan["metadata"]] if plan["metadata"] else []
    return [
        "run",
        plan["recipe"],
        "--node",
        node,
        "--root",
        plan["root"],
        "--run-id",
        run_id,
        *options(settings),
        *metadata,
        "--skipped-code",
        str(plan["skipped"]),
        "--report",
    ]
