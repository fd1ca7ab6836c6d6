"""`gc` and `rollback`: remove what is no longer used; serve an earlier version."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from kerasline.pipeline.commands.options import DEFAULT_ROOT, Json, Metadata, Root
from kerasline.pipeline.commands.output import show_table, write_json


def gc(
    root: Root = DEFAULT_ROOT,
    metadata: Metadata = None,
    keep: Annotated[int, typer.Option(min=0, help="Number of newest runs of each stage whose outputs are kept.")] = 5,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what would be removed.")] = False,
    json_file: Json = None,
) -> None:
    """Remove leftovers of dead processes, and outputs that none of the newest runs uses."""
    from kerasline.pipeline.metadata.store import open_store
    from kerasline.pipeline.storage.garbage import collect

    store = open_store(root, metadata, must_exist=True)
    removed = collect(store, root, keep=keep, dry_run=dry_run)
    rows = [(item.path, item.why, f"{item.size_bytes / 1e6:.1f} MB") for item in removed]
    values = [{"path": i.path, "why": i.why, "size_bytes": i.size_bytes} for i in removed]
    show_table(json_file, ("would be removed" if dry_run else "removed", "why", "size"), rows, values)


def rollback(
    destination: Annotated[str, typer.Argument(help="The destination of a Pusher: a path or URL.")],
    to: Annotated[int | None, typer.Option(help="The version; by default the one before the latest.")] = None,
    json_file: Json = None,
) -> None:
    """Serve an earlier version of a pushed model: atomically point `latest` to it."""
    found = rolled_back(destination, to)
    if json_file:
        write_json(json_file, found)
        return
    typer.echo(f"{found['destination']}: latest was {found['from'] or 'not set'}, is {found['to']}")


def rolled_back(place: str, to: int | None) -> dict[str, Any]:
    """Point `latest` of a folder of versions to the previous version, or to the given one.

    Returns:
        `destination`, `from` (None if there was no latest version), `to`, and `path`.

    Raises:
        DataError: there is no such version.
        ParameterError: the kind of folder is not supported.
    """
    from kerasline.components.models.versions import roll_back
    from kerasline.components.pusher import destination

    target = destination(place)
    before, now = roll_back(target, to)
    return {"destination": str(target), "from": before, "to": now, "path": target.where(now)}
