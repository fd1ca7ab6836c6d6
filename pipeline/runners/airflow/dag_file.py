"""Write a description as a readable DAG file, which only needs airflow.sdk and the standard library."""

from __future__ import annotations

import datetime
import keyword
import re
from collections.abc import Sequence

from kerasline.pipeline.runners.airflow import operators
from kerasline.pipeline.runners.airflow.code import below_root, call, enclosed, literal, shorten, text
from kerasline.pipeline.runners.airflow.description import Description, Setting, Stage
from kerasline.pipeline.runners.airflow.stage import SKIPPED

_MODULES = ("copy", "datetime", "hashlib", "json", "os", "re", "shlex", "urllib.parse", "zoneinfo")
_SDK = ("BaseOperatorLink", "CronDataIntervalTimetable", "Param", "dag", "task", "task_group")

_LINK = '''\
class Report(BaseOperatorLink):
    """The button on a task that opens the report of its run."""

    name = "Report"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        group = ti_key.task_id.removesuffix(operator.op_args[0]).rstrip(".")
        return f"{REPORTS}/{urllib.parse.quote(run_name(ti_key.dag_id, group, ti_key.run_id))}.html"'''


def dag_file(description: Description) -> str:
    """Return the formatted text of the file. Equal descriptions give equal texts."""
    parts = [
        _stages(description),
        _stage(description),
        operators.stage_task(description),
        _LINK,
        *operators.helpers(description),
        _params(description) + "\n\n" + _dag(description),
    ]
    constants, code = _constants(description), "\n\n\n".join(parts)
    return f"{_head(description)}\n\n{_imports(constants + code)}\n\n{constants}\n\n\n{code}\n"


def module_name(dag_id: str) -> str:
    """Return the name of the DAG as a Python identifier."""
    name = re.sub(r"\W", "_", dag_id, flags=re.ASCII)
    return f"_{name}" if name[0].isdigit() or keyword.iskeyword(name) else name


def _head(description: Description) -> str:
    about = description.about.replace("\\", "\\\\").replace('"""', '\\"\\"\\"').strip()
    note = f"""\
kerasline's pipeline `{description.pipeline}` on Airflow 3: a task for each stage, run in the pipeline's own
environment. Airflow needs nothing but this file, which `kerasline airflow` wrote. Write it again when stages
or edges change. A larger DAG can embed the pipeline: `from {module_name(description.dag_id)} import group`.
"""
    return f'"""{about}\n\n{note}"""\n\nfrom __future__ import annotations'.replace('"""\n\nkerasline', '"""kerasline')


def _imports(code: str) -> str:
    lines = [f"import {name}" for name in _MODULES if re.search(rf"\b{re.escape(name)}\.", code)]
    generic = [name for name in ("Collection", "Mapping") if f"{name}[" in code]
    lines += [f"from collections.abc import {', '.join(generic)}"] if generic else []
    used = [name for name in _SDK if re.search(rf"(@|\b){name}[.()]", code)]
    return "\n".join([*lines, "from typing import Any", "", f"from airflow.sdk import {', '.join(used)}"])


def _constants(description: Description) -> str:
    place, timing = description.place, description.timing
    lines = [
        "# Where stages run and which root they use. Edit it here, or set the variables where Airflow runs.",
        *operators.constants(description),
        operators.from_environment("KERASLINE_ROOT", text(place.root), "ROOT"),
        "# Links to reports lead here.",
        operators.from_environment("KERASLINE_REPORTS", below_root(place.reports, place.root), "REPORTS"),
        f"RECIPE = {text(description.recipe)}",
    ]
    lines += [f"METADATA = {text(place.metadata)}"] if place.metadata else []
    if description.fixed:
        rows = [f"{text(key)}: {text(value)}" for key, value in description.fixed.items()]
        lines += ["# Set in every run.", enclosed("FIXED = {", rows, "}")]
    if description.dated:
        names = [text(node) for node in description.dated]
        lines += ["# These nodes read the days of the data interval of a run.", enclosed("DATED = [", names, "]")]
    return "\n".join(
        [
            *lines,
            f"TIMEZONE = {text(timing.timezone)}",
            f"RETRIES = {timing.retries}",
            f"RETRY_DELAY = datetime.timedelta(minutes={timing.retry_minutes:g})",
            "# Exit status of a stage with nothing to do, such as Pusher with a refused model. 1 would make it fail.",
            f"SKIPPED = {1 if description.fail_refused else SKIPPED}",
        ]
    )


