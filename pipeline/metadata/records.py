"""Records of the metadata store: runs, executions and artifacts."""

from __future__ import annotations

import datetime
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kerasline.components.core.errors import ParameterError


@dataclass(frozen=True)
class StoredArtifact:
    """An artifact in the store. A prefix of its `id` is enough to name it."""

    type: str
    path: str
    digest: str
    size_bytes: int
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    created: datetime.datetime = field(default_factory=lambda: now())


@dataclass(frozen=True)
class Execution:
    """The result of one node in one run.

    Attributes:
        state: running, ran, cached, skipped or failed.
        folder: the published folder that holds a sub-folder for each output, and its manifest.
        message: why it was skipped or failed, or another remark.
    """

    run_id: str
    pipeline: str
    node: str
    component: str
    state: str
    started: datetime.datetime
    fingerprint: str | None = None
    folder: str | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)
    message: str | None = None
    finished: datetime.datetime | None = None
    seconds: float | None = None
    inputs: Mapping[str, StoredArtifact] = field(default_factory=dict)
    outputs: Mapping[str, StoredArtifact] = field(default_factory=dict)
    id: str = field(default_factory=lambda: uuid.uuid4().hex)


@dataclass(frozen=True)
class Run:
    """A run of a pipeline. `state` is running, succeeded or failed."""

    id: str
    pipeline: str
    recipe: str
    root: str
    state: str
    started: datetime.datetime
    settings: Mapping[str, Any] = field(default_factory=dict)
    finished: datetime.datetime | None = None
    seconds: float | None = None


def now() -> datetime.datetime:
    """Return the current UTC time without a zone, as the store records it."""
    return datetime.datetime.now(datetime.UTC).replace(tzinfo=None)


def checked_run_id(run_id: str) -> str:
    """Return the id of a run, if it is valid.

    Raises:
        ParameterError: it is not.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.:+-]{0,99}", run_id):
        raise ParameterError(
            f"--run-id: expected up to 100 letters, digits, '_', '.', ':', '+' and '-', received {run_id!r}"
        )
    return run_id


def new_run_id() -> str:
    """Return a unique id that sorts by time."""
    return f"{datetime.datetime.now():%Y%m%d-%H%M%S}-{uuid.uuid4().hex[:6]}"
