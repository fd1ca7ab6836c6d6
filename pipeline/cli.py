"""The command line. Parses, asks the other modules, prints; knows no more than that."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn, Optional

import typer

from components import interruption
from components.errors import KeraslineError, ParameterError, nearest

FAILED, WRONG_CALL, INTERRUPTED = 1, 2, 130

app = typer.Typer(
    name="run_pipeline.py",
    help="Pipelines for Keras 3: from raw data to a trained, evaluated, exported model.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _root_of(place: Any) -> Any:
    from pipeline.publishing import root_of

    return root_of(str(place))


# What a command gets is an ArtifactRoot.
Root = Annotated[
    Any,
    typer.Option(
        parser=_root_of, metavar="DIR|URL", help="The pipeline root: artifacts, metadata and logs; docs/REMOTE.md."
    ),
]
Metadata = Annotated[
    Optional[str],
    typer.Option(
        help="The metadata store's SQLAlchemy URL.",
        show_default="in root",
        envvar="KERASLINE_METADATA",
        show_envvar=True,
    ),
]
Json = Annotated[Optional[Path], typer.Option("--json", help="Write the result there as JSON.")]
DEFAULT_ROOT: Any = "runs"


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs the command line; what follows `--` are Beam's options."""
    interruption.install()
    given = list(sys.argv[1:] if arguments is None else arguments)
    beam_options: list[str] = []
    if "--" in given:
        split = given.index("--")
        given, beam_options = given[:split], given[split + 1 :]
    try:
        code = app(given, standalone_mode=False, obj=beam_options) or 0
    except typer.Exit as stop:
        code = stop.exit_code
    except (KeyboardInterrupt, typer.Abort):
        _complain("interrupted; the same command takes up where it stopped")
        code = INTERRUPTED
    except KeraslineError as error:
        _complain(str(error))
        code = WRONG_CALL
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        code = 0
    except Exception as error:
        code = _usage_error(error)
    sys.exit(code)


@app.command()
def run(
    context: typer.Context,
    recipe: Annotated[Optional[str], typer.Argument(metavar="[RECIPE|FILE.py]")] = None,
    settings: Annotated[
        Optional[list[str]],
        typer.Option("--set", metavar="NODE.PARAM=VALUE", help="Set a stage's parameter."),
    ] = None,
    root: Root = DEFAULT_ROOT,
    run_id: Annotated[Optional[str], typer.Option(help="Name the run, or take one up.")] = None,
    node: Annotated[Optional[str], typer.Option(help="Run this stage alone.")] = None,
    start: Annotated[Optional[str], typer.Option("--from", help="Run from this stage.")] = None,
    stop: Annotated[Optional[str], typer.Option("--to", help="Run up to this stage.")] = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Run every stage.")] = False,
    report: Annotated[
        Optional[bool],
        typer.Option(
            "--report/--no-report", help="Write the run's report.", show_default="where a stage did work"
        ),
    ] = None,
    skipped_code: Annotated[
        int, typer.Option(min=0, max=255, help="The exit status where every stage was skipped.")
    ] = 0,
    metadata: Metadata = None,
    json_file: Json = None,
    notify: Annotated[
        Optional[str],
        typer.Option(
            envvar="KERASLINE_WEBHOOK", show_envvar=True, metavar="URL",
            help="Tell a webhook of a failure or a refused model; best by environment.",
        ),
    ] = None,
) -> None:
    """Run a pipeline: a recipe, a file of yours, or, without either, the main job (penguins).

    Options for Beam follow after --, for instance: run taxi -- --direct_num_workers=2
    """
    from pipeline import screen as screens
    from pipeline.loading import MAIN_RECIPE, load_pipeline
    from pipeline.run import RunRequest, run_pipeline
    from pipeline.store import new_run_id

    if node and (start or stop):
        raise ParameterError("--node runs one stage: give it alone, or --from and --to without it")
    recipe = recipe or MAIN_RECIPE
    changes = _parsed_settings(settings or [])
    pipeline = load_pipeline(recipe, root.place, changes)
    selected = pipeline.select(node, start, stop)
    run_id = _checked_run_id(run_id) if run_id else new_run_id()
    log = _new_log(root, run_id)
    store = _store(root, metadata)
    request = RunRequest(
        pipeline, store, root, recipe, selected, changes, run_id, context.obj, not no_cache, notify or None
    )
    with screens.chatter_to(log) as screen:
        screen.print(f"{pipeline.name}: run {run_id} in {root}", soft_wrap=True)
        with screens.progress(screen, lambda: _of(store.executions(run_id), selected), selected):
            summary = run_pipeline(request)
        _print_end(screen, summary, root, _report_of(store, root, summary, report), log)
    if json_file:
        _write_json(json_file, summary.as_json())
    if summary.state == "failed":
        for execution in summary.executions:
            if execution.state == "failed":
                _complain(f"{execution.node}: {execution.message}")
        raise typer.Exit(FAILED)
    if all(execution.state == "skipped" for execution in summary.executions):
        raise typer.Exit(skipped_code)


