"""The protocol of observers, which are notified in the process in which an event of a run occurs."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from kerasline.pipeline.dag import Pipeline
from kerasline.pipeline.metadata.records import Execution


@dataclass(frozen=True)
class RunNotice:
    """The state of a run, for observers.

    Attributes:
        root: the pipeline root.
        selected: the stages of this run.
        state: "running", "succeeded", "failed" or "interrupted".
        executions: the executions of the stages; empty at the start.
        message: why the run ended early, if no stage reports it.
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
    def is_single_stage(self) -> bool:
        """Whether this is one stage of a larger run, which a scheduler such as Airflow runs stage by stage."""
        return len(self.selected) == 1 < len(self.pipeline.nodes)


class Observer(Protocol):
    """Receives notices. Several threads may call it; an exception is logged and does not affect the run."""

    def run_began(self, run: RunNotice) -> None: ...

    def stage_began(self, pipeline: Pipeline, execution: Execution) -> None: ...

    def stage_ended(self, pipeline: Pipeline, execution: Execution) -> None:
        """Receive a stage that ran, failed, was skipped or came from the cache, with its inputs and outputs."""

    def run_ended(self, run: RunNotice) -> None:
        """Receive the last notice in this process. Pending deliveries must finish, or be given up, within seconds."""
