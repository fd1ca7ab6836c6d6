"""What a task of Airflow's tells kerasline, by the standard library alone: DAG files carry copies of this."""

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

# BashOperator's own code for "mark this task skipped".
SKIPPED = 99


def run_name(dag_id: str, group: str, run_id: str) -> str:
    """kerasline's id of a DAG run, or of a task group's part in it: the same for all stages and all tries."""
    wanted = ".".join(part for part in (dag_id, group, run_id) if part)
    name = re.sub(r"[^A-Za-z0-9_.:+-]", "-", wanted).lstrip("_.:+-")
    if name == wanted and len(name) <= 100:
        return name
    return f"{name[:91]}-{hashlib.sha256(wanted.encode()).hexdigest()[:8]}"


def changed(params: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The params that whoever started the run set otherwise. The rest is left to the pipeline itself.

    Unknown ones of a stage are passed on, so that the pipeline refuses what was misspelt.
    """
    nodes = {key.partition(".")[0] for key in defaults}
    ours = {key: value for key, value in params.items() if "." in key and key.partition(".")[0] in nodes}
    return {key: value for key, value in ours.items() if key not in defaults or value != defaults[key]}


def spans(
    nodes: Collection[str], settings: Mapping[str, Any], interval: tuple[Any, Any], timezone: str
) -> dict[str, str]:
    """The dates that a data interval covers, as the spans that these nodes read: 2026-11-03, or with both ends.

    A run without an interval, as some started by hand, reads the newest; so does a node whose `input` was
    set to what has no dates.
    """
    start, end = interval
    if start is None:
        return {}
    zone = zoneinfo.ZoneInfo(timezone)
    first = start.astimezone(zone).date()
    # The day on which it ends is over only at midnight, when it is the next one's.
    last = end.astimezone(zone).date() - datetime.timedelta(days=1)
    dates = str(first) if last <= first else f"{first}:{last}"
    return {f"{node}.span": dates for node in nodes if "{YYYY}" in str(settings.get(f"{node}.input", "{YYYY}"))}


def options(settings: Mapping[str, Any]) -> list[str]:
    """The settings as a command line has them."""
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in settings.items()}
    return [word for key, text in texts.items() for word in ("--set", f"{key}={text}")]


def untemplated(text: str) -> str:
    """The text as a Jinja template that renders to it: what people type into a form is no template."""
    return text.replace("{", "{{ '{' }}")


# For functions that Airflow carries to where it is not itself: what it knows of a run, as Jinja templates.
FACTS = {
    "dag_id": "{{ dag.dag_id }}",
    "task_id": "{{ ti.task_id }}",
    "run_id": "{{ run_id }}",
    "params": "{{ params | tojson }}",
    "start": "{{ data_interval_start | default('', true) }}",
    "end": "{{ data_interval_end | default('', true) }}",
}


def run(node: str, facts: Mapping[str, str], plan: str) -> None:
    """Runs a stage in this process, which ends with the stage's exit status unless that is 0.

    Args:
        facts: what `FACTS` was rendered to.
        plan: recipe, root, folder, metadata, defaults, fixed, dated, timezone, skipped, as a DAG file has them, in
            JSON.
    """
    from kerasline.pipeline.commands.process import new_app, run_app
    from kerasline.pipeline.commands.running import run as run_command

    known = json.loads(plan)
    if known["folder"]:
        os.chdir(known["folder"])
    _, *words = arguments(node, facts, known)  # an application of one command takes no name of a command
    status = run_app(new_app(run_command), words)
    if status:  # on success, Airflow's script around this function still has to write its result
        sys.exit(status)


def arguments(node: str, facts: Mapping[str, str], plan: Mapping[str, Any]) -> list[str]:
    """What kerasline's command line is given for a stage of a DAG run."""
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
