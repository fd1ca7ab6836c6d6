"""A whole run, from a pipeline to its summary: what the command line and programs call."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kerasline.components.core.errors import KeraslineError
from kerasline.components.data.beam_runners import check_runner, runs_here
from kerasline.pipeline.dag import Pipeline
from kerasline.pipeline.executor import LOG, Executor
from kerasline.pipeline.metadata.liveness import alive
from kerasline.pipeline.metadata.store import Execution, Run, Store, new_run_id, now
from kerasline.pipeline.observers.notices import noticed
from kerasline.pipeline.storage.locks import locked
from kerasline.pipeline.storage.publishing import ArtifactRoot


@dataclass(frozen=True)
class Summary:
    """How a run went. `state`: succeeded or failed."""

    run_id: str
    recipe: str
    state: str
    seconds: float
    executions: Sequence[Execution]

    def as_json(self) -> dict[str, Any]:
        """The summary in the form that `--json` writes."""
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
    """What to run and how.

    Attributes:
        recipe: its name or file, for the record.
        selected: the nodes to run, in order; all by default.
        settings: parameters set by the user, for the record.
        notify: the URL of a webhook that is told of a failure and of a refused model; a secret.
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


@noticed
def run_pipeline(request: RunRequest) -> Summary:
    """Runs the selected nodes; what is in the cache is not run, and Beam is loaded only if needed.

    Raises:
        StoreError: the metadata store fails.
        ParameterError: `notify` is not a URL; the Beam options name a runner that does not do.
        KeraslineError: the root cannot be used, or the orchestrator itself fails; a stage's failure is in the
            summary instead.
    """
    check_runner(request.beam_options)
    selected = list(request.selected) or request.pipeline.order
    executor = Executor(
        request.pipeline,
        request.store,
        request.root,
        request.run_id,
        selected,
        tuple(request.beam_options),
        request.use_cache,
    )
    clock, state = time.perf_counter(), "failed"
    root = request.root
    root.check(request.beam_options)
    with locked(root.use_lock_file, shared=True), alive(request.store, root, request.run_id):
        request.store.begin_run(_record_of(request))
        try:
            executions = _executed(executor, selected, request.beam_options)
            if all(e.state != "failed" for e in executions):
                state = "succeeded"
        finally:
            seconds = time.perf_counter() - clock
            _record_end(request, selected, state, seconds)
    return Summary(request.run_id, request.recipe, state, seconds, executions)


def _record_end(request: RunRequest, selected: Sequence[str], state: str, seconds: float) -> None:
    """Where several calls make a run, a stage each, it ends with the last of them, as all its stages say."""
    others = [e for e in request.store.executions(request.run_id) if e.node not in selected]
    if any(e.state == "running" for e in others):
        return
    if any(e.state == "failed" for e in others):
        state = "failed"
    if others:
        seconds = max(seconds, (now() - min(e.started for e in others)).total_seconds())
    request.store.finish_run(request.run_id, state, seconds)


def _executed(executor: Executor, selected: Sequence[str], beam_options: Sequence[str]) -> list[Execution]:
    pending: list[str] = []
    for name in selected:
        # What reads of a node that is still to run waits for it: a run taken up again has that node's old outputs.
        if not set(pending).isdisjoint(executor.pipeline.upstream(name)) or executor.from_cache(name) is None:
            pending.append(name)
    if pending:
        _orchestrate(executor, pending, beam_options)
    done = {e.node: e for e in executor.store.executions(executor.run_id)}
    return [done[name] for name in selected]


def _orchestrate(executor: Executor, pending: Sequence[str], options: Sequence[str]) -> None:
    if runs_here(options):
        executor.prepare(pending)
    if len(pending) == 1 and runs_here(options):
        # In a thread, as Beam would: this one stays free to answer SIGTERM while TensorFlow computes.
        alone = threading.Thread(target=executor.execute, args=(pending[0],), daemon=True)
        alone.start()
        alone.join()
        return
    from kerasline.pipeline.runners import beam

    try:
        beam.run(executor, pending, options)
    except Exception as error:
        if "KeyboardInterrupt" in str(error):  # in a stage that ran in this thread: Beam hands on its name alone
            raise KeyboardInterrupt from error
        LOG.exception("the orchestrator failed")
        raise KeraslineError(
            f"Beam could not run the pipeline: {type(error).__name__}: {str(error)[:300]} "
            f"(traceback in {executor.root.log_file(executor.run_id)})"
        ) from error


def _record_of(request: RunRequest) -> Run:
    return Run(
        request.run_id,
        request.pipeline.name,
        request.recipe or request.pipeline.name,
        request.root.place,
        "running",
        now(),
        {str(key): str(value) for key, value in request.settings.items()},
    )
