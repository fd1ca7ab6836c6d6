"""What Airflow must know of a pipeline, as plain values that go through JSON. The standard library alone."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

FORMAT = 1
OPERATORS = ("command", "external-python", "docker", "kubernetes")
Operator = Literal["command", "external-python", "docker", "kubernetes"]


@dataclass(frozen=True)
class Stage:
    """A node: what it does, the nodes whose outputs it reads, and Airflow's pool for it."""

    node: str
    about: str
    after: tuple[str, ...] = ()
    pool: str | None = None


@dataclass(frozen=True)
class Setting:
    """A parameter of a node. `schema` is JSON Schema; a default of None leaves it to the pipeline."""

    default: Any
    schema: Mapping[str, Any]
    about: str = ""


@dataclass(frozen=True)
class Place:
    """Where tasks run and what they find there.

    Attributes:
        command: calls kerasline in the project's own environment, as a shell has it.
        folder: the working directory, where relative paths of the pipeline's begin.
        root: the pipeline root.
        reports: the URL below which the reports can be read.
        metadata: the metadata store's SQLAlchemy URL; in the root if None.
        image: of containers.
    """

    command: str
    folder: str
    root: str
    reports: str
    metadata: str | None = None
    operator: Operator = "command"
    image: str = ""


@dataclass(frozen=True)
class Timing:
    """When Airflow runs the pipeline, and how often it tries.

    Attributes:
        schedule: a cron expression or preset; None is never by itself.
        start: the first day.
        most_runs: so many at once.
    """

    schedule: str | None = None
    timezone: str = "UTC"
    start: str = "2026-01-01"
    catchup: bool = False
    retries: int = 1
    retry_minutes: float = 1.0
    most_runs: int = 1


@dataclass(frozen=True)
class Description:
    """A pipeline as Airflow needs it.

    Attributes:
        recipe: its name, or its file.
        settings: by `NODE.PARAM`: what can be set when a run is started.
        fixed: by `NODE.PARAM`: what is set in every run.
        dated: the nodes that read the dates of the run's data interval.
        fail_refused: whether a stage that has nothing to do, as a Pusher of a refused model, counts as failed.
    """

    dag_id: str
    pipeline: str
    about: str
    recipe: str
    stages: tuple[Stage, ...]
    settings: Mapping[str, Setting]
    place: Place
    timing: Timing = Timing()
    fixed: Mapping[str, str] = field(default_factory=dict)
    dated: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    fail_refused: bool = False

    @property
    def group(self) -> str:
        """The task group's id; Airflow keeps the dot for groups in groups."""
        return re.sub(r"[^A-Za-z0-9_-]", "_", self.pipeline)

    def as_json(self) -> str:
        """The text of a description's file."""
        return json.dumps({"format": FORMAT, **dataclasses.asdict(self)}, indent=1, ensure_ascii=False) + "\n"


def read(path: str | Path) -> Description:
    """The description in a file that `kerasline airflow RECIPE -o FILE.json` wrote.

    Raises:
        ValueError: it is of another version of kerasline's.
    """
    values = json.loads(Path(path).read_text(encoding="utf-8"))
    if values.pop("format", None) != FORMAT:
        raise ValueError(f"{path}: not a description that this version reads; write it again with `airflow -o`")
    stages = tuple(Stage(**{**stage, "after": tuple(stage["after"])}) for stage in values.pop("stages"))
    settings = {key: Setting(**setting) for key, setting in values.pop("settings").items()}
    place, timing = Place(**values.pop("place")), Timing(**values.pop("timing"))
    dated, tags = tuple(values.pop("dated")), tuple(values.pop("tags"))
    return Description(stages=stages, settings=settings, place=place, timing=timing, dated=dated, tags=tags, **values)
