"""OpenLineage: events about runs, stages and their data, for a data catalog.

The variables and configuration of the OpenLineage client determine the receiver. Without them, the client is not
imported.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from kerasline.pipeline.dag import Pipeline
from kerasline.pipeline.metadata.records import Execution

if TYPE_CHECKING:
    from kerasline.pipeline.observers.observer import RunNotice

# Total time to wait for deliveries: in a process that only executes stages, and at the end of a run.
STAGES_SECONDS, END_SECONDS = 5, 5


def is_configured(environment: Mapping[str, str]) -> bool:
    """Return whether a variable or a file in a default place configures the client."""
    if environment.get("OPENLINEAGE_DISABLED", "").strip().lower() == "true":
        return False
    if environment.get("OPENLINEAGE_URL") or environment.get("OPENLINEAGE_CONFIG"):
        return True
    if any(name.startswith("OPENLINEAGE__TRANSPORT") for name in environment):
        return True
    files = (Path("openlineage.yml"), Path("~/.openlineage/openlineage.yml").expanduser())
    return any(file.is_file() for file in files)


class OpenLineage:
    """See `kerasline.pipeline.observers.observer.Observer`.

    Raises:
        ImportError: OpenLineage's client is not installed.
    """

    def __init__(self) -> None:
        import openlineage.client  # noqa: F401  so that a missing client is reported here, not by each event

        from kerasline.pipeline.observers.openlineage.sending import Sender

        self._sender = Sender()
        self._run_ends_here = False
        self._seconds_for_stages = float(STAGES_SECONDS)

    def run_began(self, run: RunNotice) -> None:
        from kerasline.pipeline.observers.openlineage.events import run_started

        self._run_ends_here = True
        if not run.is_single_stage:
            self._sender.send(run_started(run))

    def stage_began(self, pipeline: Pipeline, execution: Execution) -> None:
        from kerasline.pipeline.observers.openlineage.events import stage_started

        self._sender.send(stage_started(pipeline, execution))

    def stage_ended(self, pipeline: Pipeline, execution: Execution) -> None:
        from kerasline.pipeline.observers.openlineage.events import stage_finished

        self._sender.send(stage_finished(pipeline, execution))
        if not self._run_ends_here:  # this process may not execute another stage
            clock = time.monotonic()
            self._sender.wait(self._seconds_for_stages)
            self._seconds_for_stages -= time.monotonic() - clock

    def run_ended(self, run: RunNotice) -> None:
        from kerasline.pipeline.observers.openlineage.events import run_finished, stage_finished

        for execution in run.executions:
            if execution.state == "running":  # an interrupted stage cannot report it itself
                self._sender.send(stage_finished(run.pipeline, execution))
        if not run.is_single_stage:
            self._sender.send(run_finished(run))
        self._sender.close(END_SECONDS)
