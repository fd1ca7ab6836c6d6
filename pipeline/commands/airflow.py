"""`airflow`: a pipeline as an Airflow DAG."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Annotated, cast

import typer

from kerasline.pipeline.commands.options import DEFAULT_ROOT, Root, parsed_settings
from kerasline.pipeline.commands.output import write_text


def airflow(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE|FILE.py")],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="The DAG file; FILE.json for the factory.", show_default="standard output"),
    ] = None,
    schedule: Annotated[
        str | None, typer.Option(help="A cron expression, or a preset such as @daily.", show_default="manual")
    ] = None,
    timezone: Annotated[str, typer.Option(help="Time zone of the schedule and of data intervals.")] = "UTC",
    start_date: Annotated[str, typer.Option(help="The first day, YYYY-MM-DD.")] = "2026-01-01",
    catchup: Annotated[
        bool, typer.Option("--catchup/--no-catchup", help="Run for past intervals since the start date.")
    ] = False,
    runs_at_once: Annotated[int, typer.Option(min=1, help="Most DAG runs at the same time.")] = 1,
    retries: Annotated[int, typer.Option(min=0, help="Retries of a failed stage.")] = 1,
    retry_minutes: Annotated[float, typer.Option(min=0, help="Minutes before a retry.")] = 1.0,
    pools: Annotated[
        list[str] | None,
        typer.Option("--pool", metavar="[NODE=]POOL", help="Airflow pool of all stages, or of one."),
    ] = None,
    params: Annotated[
        list[str] | None,
        typer.Option(
            "--param",
            metavar="PATTERN",
            help="Parameters in Airflow's trigger form, such as 'Trainer.*'; all by default.",
        ),
    ] = None,
    tags: Annotated[list[str] | None, typer.Option("--tag", help="A tag of the DAG.")] = None,
    dag_id: Annotated[str | None, typer.Option(help="The DAG's name.", show_default="the pipeline's")] = None,
    operator: Annotated[
        str, typer.Option(help="How stages run: command, external-python, docker, kubernetes.")
    ] = "command",
    image: Annotated[str, typer.Option(help="Image of the containers, with kerasline installed.")] = "",
    command: Annotated[
        str | None, typer.Option(help="Command that calls kerasline where stages run.", show_default="this one")
    ] = None,
    reports: Annotated[
        str | None,
        typer.Option(metavar="URL", help="URL at which the folder of reports is served.", show_default="its files"),
    ] = None,
    fail_refused: Annotated[
        bool, typer.Option("--fail-refused", help="A refused model fails Pusher instead of skipping it.")
    ] = False,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NODE.PARAM=VALUE", help="Set a stage's parameter in every run."),
    ] = None,
    root: Root = DEFAULT_ROOT,
    metadata: Annotated[
        str | None, typer.Option(help="The metadata store's SQLAlchemy URL, without a password.")
    ] = None,
) -> None:
    """Write an Airflow 3 DAG of a pipeline: a task per stage, run in this environment or in containers."""
    from kerasline.pipeline.loading import load_pipeline
    from kerasline.pipeline.runners.airflow.dag_file import dag_file
    from kerasline.pipeline.runners.airflow.describe import describe, this_command
    from kerasline.pipeline.runners.airflow.description import Operator, Place, Timing

    fixed, where = parsed_settings(settings or []), root.place
    location = where if root.shared else f"file://{where}"
    in_image = operator in ("docker", "kubernetes")
    description = describe(
        load_pipeline(recipe, where, fixed),
        recipe,
        fixed=fixed,
        dag_id=dag_id,
        params=params or ["*"],
        pools=pools or [],
        tags=tags or [],
        fail_refused=fail_refused,
        place=Place(
            command=command or ("python -m kerasline" if in_image else this_command()),
            folder=str(Path.cwd()),
            root=where,
            reports=reports or f"{location}/reports",
            metadata=metadata,
            operator=cast(Operator, operator),  # `describe` checks it
            image=image,
        ),
        timing=Timing(schedule, timezone, start_date, catchup, retries, retry_minutes, runs_at_once),
    )
    if output is None:
        sys.stdout.write(dag_file(description))
        return
    text = description.as_json() if output.suffix == ".json" else dag_file(description)
    with contextlib.suppress(OSError):  # writing reports it
        output.parent.mkdir(parents=True, exist_ok=True)
    write_text(output, text, f"--output {output}")
    print(output)