@app.command()
def plan(
    context: typer.Context,
    recipe: Annotated[Optional[str], typer.Argument(metavar="[RECIPE|FILE.py]")] = None,
    device: Annotated[
        str, typer.Option(help="auto, cpu, gpu, gpu:1, or one that is not here: h100, a100-80gb, t4, ...")
    ] = "auto",
    settings: Annotated[
        Optional[list[str]],
        typer.Option("--set", metavar="NODE.PARAM=VALUE", help="Set a stage's parameter."),
    ] = None,
    node: Annotated[Optional[str], typer.Option(help="The Trainer, where there are several.")] = None,
    root: Root = DEFAULT_ROOT,
    metadata: Metadata = None,
    json_file: Json = None,
) -> None:
    """Tell what training will take, memory, time and what each choice would change, before it begins.

    The stages before Trainer are run, or taken from the cache.
    """
    from pipeline import plan as plans
    from pipeline import screen as screens
    from pipeline.loading import MAIN_RECIPE, load_pipeline
    from pipeline.run import RunRequest, run_pipeline
    from pipeline.store import new_run_id

    recipe, changes, run_id = recipe or MAIN_RECIPE, _parsed_settings(settings or []), new_run_id()
    pipeline = load_pipeline(recipe, root.place, changes)
    plans.known_device(device)  # a name that is wrong is told before anything runs
    trainer = plans.trainer_of(pipeline, node)
    selected = plans.stages_before(pipeline, trainer)
    log = _new_log(root, run_id)
    store = _store(root, metadata)
    request = RunRequest(pipeline, store, root, recipe, selected, changes, run_id, context.obj)
    with screens.chatter_to(log) as screen:
        with screens.progress(screen, lambda: store.executions(run_id), selected):
            summary = run_pipeline(request)
        made = plans.plan_after(summary, root, trainer, device)
        plans.print_plan(screen, made)
    if json_file:
        _write_json(json_file, made.as_json())


