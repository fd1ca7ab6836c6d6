"""Who is told how a run goes: observers, which the environment and the command line name.

A run and its stages may be executed in several processes. Each asks its own environment whom to tell, so nothing
of an observer travels between them, least of all a secret. What goes wrong with an observer is logged and costs
the run nothing.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from kerasline.pipeline.dag import Pipeline
from kerasline.pipeline.metadata.store import Execution, now

if TYPE_CHECKING:
    import datetime

    from kerasline.pipeline.run import RunRequest, Summary

LOG = logging.getLogger("kerasline")


@dataclass(frozen=True)
class RunNotice:
    """A run as observers see it.

    Attributes:
        root: the pipeline root.
        selected: the stages that it runs.
        state: running, succeeded, failed or interrupted.
        executions: of the stages; empty when it begins.
        message: why it ended without having come through, where no stage says so.
    """

    pipeline: Pipeline
    run_id: str
    recipe: str
    root: str
    selected: Sequence[str]
    started: datetime.datetime
    state: str = "running"
    seconds: float = 0.0
    executions: Sequence[Execution] = ()
    message: str | None = None

    @property
    def is_one_stage_of_many(self) -> bool:
        """Whether somebody else, such as Airflow, runs the stages one by one, of which this is one."""
        return len(self.selected) == 1 < len(self.pipeline.nodes)


class Observer(Protocol):
    """Is told in the process in which it happens. May be called by several threads."""

    def run_began(self, run: RunNotice) -> None: ...

    def stage_began(self, pipeline: Pipeline, execution: Execution) -> None: ...

    def stage_ended(self, pipeline: Pipeline, execution: Execution) -> None:
        """Told of cached stages, too; `execution` has the inputs and outputs."""

    def run_ended(self, run: RunNotice) -> None:
        """Is told last in this process: what is under way is brought to its end, or given up, soon."""


def noticed(run: Callable[[RunRequest], Summary]) -> Callable[[RunRequest], Summary]:
    """Tells observers how the run begins and ends.

    Raises:
        ParameterError: the request's `notify` is no URL for a webhook.
    """

    @functools.wraps(run)
    def told(request: RunRequest) -> Summary:
        watching = _observers_of(request.notify)
        if not watching:
            return run(request)
        selected = tuple(request.selected) or tuple(request.pipeline.order)
        recipe, root = request.recipe or request.pipeline.name, request.root.place
        notice = RunNotice(request.pipeline, request.run_id, recipe, root, selected, now())
        clock = time.perf_counter()
        _tell(watching, "run_began", notice)
        ended: dict[str, Any] = {"state": "failed"}
        try:
            summary = run(request)
            ended = {"state": summary.state, "executions": summary.executions}
            return summary
        except KeyboardInterrupt:
            ended = {"state": "interrupted", "executions": _executions(request), "message": "interrupted"}
            raise
        except Exception as error:
            ended = {"state": "failed", "executions": _executions(request), "message": str(error)}
            raise
        finally:
            seconds = time.perf_counter() - clock
            _tell(watching, "run_ended", dataclasses.replace(notice, seconds=seconds, **ended))

    return told


def stage_began(pipeline: Pipeline, execution: Execution) -> None:
    _tell(_of_environment(os.getpid()), "stage_began", pipeline, execution)


def stage_ended(pipeline: Pipeline, execution: Execution) -> None:
    _tell(_of_environment(os.getpid()), "stage_ended", pipeline, execution)


def _observers_of(notify: str | None) -> tuple[Observer, ...]:
    found = _of_environment(os.getpid())
    if notify is None:
        return found
    from kerasline.pipeline.observers.webhook import Webhook

    return (*found, Webhook(notify))


@functools.cache
def _of_environment(_process: int) -> tuple[Observer, ...]:
    """Made once in a process; a forked one makes its own, for threads do not outlive a fork."""
    from kerasline.pipeline.observers.openlineage import OpenLineage, is_wanted

    try:
        return (OpenLineage(),) if is_wanted(os.environ) else ()
    except ImportError as error:
        LOG.warning("OpenLineage: no events, for %s is missing: pip install 'kerasline[openlineage]'", error.name)
        return ()


def _executions(request: RunRequest) -> Sequence[Execution]:
    try:
        return request.store.executions(request.run_id)
    except Exception:  # the store is what failed
        return ()


def _tell(observers: Sequence[Observer], what: str, *facts: Any) -> None:
    for observer in observers:
        try:
            getattr(observer, what)(*facts)
        except Exception:
            LOG.warning("%s could not be told: %s", type(observer).__name__, what, exc_info=True)