def _stages(description: Description) -> str:
    names = _variables(description.stages)
    lines = ["def stages() -> None:", '    """Create a task for each stage, and the edges between them."""']
    for one in description.stages:
        pool = [f"pool={text(one.pool)}"] if one.pool else []
        lines.append(call(f"    {names[one.node]} = stage", [text(one.node), text(shorten(one.about)), *pool]))
    lines.append("")
    for one in description.stages:
        before = [names[node] for node in one.after]
        if before:
            lines.append(f"    {before[0] if len(before) == 1 else '[' + ', '.join(before) + ']'} >> {names[one.node]}")
    return "\n".join(lines).rstrip()


def _stage(description: Description) -> str:
    arguments = "node, FACTS, PLAN" if operators.takes_facts(description) else "node"
    return f'''\
def stage(node: str, about: str, **options: Any) -> Any:
    """Create the task of a stage. `options` are arguments of its operator, such as pool=."""
    created = run_stage.override(task_id=node, doc_md=about, **options)({arguments})
    created.operator.operator_extra_links = (Report(),)
    return created'''


def _params(description: Description) -> str:
    """Return the params, and the constants that are passed to functions that run elsewhere."""
    lines = ["# Parameters that can be set when a run is started. Only changed values are passed on.", "PARAMS = {"]
    for key, setting in description.settings.items():
        lines.append(call(f"    {text(key)}: Param", _param(setting, description.place.root), ","))
    lines += ["}", "for key, param in PARAMS.items():", '    param.schema["section"] = key.partition(".")[0]']
    table = "\n".join(lines) if description.settings else "PARAMS: dict[str, Param] = {}"
    return table + ("\n\n" + operators.facts(description) if operators.takes_facts(description) else "")


def _param(setting: Setting, root: str) -> list[str]:
    default = setting.default
    source = below_root(default, root) if isinstance(default, str) else literal(default)
    about = [text(shorten(setting.about))] if setting.about else []
    return [source, *about, *(f"{word}={literal(value)}" for word, value in setting.schema.items())]


def _dag(description: Description) -> str:
    timing = description.timing
    schedule = text(timing.schedule) if timing.schedule else "None"
    if timing.schedule and description.dated and timing.schedule not in ("@once", "@continuous"):
        # With a plain expression the runs of Airflow 3 have an instant instead of an interval.
        schedule = f"CronDataIntervalTimetable({schedule}, timezone=TIMEZONE)"
    day = datetime.date.fromisoformat(timing.start)
    date = f"{day.year}, {day.month}, {day.day}"
    return "\n".join(
        [
            "",
            f"@task_group(group_id={text(description.group)})",
            "def group() -> None:",
            "    stages()",
            "",
            "",
            "@dag(",
            f"    dag_id={text(description.dag_id)},",
            f"    schedule={schedule},",
            f"    start_date=datetime.datetime({date}, tzinfo=zoneinfo.ZoneInfo(TIMEZONE)),",
            f"    catchup={timing.catchup},",
            f"    max_active_runs={timing.max_active_runs},",
            f"    tags={literal(description.tags)},",
            "    doc_md=__doc__,",
            "    auto_register=False,  # a DAG file that imports this one does not register the DAG again",
            ")",
            "def whole() -> None:",
            "    stages()",
            "",
            "",
            "pipeline_dag = whole()",
            "# Set after the tasks, since Airflow copies all params for each task. Copied, since a run changes them.",
            "pipeline_dag.params.update(copy.deepcopy(PARAMS))",
        ]
    )


def _variables(stages: Sequence[Stage]) -> dict[str, str]:
    """Return a variable name for each node, such as example_gen for ExampleGen."""
    names: dict[str, str] = {}
    for one in stages:
        name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", re.sub(r"\W", "_", one.node, flags=re.ASCII)).lower()
        while keyword.iskeyword(name) or name == "stage" or name in names.values():
            name += "_"
        names[one.node] = name
    return names
