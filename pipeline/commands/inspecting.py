"""`recipes`, `runs`, `show`, `lineage`, `report`: list and inspect."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kerasline.pipeline.commands.options import (
    DEFAULT_ROOT,
    Json,
    Metadata,
    Root,
    find_other_run,
    find_run,
)
from kerasline.pipeline.commands.output import show_table, write_json


def recipes(json_file: Json = None) -> None:
    """List the recipes."""
    from kerasline.pipeline.loading import recipe_names, recipe_summary

    rows = [(name, recipe_summary(name)) for name in recipe_names()]
    show_table(json_file, ("recipe", "what it does"), rows, [dict(zip(("name", "about"), r)) for r in rows])


def runs(root: Root = DEFAULT_ROOT, metadata: Metadata = None, json_file: Json = None) -> None:
    """List the runs, newest first."""
    from kerasline.pipeline.metadata.store import open_store
    from kerasline.pipeline.run import run_state

    rows, values = [], []
    store = open_store(root, metadata, must_exist=True)
    for item in store.runs():
        state = run_state(store, item)
        seconds = f"{item.seconds:.1f}" if item.seconds is not None else ""
        rows.append((item.id, item.recipe, state, f"{item.started:%Y-%m-%d %H:%M:%S}", seconds))
        values.append({**vars(item), "state": state})
    show_table(json_file, ("run", "recipe", "state", "started (UTC)", "seconds"), rows, values)


def show(
    run_id: Annotated[str, typer.Argument(metavar="RUN")],
    root: Root = DEFAULT_ROOT,
    metadata: Metadata = None,
    json_file: Json = None,
) -> None:
    """Show the stages of a run, their outputs and metrics, and the evaluation of its model.

    RUN: an id, its beginning, or latest.
    """
    from kerasline.pipeline.commands.screen import figures
    from kerasline.pipeline.metadata.store import open_store
    from kerasline.pipeline.run import Summary

    store = open_store(root, metadata, must_exist=True)
    item = find_run(store, run_id)
    executions = store.executions(item.id)
    summary = Summary(item.id, item.recipe, item.state, item.seconds or 0.0, executions)
    rows = []
    for e in executions:
        outputs = [f"{name}: {artifact.path}" for name, artifact in e.outputs.items()]
        details = "\n".join(filter(None, [e.message, figures(e.metrics), *outputs]))
        rows.append((e.node, e.state, f"{e.seconds or 0:.1f}", details))
    show_table(json_file, ("stage", "state", "seconds", "figures and outputs"), rows, summary.as_json())
    if not json_file:
        from kerasline.pipeline.commands import verdict
        from kerasline.pipeline.commands.screen import console

        for table in verdict.tables(executions):
            console().print(table)


def lineage(
    key: Annotated[str, typer.Argument(metavar="ARTIFACT-OR-RUN")],
    root: Root = DEFAULT_ROOT,
    metadata: Metadata = None,
    json_file: Json = None,
) -> None:
    """Show the inputs and consumers of an artifact (path or id), or of each output of a run (id or latest)."""
    from kerasline.pipeline.metadata.lineage import as_tree, trace
    from kerasline.pipeline.metadata.store import open_store

    found = trace(open_store(root, metadata, must_exist=True), key)
    if json_file:
        write_json(json_file, found)
        return
    from kerasline.pipeline.commands.screen import console

    for item in found:
        console().print(as_tree(item), soft_wrap=True)


def report(
    run_id: Annotated[str, typer.Argument(metavar="RUN")],
    against: Annotated[
        str | None, typer.Option(metavar="RUN", help="Compare with this run; latest: the newest other one.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The HTML file.", show_default="in root/reports")
    ] = None,
    root: Root = DEFAULT_ROOT,
    metadata: Metadata = None,
    json_file: Json = None,
) -> None:
    """Write a run's report, one HTML file, and its model card as Markdown. RUN: an id, its beginning, or latest."""
    from kerasline.pipeline.metadata.store import open_store
    from kerasline.pipeline.report import write_report

    store = open_store(root, metadata, must_exist=True)
    item = find_run(store, run_id)
    others = [find_other_run(store, against, item)] if against else []
    written = write_report(store, item, output or root.report_file(item.id), *others)
    if output is None:
        root.keep_report(written.report, written.card)
    if json_file:
        write_json(json_file, written.as_json())
    if str(json_file) != "-":
        print(written.report)
