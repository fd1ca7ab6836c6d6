"""The part of a DAG file that differs by operator: constants, and the task of a stage."""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Callable
from typing import Any

from kerasline.pipeline.runners.airflow import stage
from kerasline.pipeline.runners.airflow.code import call, enclosed, text
from kerasline.pipeline.runners.airflow.description import Description

_RETRIED = ("retries=RETRIES", "retry_delay=RETRY_DELAY")


def constants(description: Description) -> list[str]:
    """Return the lines that locate kerasline: its command, interpreter or image."""
    place = description.place
    if place.operator == "command":
        return [from_environment("KERASLINE", text(place.command)), *_folder(description)]
    if place.operator == "external-python":
        python, home = python_and_home(place.command)
        lines = [from_environment("KERASLINE_PYTHON", text(python), "PYTHON")]
        return [*lines, *([f"HOME = {text(home)}"] if home else []), *_folder(description)]
    lines = [from_environment("KERASLINE_IMAGE", text(place.image), "IMAGE")]
    if place.operator == "docker":
        return [*lines, *(_folder(description) if _is_file(description) else [])]
    pod = ["# The file of a pod template: volumes, secrets, resources.", 'POD = os.environ.get("KERASLINE_POD")']
    return [*lines, from_environment("KERASLINE", text(place.command)), *pod]


def stage_task(description: Description) -> str:
    """Return the source of the decorated function `run_stage`."""
    return {
        "command": _bash,
        "external-python": _external_python,
        "docker": _docker,
        "kubernetes": _kubernetes,
    }[description.place.operator](description)


def takes_facts(description: Description) -> bool:
    """Return whether `run_stage` runs without Airflow and receives the facts of the run as arguments."""
    return description.place.operator in ("external-python", "docker")


def helpers(description: Description) -> list[str]:
    """Return the sources of the functions that `run_stage` and the link use."""
    used: list[Callable[..., Any]] = [stage.run_name]
    if not takes_facts(description):
        used += [stage.changed, *([stage.spans] if description.dated else []), stage.options]
    used.append(stage.untemplated)
    return [inspect.getsource(function).rstrip() for function in used]


def facts(description: Description) -> str:
    """Return the constants FACTS (of the run, rendered by Airflow) and PLAN (of the pipeline)."""
    folder = "None" if description.place.operator == "docker" else "FOLDER"
    plan = {
        "recipe": "RECIPE",
        "root": "ROOT",
        "folder": folder,
        "metadata": "METADATA" if description.place.metadata else "None",
        "defaults": "{key: param.value for key, param in PARAMS.items()}",
        "fixed": "FIXED" if description.fixed else "{}",
        "dated": "DATED" if description.dated else "[]",
        "timezone": "TIMEZONE",
        "skipped": "SKIPPED",
    }
    rows = "".join(f'            "{key}": {value},\n' for key, value in plan.items())
    known = "".join(f"    {text(key)}: {text(value)},\n" for key, value in stage.FACTS.items())
    return (
        f"# Airflow renders these templates.\nFACTS = {{\n{known}}}\n# Airflow passes this on unchanged.\n"
        f"PLAN = untemplated(\n    json.dumps(\n        {{\n{rows}        }}\n    )\n)"
    )


def from_environment(variable: str, default: str, name: str | None = None) -> str:
    """Return a constant that an environment variable overrides. `default` is source."""
    return call(f"{name or variable} = os.environ.get", [text(variable), default])


def python_and_home(command: str) -> tuple[str, str | None]:
    """Return the Python of a command that calls kerasline, and kerasline's folder if it is not installed."""
    python, *rest = shlex.split(command)
    return python, None if rest[:1] == ["-m"] else rest[0].rpartition("/")[0]


def _bash(description: Description) -> str:
    """Return a task whose command is built in Airflow's own process, which knows the run."""
    return "\n".join(
        [
            call("@task.bash", ["cwd=FOLDER", f"skip_on_exit_code={stage.SKIPPED}", *_RETRIED]),
            "def run_stage(node: str, **airflow: Any) -> str:",
            '    """Return the shell command of a stage. Airflow passes the facts of the run."""',
            *_words(description),
            "    return untemplated(shlex.join(words))",
        ]
    )


def _kubernetes(description: Description) -> str:
    arguments = ["image=IMAGE", "pod_template_file=POD", f"skip_on_exit_code={stage.SKIPPED}", *_RETRIED]
    return "\n".join(
        [
            call("@task.kubernetes_cmd", arguments),
            "def run_stage(node: str, **airflow: Any) -> list[str]:",
            '    """Return the command of a stage\'s container. Airflow passes the facts of the run."""',
            *_words(description),
            "    return [untemplated(word) for word in words]",
        ]
    )


def _words(description: Description) -> list[str]:
    settings = ["**FIXED"] if description.fixed else []
    settings.append('**changed(airflow["params"], {key: param.value for key, param in PARAMS.items()})')
    lines = [
        '    group = airflow["ti"].task_id.removesuffix(node).rstrip(".")',
        '    run = run_name(airflow["dag"].dag_id, group, airflow["run_id"])',
        enclosed("    settings = {", settings, "}") if description.fixed else f"    settings = {settings[0][2:]}",
    ]
    if description.dated:
        lines += [
            '    interval = (airflow.get("data_interval_start"), airflow.get("data_interval_end"))',
            "    settings = {**spans(DATED, settings, interval, TIMEZONE), **settings}",
        ]
    metadata = '"--metadata", METADATA, ' if description.place.metadata else ""
    return [
        *lines,
        '    words = [*shlex.split(KERASLINE), "run", RECIPE, "--node", node, "--root", ROOT, "--run-id", run]',
        f'    words += [*options(settings), {metadata}"--skipped-code", str(SKIPPED), "--report"]',
    ]


def _external_python(description: Description) -> str:
    _, home = python_and_home(description.place.command)
    environment = ['env_vars={"PYTHONPATH": HOME}'] if home else []
    return _without_airflow("external_python", ["python=PYTHON", *environment])


def _docker(description: Description) -> str:
    names = ["ROOT", "FOLDER"] if _is_file(description) else ["ROOT"]
    mounts = [f'{{"source": {name}, "target": {name}, "type": "bind"}}' for name in names]
    environment = '{key: os.environ[key] for key in ["KERASLINE_METADATA"] if key in os.environ}'
    return _without_airflow(
        "docker",
        [
            "image=IMAGE",
            *(["working_dir=FOLDER"] if _is_file(description) else []),
            'python_command="python"',
            enclosed("    mounts=[", mounts, "],").strip(" ,"),
            "mount_tmp_dir=False",
            'auto_remove="force"',
            f"private_environment={environment}",
        ],
    )


def _without_airflow(decorator: str, arguments: list[str]) -> str:
    arguments = [*arguments, "expect_airflow=False", f"skip_on_exit_code={stage.SKIPPED}", *_RETRIED]
    return "\n".join(
        [
            call(f"@task.{decorator}", arguments),
            "def run_stage(node: str, facts: dict[str, str], plan: str) -> None:",
            '    """Run a stage. Airflow runs this function in the environment of kerasline."""',
            "    from kerasline.pipeline.runners.airflow.stage import run",
            "",
            "    run(node, facts, plan)",
        ]
    )


def _folder(description: Description) -> list[str]:
    return [
        "# Relative paths refer to this folder.",
        from_environment("KERASLINE_FOLDER", text(description.place.folder), "FOLDER"),
    ]


def _is_file(description: Description) -> bool:
    return description.recipe.endswith(".py")
