"""`rollback`: an earlier version of a pushed model is served again."""

from __future__ import annotations

from typing import Any


def rolled_back(place: str, to: int | None) -> dict[str, Any]:
    """Points `latest` of a folder of versions to the version before, or to the one that is named.

    Returns:
        `destination`, `from` (None where nothing was the latest), `to`, and `path`.

    Raises:
        DataError: there is no such version.
        ParameterError: there is no such kind of folder.
    """
    from kerasline.components.models.versions import roll_back
    from kerasline.components.pusher import destination

    target = destination(place)
    before, now = roll_back(target, to)
    return {"destination": str(target), "from": before, "to": now, "path": target.where(now)}
