"""`run` and `plan`: the commands that run stages."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kerasline.components.core.errors import ParameterError
from kerasline.pipeline.commands.options import (
    DEFAULT_ROOT,
    Json,
    Metadata,
    Root,
    Settings,
    parsed_settings,
)
from kerasline.pipeline.commands.output import complain, write_json

if TYPE_CHECKING:
    from rich.console import Console

    from kerasline.pipeline.metadata.records import Execution
    from kerasline.pipeline.run import Summary

FAILED = 1


def run(
    context: typer.Context,
    recipe: Annotated[str | None, typer.Argument(metavar="[RECIPE|FILE.py]")] = None,
    settings: Settings = None,
    root: Root = DEFAULT_ROOT,
    run_id: Annotated[str | None, typer.Option(help="Id of a new run, or of one to resume.")] = None,
    node: Annotated[str | None, typer.Option(help="Run only this stage.")] = None,
    start: Annotated[str | None, typer.Option("--from", help="Run from this stage.")] = None,
    stop: Annotated[str | None, typer.Option("--to", help="Run up to this stage.")] = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Run every stage, without the cache.")] = False,
    report: Annotated[
        bool | None,
        typer.Option("--report/--no-report", help="Write the run's report.", show_default="if a stage ran"),
    ] = None,
    skipped_code: Annotated[int, typer.Option(min=0, max=255, help="Exit status if every stage was skipped.")] = 0,
    metadata: Metadata = None,
    json_file: Json = None,
    notify: Annotated[
        str | None,
        typer.Option(
            envvar="KERASLINE_WEBHOOK",
            show_envvar=True,
            metavar="URL",
            help="Webhook for failures and refused models. It is a secret: prefer the environment variable.",
        ),
    ] = None,
) -> None:
    """Run a pipeline: a recipe or a Python file. The default is the recipe penguins.

    Options of Beam follow after --, for instance: run taxi -- --direct_num_workers=2
    """
    from kerasline.pipeline.commands import screen as screens
    from kerasline.pipeline.loading import MAIN_RECIPE, load_pipeline
    from kerasline.pipeline.metadata.records import checked_run_id, new_run_id
    from kerasline.pipeline.metadata.store import open_store
    from kerasline.pipeline.run import RunRequest, run_pipeline, write_run_report

    if node and (start or stop):
        raise ParameterError("--node runs one stage: expected either --node or --from and --to, received both")
    recipe = recipe or MAIN_RECIPE
    changes = parsed_settings(settings or [])
    pipeline = load_pipeline(recipe, root.place, changes)
    selected = pipeline.select(node, start, stop)
    run_id = checked_run_id(run_id) if run_id else new_run_id()
    log = root.new_log_file(run_id)
    store = open_store(root, metadata)
    request = RunRequest(
        pipeline, store, root, recipe, selected, changes, run_id, context.obj, not no_cache, notify or None
    )
    with screens.chatter_to(log) as screen:
        screen.print(f"{pipeline.name}: run {run_id} in {root}", soft_wrap=True)
        with screens.progress(screen, lambda: _of(store.executions(run_id), selected), selected):
            summary = run_pipeline(request)
        _print_end(screen, summary, write_run_report(request, summary, report), log)
    if json_file:
        write_json(json_file, summary.as_json())
    _exit_if_failed(summary)
    if all(execution.state == "skipped" for execution in summary.executions):
        raise typer.Exit(skipped_code)


def plan(
    context: typer.Context,
    recipe: Annotated[str | None, typer.Argument(metavar="[RECIPE|FILE.py]")] = None,
    device: Annotated[
        str, typer.Option(help="auto, cpu, gpu, gpu:1, or a device of another machine: h100, a100-80gb, t4, ...")
    ] = "auto",
    settings: Settings = None,
    node: Annotated[str | None, typer.Option(help="Name of the Trainer, if there are several.")] = None,
    root: Root = DEFAULT_ROOT,
    metadata: Metadata = None,
    json_file: Json = None,
) -> None:
    """Estimate the memory and time of training, and the effect of each option.

    The stages before Trainer run, or come from the cache. Nothing is trained, and no Tuner searches.
    """
    import tempfile

    from kerasline.pipeline.commands import plan as plans
    from kerasline.pipeline.commands import screen as screens
    from kerasline.pipeline.loading import MAIN_RECIPE, load_pipeline
    from kerasline.pipeline.metadata.store import new_run_id, open_store
    from kerasline.pipeline.run import RunRequest, run_pipeline

    recipe, changes, run_id = recipe or MAIN_RECIPE, parsed_settings(settings or []), new_run_id()
    pipeline = load_pipeline(recipe, root.place, changes)
    plans.known_device(device)  # fail before anything runs
    trainer = plans.trainer_of(pipeline, node)
    log = root.new_log_file(run_id)
    store = open_store(root, metadata)
    found = plans.searches(pipeline, store)
    notes = plans.describe_searches(pipeline, trainer, found)
    with screens.chatter_to(log) as screen, tempfile.TemporaryDirectory(prefix="kerasline-") as folder:
        plans.without_training(pipeline, found, Path(folder))
        selected = plans.stages_before(pipeline, trainer)
        request = RunRequest(pipeline, store, root, recipe, selected, changes, run_id, context.obj)
        for note in notes:
            screen.print(note, soft_wrap=True)
        with screens.progress(screen, lambda: store.executions(run_id), selected):
            summary = run_pipeline(request)
        if summary.state == "succeeded":
            made = plans.plan_after(summary, trainer, plans.answers_of(pipeline, trainer), device)
            plans.print_plan(screen, made)
    _exit_if_failed(summary)
    if json_file:
        write_json(json_file, made.as_json())


def _exit_if_failed(summary: Summary) -> None:
    for message in summary.failures:
        complain(message)
    if summary.state == "failed":
        raise typer.Exit(FAILED)


def _of(executions: Sequence[Execution], nodes: Sequence[str]) -> list[Execution]:
    """Return the executions of these nodes. A run may have others, executed by other calls."""
    return [execution for execution in executions if execution.node in nodes]


def _print_end(screen: Console, summary: Summary, report: Path | None, log: Path) -> None:
    from kerasline.pipeline.commands import verdict

    for table in verdict.tables(summary.executions) if screen.is_terminal else []:
        screen.print(table)
    for execution in summary.executions:
        for name in ("pushed", "saved_model"):
            if name in execution.outputs:
                where = execution.metrics.get("path", execution.outputs[name].path)
                screen.print(f"{execution.node}: {where}", soft_wrap=True)
    if report is not None:
        screen.print(f"report: {report}", soft_wrap=True)
    screen.print(f"{summary.state} in {summary.seconds:.1f} s; log: {log}", soft_wrap=True)