@app.command()
def airflow(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE|FILE.py")],
    output: Annotated[
        Optional[Path],
        typer.Option("-o", "--output", help="The DAG file; FILE.json for the factory.", show_default="the screen"),
    ] = None,
    schedule: Annotated[
        Optional[str], typer.Option(help="A cron expression, or such as @daily.", show_default="by hand")
    ] = None,
    timezone: Annotated[str, typer.Option(help="Of the schedule, and of the days that data are of.")] = "UTC",
    start_date: Annotated[str, typer.Option(help="The first day, YYYY-MM-DD.")] = "2026-01-01",
    catchup: Annotated[bool, typer.Option("--catchup/--no-catchup", help="Run for the days gone by.")] = False,
    runs_at_once: Annotated[int, typer.Option(min=1, help="DAG runs side by side.")] = 1,
    retries: Annotated[int, typer.Option(min=0, help="Further tries of a stage that failed.")] = 1,
    retry_minutes: Annotated[float, typer.Option(min=0, help="The pause before one.")] = 1.0,
    pools: Annotated[
        Optional[list[str]],
        typer.Option("--pool", metavar="[NODE=]POOL", help="Airflow's pool of all stages, or of one."),
    ] = None,
    params: Annotated[
        Optional[list[str]],
        typer.Option("--param", metavar="PATTERN", help="What can be set at a start, as in 'Trainer.*'; all."),
    ] = None,
    tags: Annotated[Optional[list[str]], typer.Option("--tag", help="Of the DAG.")] = None,
    dag_id: Annotated[Optional[str], typer.Option(help="The DAG's name.", show_default="the pipeline's")] = None,
    operator: Annotated[
        str, typer.Option(help="What runs stages: command, external-python, docker, kubernetes.")
    ] = "command",
    image: Annotated[str, typer.Option(help="Of containers; kerasline is installed in it.")] = "",
    command: Annotated[
        Optional[str], typer.Option(help="Calls kerasline where stages run.", show_default="this one")
    ] = None,
    reports: Annotated[
        Optional[str],
        typer.Option(metavar="URL", help="Where the folder of reports is served.", show_default="its files"),
    ] = None,
    fail_refused: Annotated[
        bool, typer.Option("--fail-refused", help="A refused model fails Pusher instead of skipping it.")
    ] = False,
    settings: Annotated[
        Optional[list[str]],
        typer.Option("--set", metavar="NODE.PARAM=VALUE", help="Set a stage's parameter in every run."),
    ] = None,
    root: Root = DEFAULT_ROOT,
    metadata: Annotated[
        Optional[str], typer.Option(help="The metadata store's SQLAlchemy URL, without a password.")
    ] = None,
) -> None:
    """Write an Airflow 3 DAG of a pipeline: a task for each stage, run in this environment or in containers."""
    from pipeline.loading import load_pipeline
    from pipeline.runners.airflow.dag_file import dag_file
    from pipeline.runners.airflow.describe import describe, this_command
    from pipeline.runners.airflow.description import Place, Timing

    fixed, where = _parsed_settings(settings or []), root.place
    in_image = operator in ("docker", "kubernetes")
    description = describe(
        load_pipeline(recipe, where, fixed), recipe, fixed=fixed, dag_id=dag_id, wanted=params or ["*"],
        pools=pools or [], tags=tags or [], fail_refused=fail_refused,
        place=Place(
            command=command or ("python -m run_pipeline" if in_image else this_command()),
            folder=str(Path.cwd()), root=where, reports=reports or (root.shared and where or f"file://{where}") + "/reports",
            metadata=metadata, operator=operator, image=image,
        ),
        timing=Timing(schedule, timezone, start_date, catchup, retries, retry_minutes, runs_at_once),
    )  # fmt: skip
    if output is None:
        sys.stdout.write(dag_file(description))
        return
    text = description.as_json() if output.suffix == ".json" else dag_file(description)
    _write_text(output, text, f"--output {output}")
    print(output)


@app.command()
def recipes(json_file: Json = None) -> None:
    """List the ready pipelines."""
    from pipeline.loading import recipe_names, recipe_summary

    rows = [(name, recipe_summary(name)) for name in recipe_names()]
    _show(json_file, ("recipe", "what it does"), rows, [dict(zip(("name", "about"), r)) for r in rows])


@app.command()
def runs(root: Root = DEFAULT_ROOT, metadata: Metadata = None, json_file: Json = None) -> None:
    """List the runs, the newest first."""
    rows, values = [], []
    for item in _store(root, metadata, must_exist=True).runs():
        state = _state(item)
        seconds = f"{item.seconds:.1f}" if item.seconds is not None else ""
        rows.append((item.id, item.recipe, state, f"{item.started:%Y-%m-%d %H:%M:%S}", seconds))
        values.append({**vars(item), "state": state})
    _show(json_file, ("run", "recipe", "state", "started (UTC)", "seconds"), rows, values)


