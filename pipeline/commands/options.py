"""Options that several commands share, and how they are parsed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kerasline.components.core.errors import ParameterError

if TYPE_CHECKING:
    from kerasline.pipeline.metadata.records import Run
    from kerasline.pipeline.metadata.store import Store
    from kerasline.pipeline.storage.artifact_root import ArtifactRoot as ParsedRoot
else:
    ParsedRoot = Any  # Typer evaluates annotations, and importing the class would slow down `--help`


def _root_of(place: str) -> ParsedRoot:
    from kerasline.pipeline.storage.roots import root_of

    return root_of(str(place))


Root = Annotated[
    ParsedRoot,
    typer.Option(
        parser=_root_of, metavar="DIR|URL", help="The pipeline root: artifacts, metadata and logs; docs/REMOTE.md."
    ),
]
Metadata = Annotated[
    str | None,
    typer.Option(
        help="The metadata store's SQLAlchemy URL.",
        show_default="in root",
        envvar="KERASLINE_METADATA",
        show_envvar=True,
    ),
]
Json = Annotated[Path | None, typer.Option("--json", help="Write the result to this file as JSON; - is the screen.")]
DEFAULT_ROOT: Any = "runs"
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NODE.PARAM=VALUE", help="Set a stage's parameter."),
]


def parsed_settings(texts: Sequence[str]) -> dict[str, str]:
    """Return the values of `--set` by NODE.PARAM.

    Raises:
        ParameterError: one is not of the form NODE.PARAM=VALUE.
    """
    changes = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or "." not in key:
            raise ParameterError(f"--set {text}: expected NODE.PARAM=VALUE, such as Trainer.epochs=3")
        changes[key.strip()] = value
    return changes


def find_run(store: Store, key: str) -> Run:
    """Return a run by its id, the beginning of its id, or "latest", with its current state."""
    from dataclasses import replace

    from kerasline.pipeline.run import run_state

    run = store.run(key)
    return replace(run, state=run_state(store, run))


def find_other_run(store: Store, key: str, run: Run) -> Run:
    """Return a run to compare with `run`. "latest" is the newest other run of the same pipeline.

    Raises:
        StoreError: there is no such run.
    """
    from kerasline.components.core.errors import StoreError

    if key == "latest":
        others = [other.id for other in store.runs() if other.pipeline == run.pipeline and other.id != run.id]
        if not others:
            raise StoreError(f"--against latest: {run.id} is the only run of {run.pipeline}; run it again first")
        key = others[0]
    return find_run(store, key)
