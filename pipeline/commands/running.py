"""`run` and `plan`: the commands under which stages run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from kerasline.components.core.errors import ParameterError
from kerasline.pipeline.commands.options import (
    DEFAULT_ROOT,
    Json,
    Metadata,
    Root,
    Settings,
    checked_run_id,
    new_log,
    opened_store,
    parsed_settings,
    report_file,
    run_of,
)
from kerasline.pipeline.commands.output import complain, write_json

FAILED = 1


def run(
    context: typer.Context,
    recipe: Annotated[str | None, typer.Argument(metavar="[RECIPE|FILE.py]")] = None,
    settings: Settings = None,
    root: Root = DEFAULT_ROOT,
    run_id: Annotated[str | None, typer.Option(help="Name the run, or take one up.")] = None,
    node: Annotated[str | None, typer.Option(help="Run this stage alone.")] = None,
    start: Annotated[str | None, typer.Option("--from", help="Run from this stage.")] = None,
    stop: Annotated[str | None, typer.Option("--to", help="Run up to this stage.")] = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Run every stage.")] = False,
    report: Annotated[
        bool | None,
        typer.Option("--report/--no-report", help="Write the run's report.", show_default="where a stage did work"),
    ] = None,
    skipped_code: Annotated[
        int, typer.Option(min=0, max=255, help="The exit status where every stage was skipped.")
    ] = 0,
    metadata: Metadata = None,
    json_file: Json = None,
    notify: Annotated[
        str | None,
        typer.Option(
            envvar="KERASLINE_WEBHOOK",
            show_envvar=True,
            metavar="URL",
            help="Tell a webhook of a failure or a refused model; best by environment.",
        ),
    ] = None,
) -> None:
    """Run a pipeline: a recipe, a file of yours, or, without either, the main job (penguins).

    Options for Beam follow after --, for instance: run taxi -- --direct_num_workers=2
    """
    from kerasline.pipeline.commands import screen as screens
    from kerasline.pipeline.loading import MAIN_RECIPE, load_pipeline
    from kerasline.pipeline.metadata.store import new_run_id
    from kerasline.pipeline.run import RunRequest, run_pipeline

    if node and (start or stop):
        raise ParameterError("--node runs one stage: give it alone, or --from and --to without it")
    recipe = recipe or MAIN_RECIPE
    changes = parsed_settings(settings or [])
    pipeline = load_pipeline(recipe, root.place, changes)
    selected = pipeline.select(node, start, stop)
    run_id = checked_run_id(run_id) if run_id else new_run_id()
    log = new_log(root, run_id)
    store = opened_store(root, metadata)
    request = RunRequest(
        pipeline, store, root, recipe, selected, changes, run_id, context.obj, not no_cache, notify or None
    )
    with screens.chatter_to(log) as screen:
        screen.print(f"{pipeline.name}: run {run_id} in {root}", soft_wrap=True)
        with screens.progress(screen, lambda: _of(store.executions(run_id), selected), selected):
            summary = run_pipeline(request)
        _print_end(screen, summary, root, _report_of(store, root, summary, report), log)
    if json_file:
        write_json(json_file, summary.as_json())
    if summary.state == "failed":
        for execution in summary.executions:
            if execution.state == "failed":
                complain(f"{execution.node}: {execution.message}")
        raise typer.Exit(FAILED)
    if all(execution.state == "skipped" for execution in summary.executions):
        raise typer.Exit(skipped_code)


def plan(
    context: typer.Context,
    recipe: Annotated[str | None, typer.Argument(metavar="[RECIPE|FILE.py]")] = None,
    device: Annotated[
        str, typer.Option(help="auto, cpu, gpu, gpu:1, or one that is not here: h100, a100-80gb, t4, ...")
    ] = "auto",
    settings: Settings = None,
    node: Annotated[str | None, typer.Option(help="The Trainer, where there are several.")] = None,
    root: Root = DEFAULT_ROOT,
    metadata: Metadata = None,
    json_file: Json = None,
) -> None:
    """Tell what training will take, memory, time and what each choice would change, before it begins.

    The stages before Trainer are run, or taken from the cache.
    """
    from kerasline.pipeline import plan as plans
    from kerasline.pipeline.commands import screen as screens
    from kerasline.pipeline.loading import MAIN_RECIPE, load_pipeline
    from kerasline.pipeline.metadata.store import new_run_id
    from kerasline.pipeline.run import RunRequest, run_pipeline

    recipe, changes, run_id = recipe or MAIN_RECIPE, parsed_settings(settings or []), new_run_id()
    pipeline = load_pipeline(recipe, root.place, changes)
    plans.known_device(device)  # a name that is wrong is told before anything runs
    trainer = plans.trainer_of(pipeline, node)
    selected = plans.stages_before(pipeline, trainer)
    log = new_log(root, run_id)
    store = opened_store(root, metadata)
    request = RunRequest(pipeline, store, root, recipe, selected, changes, run_id, context.obj)
    with screens.chatter_to(log) as screen:
        with screens.progress(screen, lambda: store.executions(run_id), selected):
            summary = run_pipeline(request)
        made = plans.plan_after(summary, root, trainer, device)
        plans.print_plan(screen, made)
    if json_file:
        write_json(json_file, made.as_json())


def _of(executions: Sequence[Any], nodes: Sequence[str]) -> list[Any]:
    """Those of the nodes; a run that several calls make has others too."""
    return [execution for execution in executions if execution.node in nodes]


def _report_of(store: Any, root: Any, summary: Any, wanted: bool | None) -> Path | None:
    """The report, by default of a run in which a stage did work; a fault of the report's is none of the run's."""
    if wanted is None:
        wanted = any(execution.state not in ("cached", "skipped") for execution in summary.executions)
    if not wanted:
        return None
    import logging

    from kerasline.pipeline.report import write_report

    try:
        written = write_report(store, run_of(store, summary.run_id), report_file(root, summary.run_id))
        root.keep_report(written.report, written.card)
        return written.report
    except Exception:
        logging.getLogger("kerasline").exception("the report could not be written")
        return None


def _print_end(screen: Any, summary: Any, root: Any, report: Path | None, log: Path) -> None:
    from kerasline.pipeline.commands import verdict

    for table in verdict.tables(summary.executions, root) if screen.is_terminal else []:
        screen.print(table)
    for execution in summary.executions:
        for name in ("pushed", "saved_model"):
            if name in execution.outputs:
                where = execution.metrics.get("path", execution.outputs[name].path)
                screen.print(f"{execution.node}: {where}", soft_wrap=True)
    if report is not None:
        screen.print(f"report: {report}", soft_wrap=True)
    screen.print(f"{summary.state} in {summary.seconds:.1f} s; log: {log}", soft_wrap=True)