@app.command()
def show(
    run_id: Annotated[str, typer.Argument(metavar="RUN")],
    root: Root = DEFAULT_ROOT,
    metadata: Metadata = None,
    json_file: Json = None,
) -> None:
    """Show a run's stages, how each went and what came of it, and how good the model is.

    RUN: an id, its beginning, or latest.
    """
    from pipeline.run import Summary
    from pipeline.screen import figures

    store = _store(root, metadata, must_exist=True)
    item = _run_of(store, run_id)
    executions = store.executions(item.id)
    summary = Summary(item.id, item.recipe, item.state, item.seconds or 0.0, executions)
    rows = []
    for e in executions:
        outputs = [f"{name}: {artifact.path}" for name, artifact in e.outputs.items()]
        told = "\n".join(filter(None, [e.message, figures(e.metrics), *outputs]))
        rows.append((e.node, e.state, f"{e.seconds or 0:.1f}", told))
    _show(json_file, ("stage", "state", "seconds", "figures and outputs"), rows, summary.as_json())
    if not json_file:
        from pipeline import verdict
        from pipeline.screen import console

        for table in verdict.tables(executions, root):
            console().print(table)


@app.command()
def lineage(
    key: Annotated[str, typer.Argument(metavar="ARTIFACT-OR-RUN")],
    root: Root = DEFAULT_ROOT,
    metadata: Metadata = None,
    json_file: Json = None,
) -> None:
    """Show what an artifact (its path or id), or each output of a run, was made from and is used by."""
    from pipeline.lineage import as_tree, trace

    found = trace(_store(root, metadata, must_exist=True), key)
    if json_file:
        _write_json(json_file, found)
        return
    from pipeline.screen import console

    for item in found:
        console().print(as_tree(item), soft_wrap=True)


@app.command()
def report(
    run_id: Annotated[str, typer.Argument(metavar="RUN")],
    against: Annotated[Optional[str], typer.Option(metavar="RUN", help="Compare with this run.")] = None,
    output: Annotated[
        Optional[Path], typer.Option("-o", "--output", help="The HTML file.", show_default="in root/reports")
    ] = None,
    root: Root = DEFAULT_ROOT,
    metadata: Metadata = None,
    json_file: Json = None,
) -> None:
    """Write a run's report, one HTML file, and its model card as Markdown. RUN: an id, its beginning, or latest."""
    from pipeline.report import write_report

    store = _store(root, metadata, must_exist=True)
    item, *others = [_run_of(store, key) for key in (run_id, against) if key]
    written = write_report(store, item, output or _report_file(root, item.id), *others)
    if output is None:
        root.keep_report(written.report, written.card)
    if json_file:
        _write_json(json_file, written.as_json())
    if str(json_file) != "-":
        print(written.report)


@app.command()
def gc(
    root: Root = DEFAULT_ROOT,
    metadata: Metadata = None,
    keep: Annotated[int, typer.Option(min=0, help="Runs of each pipeline whose outputs stay.")] = 5,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    json_file: Json = None,
) -> None:
    """Remove what dead processes left, and outputs that none of the newest runs uses."""
    from pipeline.garbage import collect

    store = _store(root, metadata, must_exist=True)
    removed = collect(store, root, keep=keep, dry_run=dry_run)
    rows = [(item.path, item.why, f"{item.size_bytes / 1e6:.1f} MB") for item in removed]
    values = [{"path": i.path, "why": i.why, "size_bytes": i.size_bytes} for i in removed]
    _show(json_file, ("would go" if dry_run else "removed", "why", "size"), rows, values)


