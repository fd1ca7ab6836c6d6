"""Serve an earlier version of a pushed model again."""

from __future__ import annotations

from typing import Any


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
