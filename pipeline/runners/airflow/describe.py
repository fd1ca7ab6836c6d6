"""Describe a pipeline for Airflow: its stages and edges, its settings, and the stages that follow dates."""

from __future__ import annotations

import ast
import dataclasses
import re
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kerasline.components.core.component import Component, about
from kerasline.components.core.errors import ParameterError, nearest
from kerasline.components.core.import_path import package_root
from kerasline.pipeline.dag import Pipeline
from kerasline.pipeline.runners.airflow.description import OPERATORS, Description, Place, Stage, Timing
from kerasline.pipeline.runners.airflow.settings import has_password, settings_of

PRESETS = ("@once", "@continuous", "@hourly", "@daily", "@weekly", "@monthly", "@quarterly", "@yearly")
# The fields of a cron expression with their bounds. Airflow accepts seconds as a sixth field.
CRON = (
    ("minute", 0, 59),
    ("hour", 0, 23),
    ("day", 1, 31),
    ("month", 1, 12),
    ("day of the week", 0, 7),
    ("second", 0, 59),
)


def describe(
    pipeline: Pipeline,
    recipe: str,
    *,
    place: Place,
    timing: Timing,
    dag_id: str | None = None,
    fixed: Mapping[str, str] | None = None,
    params: Sequence[str] = ("*",),
    pools: Sequence[str] = (),
    tags: Sequence[str] = (),
    fail_refused: bool = False,
) -> Description:
    """Describe a pipeline that was built with the parameters `fixed` set.

    Args:
        params: patterns of the parameters that can be set when a run is started.
        pools: `POOL` for all stages, or `NODE=POOL` for one.

    Raises:
        ParameterError: an option is invalid, or a password would be written.
    """
    if place.operator == "external-python":
        place = dataclasses.replace(place, command=_python_command(place.command))
    _check(place, timing, fixed or {})
    pool_of = _pools(pools, pipeline)
    stages = tuple(
        Stage(node, about(pipeline.nodes[node]), tuple(pipeline.upstream(node)), pool_of.get(node, pool_of.get("")))
        for node in pipeline.order
    )
    timing = dataclasses.replace(timing, start=_date(timing.start).isoformat())
    return Description(
        dag_id=_checked_id(dag_id or pipeline.name),
        pipeline=pipeline.name,
        about=_docstring(recipe),
        recipe=recipe if _is_name(recipe) else str(Path(recipe).absolute()),
        stages=stages,
        settings=settings_of(pipeline, place.root, params),
        place=place,
        timing=timing,
        fixed=dict(fixed or {}),
        dated=tuple(node for node in pipeline.order if _is_dated(pipeline.nodes[node])),
        tags=tuple(tags) or ("kerasline", pipeline.name),
        fail_refused=fail_refused,
    )


def this_command() -> str:
    """Return the shell command that calls this kerasline with the Python of this process."""
    root = package_root()
    return shlex.join(
        [sys.executable, *(["-m", "kerasline"] if root is None else [str(Path(root, "run_pipeline.py"))])]
    )


def _python_command(command: str) -> str:
    """Return a command that names the Python of an environment, which Airflow's operator needs.

    The script `kerasline` of an environment has that Python beside it.

    Raises:
        ParameterError: the command names no Python.
    """
    words = shlex.split(command)
    if len(words) == 1 and Path(words[0]).name == "kerasline":
        script = words[0] if "/" in words[0] else shutil.which(words[0])
        if script is not None:
            return shlex.join([str(Path(script).absolute().parent / "python"), "-m", "kerasline"])
    if not re.search(r"( -m kerasline|/run_pipeline\.py'?)$", command):
        raise ParameterError(
            f"--command {command!r}: expected PYTHON -m kerasline, PYTHON FOLDER/run_pipeline.py or the path of the "
            "script kerasline with --operator external-python"
        )
    return command


def _check(place: Place, timing: Timing, fixed: Mapping[str, str]) -> None:
    if place.operator not in OPERATORS:
        raise ParameterError(f"--operator {place.operator}: {nearest(place.operator, OPERATORS)}")
    if place.operator in ("docker", "kubernetes") and not place.image:
        raise ParameterError(f"--operator {place.operator}: give the --image that kerasline is installed in")
    if has_password(place.metadata):
        raise ParameterError(
            "--metadata: a password would be written into the DAG file; set KERASLINE_METADATA where tasks run instead"
        )
    for key, value in fixed.items():
        if has_password(value):
            raise ParameterError(
                f"--set {key}: a password would be written into the DAG file; leave it to the pipeline"
            )
    if timing.catchup and timing.schedule is None:
        raise ParameterError("--catchup: there is nothing to catch up with without a --schedule")
    if timing.schedule is not None:
        _check_schedule(timing.schedule)
    for option, read, value in (("start-date", _date, timing.start), ("timezone", _zone, timing.timezone)):
        try:
            read(value)
        except (ValueError, KeyError, OSError) as error:
            raise ParameterError(f"--{option} {value!r}: {error}") from None


def _check_schedule(text: str) -> None:
    if text.startswith("@"):
        if text not in PRESETS:
            raise ParameterError(f"--schedule {text!r}: {nearest(text, PRESETS)}")
        return
    fields = text.split()
    if len(fields) not in (5, 6):
        raise ParameterError(f"--schedule {text!r}: expected a cron expression, or a preset such as @daily")
    for field, (name, lowest, highest) in zip(fields, CRON):
        places = re.sub(r"/\d+", "", field)
        for number in map(int, re.findall(r"\d+", places)):
            if not lowest <= number <= highest:
                raise ParameterError(
                    f"--schedule {text!r}: expected {lowest} to {highest} for the {name}, received {number}"
                )


def _date(text: str) -> Any:
    import datetime

    return datetime.date.fromisoformat(text)


def _zone(name: str) -> Any:
    import zoneinfo

    return zoneinfo.ZoneInfo(name)


def _pools(texts: Sequence[str], pipeline: Pipeline) -> dict[str, str]:
    """Return the pool by node. The key "" has the pool of all other nodes."""
    found = {}
    for text in texts:
        node, equals, pool = text.rpartition("=")
        if equals and node not in pipeline.nodes:
            raise ParameterError(f"--pool {text}: no such node; {nearest(node, pipeline.nodes)}")
        found[node] = pool
    return found


def _checked_id(dag_id: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,200}", dag_id):
        raise ParameterError(f"--dag-id {dag_id!r}: expected letters, digits, '_', '.' and '-', at most 200")
    return dag_id


def _docstring(recipe: str) -> str:
    """Return the docstring of the recipe without importing it."""
    from kerasline.pipeline import recipes

    file = Path(recipes.__path__[0], f"{recipe}.py") if _is_name(recipe) else Path(recipe)
    return ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""


def _is_name(recipe: str) -> bool:
    from kerasline.pipeline.loading import recipe_names

    return recipe in recipe_names()


def _is_dated(node: Component) -> bool:
    """Return whether a node reads files of days and the pipeline does not say which days."""
    parameters = node.parameters
    if "span" not in parameters or parameters["span"] is not None:
        return False
    places = [parameters.get("input"), *(parameters.get("splits") or {}).values()]
    return any("{YYYY}" in str(place) for place in places)