@app.command()
def serve(
    folder: Annotated[
        Optional[Path],
        typer.Argument(
            metavar="[MODEL-DIR]", help="A folder of versions, as Pusher writes it, or a SavedModel."
        ),
    ] = None,
    models: Annotated[
        Optional[list[str]],
        typer.Option("--model", metavar="NAME=DIR", help="Serve this too, under that name."),
    ] = None,
    labels: Annotated[
        Optional[list[str]],
        typer.Option("--label", metavar="NAME:LABEL=VERSION", help="Name a version and keep it loaded."),
    ] = None,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    rest_port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free port.")] = 8501,
    grpc_port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free port.")] = 8500,
    rest: Annotated[bool, typer.Option("--rest/--no-rest", help="Answer REST.")] = True,
    grpc: Annotated[bool, typer.Option("--grpc/--no-grpc", help="Answer gRPC.")] = True,
    keep: Annotated[int, typer.Option(min=1, help="Load so many: the one served and the newest others.")] = 1,
    poll: Annotated[float, typer.Option(min=0.05, help="Look for new versions every so many seconds.")] = 1.0,
    batching: Annotated[
        bool, typer.Option("--batching/--no-batching", help="Execute requests together.")
    ] = True,
    batch_rows: Annotated[int, typer.Option(min=1, help="The most rows in one execution.")] = 128,
    batch_delay: Annotated[
        float, typer.Option(min=0, help="Milliseconds to wait for more; 0 is best.")
    ] = 0.0,
    queue: Annotated[int, typer.Option(min=1, help="The most requests that may wait; then 429.")] = 1000,
    request_megabytes: Annotated[
        float, typer.Option(min=0.001, help="The largest request; above, 413.")
    ] = 32.0,
    pending_megabytes: Annotated[
        float, typer.Option(min=0.001, help="All requests under way together.")
    ] = 256.0,
    connections: Annotated[int, typer.Option(min=1, help="The most connections at once.")] = 1000,
    timeout: Annotated[
        float, typer.Option(min=0.001, help="The most seconds for a request; then 504.")
    ] = 30.0,
    idle: Annotated[
        float, typer.Option(min=0.1, help="Seconds until a silent or slow client is cut off.")
    ] = 60.0,
    drain: Annotated[float, typer.Option(min=0, help="Seconds for requests under way after SIGTERM.")] = 30.0,
    tls_certificate: Annotated[Optional[Path], typer.Option(help="PEM file; with --tls-key.")] = None,
    tls_key: Annotated[Optional[Path], typer.Option(help="PEM file.")] = None,
    api_key: Annotated[
        Optional[str],
        typer.Option(
            envvar="KERASLINE_API_KEY", show_envvar=True, help="What clients must send; best by environment."
        ),
    ] = None,
    access_log: Annotated[
        Optional[str], typer.Option(help="JSON lines to this file; - is the screen.")
    ] = None,
) -> None:
    """Serve models by TensorFlow Serving's REST and gRPC interfaces; new versions are taken up as they come."""
    from dataclasses import replace

    from components.serving.settings import (
        MEBIBYTE,
        BatchSettings,
        Limits,
        ModelSource,
        ServerSettings,
        source_of,
    )  # fmt: skip

    sources = [source_of(folder)] if folder is not None else []
    for text in models or []:
        name, equals, path = text.partition("=")
        if not equals or not path:
            raise ParameterError(f"--model {text}: NAME=DIR wanted, as in penguins=served/penguins")
        sources.append(ModelSource(name, Path(path).absolute()))
    for text in labels or []:
        name, label, version = _parsed_label(text, sources)
        place = [source.name for source in sources].index(name)
        sources[place] = replace(sources[place], labels={**sources[place].labels, label: version})
    settings = ServerSettings(
        models=tuple(sources),
        host=host,
        rest_port=rest_port if rest else None,
        grpc_port=grpc_port if grpc else None,
        keep_versions=keep,
        poll_seconds=poll,
        drain_seconds=drain,
        batch=BatchSettings(batch_rows, batch_delay / 1e3, queue, batching),
        limits=Limits(
            int(request_megabytes * MEBIBYTE), int(pending_megabytes * MEBIBYTE), connections, timeout, idle
        ),
        certificate=tls_certificate,
        key=tls_key,
        api_key=api_key,
        access_log=access_log,
    )
    from components.serving.versions import check_sources

    check_sources(settings.models)  # before anything heavy is imported
    try:
        from components.serving.server import run as run_server
    except ModuleNotFoundError as error:
        raise KeraslineError(f"serve needs {error.name}: pip install 'kerasline[serve]'") from error
    run_server(settings, lambda line: print(line, flush=True))


def _parsed_label(text: str, sources: Sequence[Any]) -> tuple[str, str, int]:
    place, equals, version = text.partition("=")
    name, colon, label = place.rpartition(":")
    if not colon and len(sources) == 1:
        name = sources[0].name
    if not equals or not label or not version.isdigit():
        raise ParameterError(f"--label {text}: NAME:LABEL=VERSION wanted, as in penguins:stable=3")
    if name not in [source.name for source in sources]:
        raise ParameterError(f"--label {text}: {nearest(name, [source.name for source in sources])}")
    return name, label, int(version)


