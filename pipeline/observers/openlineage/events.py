"""The events of a run, a job with the name of the pipeline, and of each stage, a job PIPELINE.STAGE below it.

The UUID of a run is that of the name `kerasline:PIPELINE:RUN` in the namespace of URLs. The UUID of a stage is that of
its name in the namespace of the run (RFC 9562, version 5). Each process therefore derives the same UUIDs.
"""

from __future__ import annotations

import datetime
import os
import uuid
from typing import Any

from openlineage.client import set_producer
from openlineage.client.constants import DEFAULT_NAMESPACE_NAME
from openlineage.client.event_v2 import Job, Run, RunEvent, RunState
from openlineage.client.facet_v2 import (
    documentation_job,
    error_message_run,
    job_type_job,
    parent_run,
    processing_engine_run,
    tags_run,
)

from kerasline.components.core.component import about
from kerasline.components.core.errors import at_stage
from kerasline.pipeline.dag import Pipeline
from kerasline.pipeline.environment import here
from kerasline.pipeline.metadata.records import Execution
from kerasline.pipeline.observers.observer import RunNotice
from kerasline.pipeline.observers.openlineage.datasets import inputs_of, outputs_of

VERSION = here()["libraries"].get("kerasline", "unknown")
PRODUCER = f"pkg:pypi/kerasline@{VERSION}"
set_producer(PRODUCER)  # otherwise the facets carry the name of the client
RUN_STATES = {"succeeded": RunState.COMPLETE, "failed": RunState.FAIL, "interrupted": RunState.ABORT}
STAGE_STATES = {"ran": RunState.COMPLETE, "cached": RunState.COMPLETE, "failed": RunState.FAIL}


def run_uuid(pipeline: str, run_id: str) -> uuid.UUID:
    return uuid.uuid5(uuid.NAMESPACE_URL, f"kerasline:{pipeline}:{run_id}")


def stage_uuid(pipeline: str, run_id: str, stage: str) -> uuid.UUID:
    return uuid.uuid5(run_uuid(pipeline, run_id), stage)


def run_started(run: RunNotice) -> RunEvent:
    return _run_event(run, RunState.START, run.started)


def run_finished(run: RunNotice) -> RunEvent:
    ended = run.started + datetime.timedelta(seconds=run.seconds)
    return _run_event(run, RUN_STATES[run.state], ended)


def stage_started(pipeline: Pipeline, execution: Execution) -> RunEvent:
    return _stage_event(pipeline, execution, RunState.START, execution.started)


def stage_finished(pipeline: Pipeline, execution: Execution) -> RunEvent:
    """Return the final event. Skipped or interrupted stages are aborted: they have no outputs."""
    state = STAGE_STATES.get(execution.state, RunState.ABORT)
    ended = execution.finished or datetime.datetime.now(datetime.UTC)
    event = _stage_event(pipeline, execution, state, ended)
    event.inputs = inputs_of(pipeline.nodes[execution.node], execution)
    event.outputs = outputs_of(execution)
    return event


def _run_event(run: RunNotice, state: RunState, time: datetime.datetime) -> RunEvent:
    failed = [at_stage(e.node, e.message) for e in run.executions if e.state == "failed"]
    facets = {**_engine(), **_error("; ".join(failed) or run.message)}
    return RunEvent(
        eventTime=_iso_time(time),
        producer=PRODUCER,
        eventType=state,
        run=Run(runId=str(run_uuid(run.pipeline.name, run.run_id)), facets=facets),
        job=Job(namespace=_namespace(), name=run.pipeline.name, facets=_job_facets("PIPELINE")),
    )


def _stage_event(pipeline: Pipeline, execution: Execution, state: RunState, time: datetime.datetime) -> RunEvent:
    facets = {
        **_engine(),
        **_parent(pipeline.name, execution.run_id),
        **_tags(execution),
        **_error(execution.message if state == RunState.FAIL else None),
    }
    name, description = f"{pipeline.name}.{execution.node}", about(pipeline.nodes[execution.node])
    return RunEvent(
        eventTime=_iso_time(time),
        producer=PRODUCER,
        eventType=state,
        run=Run(runId=str(stage_uuid(pipeline.name, execution.run_id, execution.node)), facets=facets),
        job=Job(namespace=_namespace(), name=name, facets=_job_facets("STAGE", description)),
    )


def _namespace() -> str:
    return os.environ.get("OPENLINEAGE_NAMESPACE") or DEFAULT_NAMESPACE_NAME


def _iso_time(time: datetime.datetime) -> str:
    """Return a time of the store, which is in UTC without a zone, in ISO 8601 with its zone."""
    return time.replace(tzinfo=datetime.UTC).isoformat()


def _engine() -> dict[str, Any]:
    return {"processing_engine": processing_engine_run.ProcessingEngineRunFacet(version=VERSION, name="kerasline")}


def _parent(pipeline: str, run_id: str) -> dict[str, Any]:
    run = parent_run.Run(runId=str(run_uuid(pipeline, run_id)))
    job = parent_run.Job(namespace=_namespace(), name=pipeline)
    return {"parent": parent_run.ParentRunFacet(run=run, job=job)}


def _tags(execution: Execution) -> dict[str, Any]:
    values = {"run_id": execution.run_id, "state": execution.state, "fingerprint": execution.fingerprint}
    if execution.state in ("skipped", "ran"):
        values["message"] = execution.message
    tags = [
        tags_run.TagsRunFacetFields(key=key, value=value, source="kerasline") for key, value in values.items() if value
    ]
    return {"tags": tags_run.TagsRunFacet(tags=tags)}


def _error(message: str | None) -> dict[str, Any]:
    if not message:
        return {}
    return {"errorMessage": error_message_run.ErrorMessageRunFacet(message=message, programmingLanguage="python")}


def _job_facets(kind: str, description: str = "") -> dict[str, Any]:
    kind_of_job = job_type_job.JobTypeJobFacet(processingType="BATCH", integration="KERASLINE", jobType=kind)
    if not description:
        return {"jobType": kind_of_job}
    documentation = documentation_job.DocumentationJobFacet(description=description)
    return {"jobType": kind_of_job, "documentation": documentation}
