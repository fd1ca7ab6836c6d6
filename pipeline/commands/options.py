"""What several commands take, and how it is read."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from kerasline.components.core.errors import KeraslineError, ParameterError


def _root_of(place: Any) -> Any:
    from kerasline.pipeline.storage.publishing import root_of

    return root_of(str(place))


# What a command gets is an ArtifactRoot.
Root = Annotated[
    Any,
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
Json = Annotated[Path | None, typer.Option("--json", help="Write the result there as JSON.")]
DEFAULT_ROOT: Any = "runs"
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NODE.PARAM=VALUE", help="Set a stage's parameter."),
]


def parsed_settings(texts: Sequence[str]) -> dict[str, str]:
    changes = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or "." not in key:
            raise ParameterError(f"--set {text}: NODE.PARAM=VALUE wanted, as in Trainer.epochs=3")
        changes[key.strip()] = value
    return changes


def checked_run_id(run_id: str) -> str:
    import re

    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.:+-]{0,99}", run_id):
        raise ParameterError(f"--run-id {run_id!r}: up to 100 letters, digits, '_', '.', ':', '+' and '-' wanted")
    return run_id


def new_log(root: Any, run_id: str) -> Path:
    log = root.log_file(run_id)
    with _usable(root):
        log.parent.mkdir(parents=True, exist_ok=True)
        log.touch()
    return log


def opened_store(root: Any, url: str | None, *, must_exist: bool = False) -> Any:
    from kerasline.pipeline.metadata.store import Store, sqlite_url

    path = root.path / "metadata.sqlite"
    if must_exist and url is None and not path.exists():
        raise KeraslineError(f"{root}: no pipeline root (it has no metadata.sqlite); give its --root")
    with _usable(root):
        return Store(url or sqlite_url(path))


def run_of(store: Any, key: str) -> Any:
    """A run by its id, the beginning of it, or `latest`; its state as people should read it."""
    from dataclasses import replace

    newest = store.runs()[:1] if key == "latest" else []
    item = newest[0] if newest else store.run(key)
    return replace(item, state=state_of(store, item))


def state_of(store: Any, item: Any) -> str:
    """A run's state; one that says it is running, while no process works on it, was killed."""
    if item.state != "running":
        return item.state
    from kerasline.pipeline.metadata.liveness import is_alive
    from kerasline.pipeline.storage.publishing import root_of

    return "running" if is_alive(store, root_of(item.root), item.id) else "interrupted"


def report_file(root: Any, run_id: str) -> Path:
    return root.reports / f"{run_id}.html"


@contextlib.contextmanager
def _usable(root: Any) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise KeraslineError(f"--root {root}: {error.strerror}: {error.filename}") from error