@app.command()
def rollback(
    destination: Annotated[str, typer.Argument(help="The folder of versions that a Pusher fills: a path or URL.")],
    to: Annotated[Optional[int], typer.Option(help="The version; by default the one before the latest.")] = None,
    json_file: Json = None,
) -> None:
    """Serve an earlier version of a pushed model again: `latest` points to it from one instant to the next."""
    from pipeline.rollback import rolled_back

    found = rolled_back(destination, to)
    if json_file:
        _write_json(json_file, found)
        return
    typer.echo(f"{found['destination']}: latest was {found['from'] or 'not set'}, is {found['to']}")


def _new_log(root: Any, run_id: str) -> Path:
    log = root.log_file(run_id)
    with _usable(root):
        log.parent.mkdir(parents=True, exist_ok=True)
        log.touch()
    return log


def _parsed_settings(texts: Sequence[str]) -> dict[str, str]:
    changes = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or "." not in key:
            raise ParameterError(f"--set {text}: NODE.PARAM=VALUE wanted, as in Trainer.epochs=3")
        changes[key.strip()] = value
    return changes


def _checked_run_id(run_id: str) -> str:
    import re

    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.:+-]{0,99}", run_id):
        raise ParameterError(
            f"--run-id {run_id!r}: up to 100 letters, digits, '_', '.', ':', '+' and '-' wanted"
        )
    return run_id


def _store(root: Any, url: str | None, *, must_exist: bool = False) -> Any:
    from pipeline.store import Store, sqlite_url

    path = root.path / "metadata.sqlite"
    if must_exist and url is None and not path.exists():
        raise KeraslineError(f"{root}: no pipeline root (it has no metadata.sqlite); give its --root")
    with _usable(root):
        return Store(url or sqlite_url(path))


@contextlib.contextmanager
def _usable(root: Any) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise KeraslineError(f"--root {root}: {error.strerror}: {error.filename}") from error


def _run_of(store: Any, key: str) -> Any:
    """A run by its id, the beginning of it, or `latest`; its state as people should read it."""
    from dataclasses import replace

    newest = store.runs()[:1] if key == "latest" else []
    item = newest[0] if newest else store.run(key)
    return replace(item, state=_state(item))


def _state(item: Any) -> str:
    """A run's state; one that says it is running, while no process holds its lock, was killed."""
    if item.state != "running":
        return item.state
    from pipeline.publishing import root_of

    return "running" if root_of(item.root).is_run_alive(item.id) else "interrupted"


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

    from pipeline.report import write_report

    try:
        written = write_report(store, _run_of(store, summary.run_id), _report_file(root, summary.run_id))
        root.keep_report(written.report, written.card)
        return written.report
    except Exception:
        logging.getLogger("kerasline").exception("the report could not be written")
        return None


def _report_file(root: Any, run_id: str) -> Path:
    return root.reports / f"{run_id}.html"


def _print_end(screen: Any, summary: Any, root: Any, report: Path | None, log: Path) -> None:
    from pipeline import verdict

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


def _show(json_file: Path | None, columns: Sequence[str], rows: Sequence[Sequence[str]], value: Any) -> None:
    if json_file:
        _write_json(json_file, value)
        return
    from pipeline.screen import console, plain_table

    console().print(plain_table(columns, rows))


def _write_json(path: Path, value: Any) -> None:
    """Writes a value as JSON; `-` is the screen."""
    text = json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n"
    if str(path) == "-":
        sys.stdout.write(text)
        return
    _write_text(path, text, f"--json {path}")


def _write_text(path: Path, text: str, told: str) -> None:
    """Writes aside and renames, so that a reader never meets half a file."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        aside.write_text(text, encoding="utf-8")
        aside.rename(path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise KeraslineError(f"{told}: {error.strerror}") from error


def _usage_error(error: Exception) -> int:
    """A call that cannot be parsed is told in one line; anything else is ours, and is raised."""
    if hasattr(error, "format_message") and hasattr(error, "exit_code"):
        if error.format_message():
            _complain(f"{error.format_message()} (try --help)")
        return WRONG_CALL
    raise error


def _complain(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
