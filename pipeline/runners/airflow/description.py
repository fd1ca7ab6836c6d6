"""Plain values, convertible to JSON, that describe a pipeline for Airflow. Only needs the standard library."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

FORMAT = 2
OPERATORS = ("command", "external-python", "docker", "kubernetes")
Operator = Literal["command", "external-python", "docker", "kubernetes"]


@dataclass(frozen=True)
class Stage:
    """A node: a sentence about it, the nodes whose outputs it reads, and its Airflow pool."""

    node: str
    about: str
    after: tuple[str, ...] = ()
    pool: str | None = None


@dataclass(frozen=True)
class Setting:
    """A parameter of a node. `schema` is JSON Schema. A default of None leaves the value to the pipeline."""

    default: Any
    schema: Mapping[str, Any]
    about: str = ""


@dataclass(frozen=True)
class Place:
    """Where tasks run and which root they use.

    Attributes:
        command: the shell command that calls kerasline in the environment of the project.
        folder: the working directory, to which relative paths of the pipeline refer.
        root: the pipeline root.
        reports: the URL below which the reports can be read.
        metadata: the SQLAlchemy URL of the metadata store. None for the store in the root.
        image: the image of containers.
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
    """When Airflow runs the pipeline, and how often it retries a stage.

    Attributes:
        schedule: a cron expression or preset. None if runs are only started by hand.
        start: the first day.
        max_active_runs: largest number of concurrent runs.
    """

    schedule: str | None = None
    timezone: str = "UTC"
    start: str = "2026-01-01"
    catchup: bool = False
    retries: int = 1
    retry_minutes: float = 1.0
    max_active_runs: int = 1


@dataclass(frozen=True)
class Description:
    """A pipeline, described for Airflow.

    Attributes:
        recipe: name or file of the recipe.
        settings: the parameters that can be set when a run is started, by `NODE.PARAM`.
        fixed: the values that are set in every run, by `NODE.PARAM`.
        dated: the nodes that read the dates of the data interval of a run.
        fail_refused: whether a stage with nothing to do, such as Pusher with a refused model, fails.
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
        """The id of the task group. Airflow reserves the dot for nested groups."""
        return re.sub(r"[^A-Za-z0-9_-]", "_", self.pipeline)

    def as_json(self) -> str:
        """Return the text of the description's file."""
        return json.dumps({"format": FORMAT, **dataclasses.asdict(self)}, indent=1, ensure_ascii=False) + "\n"


def read(path: str | Path) -> Description:
    """Read a description from a file that `kerasline airflow RECIPE -o FILE.json` wrote.

    Raises:
        ValueError: another version of kerasline wrote the file.
    """
    values = json.loads(Path(path).read_text(encoding="utf-8"))
    if values.pop("format", None) != FORMAT:
        raise ValueError(
            f"{path}: not a description that this version can read; write it again with `kerasline airflow RECIPE -o`"
        )
    stages = tuple(Stage(**{**stage, "after": tuple(stage["after"])}) for stage in values.pop("stages"))
    settings = {key: Setting(**setting) for key, setting in values.pop("settings").items()}
    place, timing = Place(**values.pop("place")), Timing(**values.pop("timing"))
    dated, tags = tuple(values.pop("dated")), tuple(values.pop("tags"))
    return Description(stages=stages, settings=settings, place=place, timing=timing, dated=dated, tags=tags, **values)
