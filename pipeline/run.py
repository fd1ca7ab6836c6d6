"""Run a pipeline: `run` for programs, and the steps that it shares with the command line."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kerasline.components.core import artifacts, garbage_collection
from kerasline.components.core.artifacts import Artifact
from kerasline.components.core.errors import KeraslineError, ParameterError, at_stage, named_cause, nearest
from kerasline.components.data.beam_runners import check_runner, runs_locally
from kerasline.pipeline.checks import NOT_STARTED, check_declarations, check_machine
from kerasline.pipeline.dag import Pipeline
from kerasline.pipeline.executor import LOG, Executor
from kerasline.pipeline.loading import load_pipeline
from kerasline.pipeline.metadata.liveness import alive, is_alive
from kerasline.pipeline.metadata.records import Execution, Run, checked_run_id, new_run_id, now
from kerasline.pipeline.metadata.store import Store, open_store
from kerasline.pipeline.observers import notify
from kerasline.pipeline.observers.observer import RunNotice
from kerasline.pipeline.storage import roots
from kerasline.pipeline.storage.artifact_root import ArtifactRoot
from kerasline.pipeline.storage.locks import locked


@dataclass(frozen=True)
class Summary:
    """The result of a run.

    Attributes:
        run_id: the id of the run.
        recipe: the name or file of the pipeline.
        state: "succeeded" or "failed".
        seconds: the duration of the run.
        executions: one `Execution` for each selected node, in order.
        report: the HTML report, if one was written.
    """

    run_id: str
    recipe: str
    state: str
    seconds: float
    executions: Sequence[Execution]
    report: Path | None = None

    def execution(self, node: str) -> Execution:
        """Return the execution of a node: its state, metrics, message and duration.

        Raises:
            ParameterError: the node was not part of the run.
        """
        found = {execution.node: execution for execution in self.executions}
        if node not in found:
            raise ParameterError(f"run {self.run_id}: no node {node!r} in this run; {nearest(node, found)}")
        return found[node]

    def output(self, node: str, name: str) -> Artifact:
        """Return an output of a node, opened from the local disk.

        Args:
            node: name of the node, such as "Trainer".
            name: name of the output, such as "trained_model".

        Raises:
            ParameterError: the run has no such node, or the node no such output.
            RemoteError: the output cannot be downloaded.
        """
        outputs = self.execution(node).outputs
        if name not in outputs:
            state = self.execution(node).state
            hint = nearest(name, outputs) if outputs else f"it has none, because its state is {state!r}"
            raise ParameterError(f"run {self.run_id}: {node} has no output {name!r}; {hint}")
        kind = getattr(artifacts, outputs[name].type, Artifact)
        return kind(roots.local(outputs[name].path))

    @property
    def failures(self) -> list[str]:
        """The messages of the failed nodes, each once. They begin with the stage that has the fault."""
        failed = [(e.node, e.message or "") for e in self.executions if e.state == "failed"]
        texts = (
            at_stage(node, text) if (rest := text.removeprefix(NOT_STARTED)) == text else rest for node, text in failed
        )
        return list(dict.fromkeys(texts))

    def raise_if_failed(self) -> None:
        """Raise a KeraslineError with the messages of the failed nodes, if there are any."""
        if self.failures:
            raise KeraslineError(f"run {self.run_id} failed: {'; '.join(self.failures)}")

    def as_json(self) -> dict[str, Any]:
        """Return the summary as `--json` writes it."""
        return {
            "run_id": self.run_id,
            "recipe": self.recipe,
            "state": self.state,
            "seconds": round(self.seconds, 3),
            "nodes": [
                {
                    "name": e.node,
                    "state": e.state,
                    "seconds": round(e.seconds or 0.0, 3),
                    "outputs": {name: artifact.path for name, artifact in e.outputs.items()},
                    "metrics": dict(e.metrics),
                    "message": e.message,
                }
                for e in self.executions
            ],
        }


@dataclass(frozen=True)
class RunRequest:
    """A pipeline, and how to run it.

    Attributes:
        recipe: the name or file of the pipeline, for the record.
        selected: names of the nodes to run, in order; all by default.
        settings: the parameters that the user set, for the record.
        notify: URL of a webhook that receives failures and refused models. It is a secret.
    """

    pipeline: Pipeline
    store: Store
    root: ArtifactRoot
    recipe: str = ""
    selected: Sequence[str] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    run_id: str = field(default_factory=new_run_id)
    beam_options: Sequence[str] = ()
    use_cache: bool = True
    notify: str | None = field(default=None, repr=False)


def run(
    pipeline: Pipeline | str | Path,
    *,
    root: str | Path = "runs",
    parameters: Mapping[str, Any] | None = None,
    run_id: str | None = None,
    nodes: Sequence[str] | None = None,
    use_cache: bool = True,
    metadata: str | None = None,
    beam_options: Sequence[str] = (),
    report: bool | None = None,
    webhook: str | None = None,
) -> Summary:
    """Run a pipeline, as `kerasline run` does, without printing.

    Messages of the stages go to the log file of the run, `ROOT/logs/RUN.log`. Nodes whose outputs are in the cache do
    not run again.

    Args:
        pipeline: a `Pipeline`, the name of a recipe such as "penguins", or the path of a file that defines
            `pipeline(settings)`. Stages that run in other processes need a recipe or file.
        root: path or URL of the pipeline root. Defaults to "runs".
        parameters: parameters of nodes, such as `{"Trainer.epochs": 3}`.
        run_id: id of a new run, or of one to resume. By default a new id that sorts by time.
        nodes: names of the nodes to run. All by default.
        use_cache: whether outputs of earlier runs may be reused. Defaults to True.
        metadata: SQLAlchemy URL of the metadata store. Defaults to a SQLite file in the root.
        beam_options: options of Apache Beam, such as `["--direct_num_workers=2"]`.
        report: whether to write the HTML report. By default it is written if at least one node ran or failed.
        webhook: URL of a webhook that receives failures and refused models.

    Returns:
        The `Summary`. A failed stage does not raise: see `Summary.raise_if_failed`.

    Raises:
        WiringError: the recipe or a node does not exist.
        ParameterError: an unknown parameter, or an invalid value.
        KeraslineError: the root or the metadata store cannot be used.

    Example:

    >>> examples = kl.InMemoryExampleGen({"x": [1.0, 2.0, 3.0]}, splits={"train": 1})
    >>> pipeline = kl.Pipeline("numbers", [kl.StatisticsGen(examples)])
    >>> summary = kl.run(pipeline, root=folder / "runs", report=False)
    >>> summary.state
    'succeeded'
    >>> summary.output("StatisticsGen", "statistics")
    Statistics(...)
    """
    opened = roots.root_of(root)
    changes = dict(parameters or {})
    if isinstance(pipeline, Pipeline):
        built, recipe = pipeline.with_parameters(changes), pipeline.name
    else:
        built, recipe = load_pipeline(str(pipeline), opened.place, changes), str(pipeline)
    selected = [name for node in nodes for name in built.select(node)] if nodes is not None else built.order
    run_id = checked_run_id(run_id) if run_id else new_run_id()
    log, store = opened.new_log_file(run_id), open_store(opened, metadata)
    request = RunRequest(
        built, store, opened, recipe, selected, changes, run_id, tuple(beam_options), use_cache, webhook
    )
    with _log_to(log):
        summary = run_pipeline(request)
        return dataclasses.replace(summary, report=write_run_report(request, summary, report))


def run_pipeline(request: RunRequest) -> Summary:
    """Run the selected nodes. Nodes in the cache do not run, and Beam is imported only if needed.

    Raises:
        StoreError: the metadata store fails.
        ParameterError: a parameter of a stage is wrong, `notify` is not a URL, or the Beam options name an unsupported
            runner.
        KeraslineError: the root cannot be used, or the orchestrator fails. The failure of a stage is reported in the
            summary instead.
    """
    selected, root = list(request.selected) or request.pipeline.order, request.root
    notice = RunNotice(
        request.pipeline, request.run_id, request.recipe or request.pipeline.name, root.place, tuple(selected), now()
    )
    receivers = notify.observers(request.notify)
    with notify.notified(notice, receivers, lambda: request.store.executions(request.run_id)) as ended:
        summary = _run(request, selected)
        ended(summary.state)
        return summary


def write_run_report(request: RunRequest, summary: Summary, enabled: bool | None) -> Path | None:
    """Write the report of a run. A failure to write it is logged and does not fail the run.

    Args:
        enabled: None writes it if at least one node ran or failed.
    """
    if enabled is None:
        enabled = any(execution.state not in ("cached", "skipped") for execution in summary.executions)
    if not enabled:
        return None
    from kerasline.pipeline.report import write_report

    try:
        run = request.store.run(summary.run_id)
        state = run_state(request.store, run)
        written = write_report(
            request.store, dataclasses.replace(run, state=state), request.root.report_file(summary.run_id)
        )
        request.root.keep_report(written.report, written.card)
        return written.report
    except Exception:
        LOG.exception("the report could not be written")
        return None


def run_state(store: Store, run: Run) -> str:
    """Return the state of a run. One that is recorded as running, but has no process, is "interrupted"."""
    if run.state != "running":
        return run.state
    return "running" if is_alive(store, roots.root_of(run.root), run.id) else "interrupted"


def _run(request: RunRequest, selected: Sequence[str]) -> Summary:
    check_runner(request.beam_options)
    executor = Executor(
        request.pipeline,
        request.store,
        request.root,
        request.run_id,
        selected,
        tuple(request.beam_options),
        request.use_cache,
    )
    clock, state, root = time.perf_counter(), "failed", request.root
    root.check(request.beam_options)
    with locked(root.use_lock_file, shared=True), alive(request.store, root, request.run_id):
        request.store.begin_run(_run_record(request))
        try:
            executions = _execute(executor, selected, request.beam_options)
            if all(e.state != "failed" for e in executions):
                state = "succeeded"
        finally:
            seconds = time.perf_counter() - clock
            _record_end(request, selected, state, seconds)
    return Summary(request.run_id, request.recipe, state, seconds, executions)


def _record_end(request: RunRequest, selected: Sequence[str], state: str, seconds: float) -> None:
    """Record the end of a run. If several calls run its stages, the last call records the state of all of them."""
    others = [e for e in request.store.executions(request.run_id) if e.node not in selected]
    if any(e.state == "running" for e in others):
        return
    if any(e.state == "failed" for e in others):
        state = "failed"
    if others:
        seconds = max(seconds, (now() - min(e.started for e in others)).total_seconds())
    request.store.finish_run(request.run_id, state, seconds)


def _execute(executor: Executor, selected: Sequence[str], beam_options: Sequence[str]) -> list[Execution]:
    pending: list[str] = []
    for name in selected:
        # A resumed run still has the old outputs of a pending node, so its consumers must wait for it.
        if not set(pending).isdisjoint(executor.pipeline.upstream(name)) or executor.from_cache(name) is None:
            pending.append(name)
    if pending:
        check_declarations(executor.pipeline)
        if runs_locally(beam_options):
            check_machine(executor.pipeline, pending)
        _orchestrate(executor, pending, beam_options)
    done = {e.node: e for e in executor.store.executions(executor.run_id)}
    return [done[name] for name in selected]


def _orchestrate(executor: Executor, pending: Sequence[str], options: Sequence[str]) -> None:
    if runs_locally(options):
        executor.prepare(pending)
    if len(pending) == 1 and runs_locally(options):
        # In a thread, as in Beam, so that the main thread can handle SIGTERM while TensorFlow computes.
        alone = threading.Thread(target=executor.execute, args=(pending[0],), daemon=True)
        alone.start()
        alone.join()
        return
    with garbage_collection.paused_for_imports():
        from kerasline.pipeline.runners import beam

    try:
        beam.run(executor, pending, options)
    except Exception as error:
        if "KeyboardInterrupt" in str(error):  # Beam passes on only the name
            raise KeyboardInterrupt from error
        LOG.exception("the orchestrator failed")
        raise KeraslineError(
            f"Beam could not run the pipeline: {named_cause(error)} "
            f"(traceback in {executor.root.log_file(executor.run_id)})"
        ) from error


def _run_record(request: RunRequest) -> Run:
    return Run(
        request.run_id,
        request.pipeline.name,
        request.recipe or request.pipeline.name,
        request.root.place,
        "running",
        now(),
        {str(key): str(value) for key, value in request.settings.items()},
    )


@contextlib.contextmanager
def _log_to(log: Path) -> Iterator[None]:
    """Write the messages of kerasline to the log file of a run."""
    handler = logging.FileHandler(log, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    level, propagates = LOG.level, LOG.propagate
    LOG.addHandler(handler)
    LOG.setLevel(logging.INFO)
    LOG.propagate = False
    try:
        yield
    finally:
        LOG.setLevel(level)
        LOG.propagate = propagates
        LOG.removeHandler(handler)
        handler.close()
