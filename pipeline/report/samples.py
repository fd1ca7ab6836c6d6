"""The Samples section: rows of the held-out split with their references and the model's answers."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kerasline.pipeline.report.gather import Gathered
from kerasline.pipeline.report.media import MOST_MEDIA_BYTES, embedded_files

FILE = "samples/samples.json"


def section(gathered: Gathered) -> dict[str, Any] | None:
    found = [
        {"stage": stage.name, **_shown(group, output.path)}
        for stage, output, facts in gathered.documents("Evaluation", FILE)
        for group in facts.get("groups") or ()
    ]
    return {"found": found} if found else None


def _shown(group: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    room, shown = MOST_MEDIA_BYTES, []
    for row in group["rows"]:
        files = {**(row.get("media") or {}), **(row.get("answer_media") or {})}
        if row.get("picture"):  # it shows the first image, with boxes
            files = {"boxes": row["picture"], **(row.get("answer_media") or {})}
        nearest = row.get("nearest") or {}
        if nearest.get("picture"):
            files = {**files, "nearest training picture": nearest["picture"]}
        media, room = embedded_files(folder, list(files.items()), room)
        values = {**(row.get("columns") or {}), **{f"answer {n}": v for n, v in (row.get("answers") or {}).items()}}
        if nearest:
            values |= {"nearest training row": nearest["row"], "distance of its pixels": nearest["distance"]}
        shown.append({**row, "media": media, "values": values})
    return {**group, "rows": shown, "nearest": _median_distances(group["rows"])}


def _median_distances(rows: Sequence[Mapping[str, Any]]) -> dict[str, float] | None:
    """Return the median distances of generated and of held-out pictures from their nearest training pictures."""
    found = [row["nearest"] for row in rows if row.get("nearest")]
    if not found:
        return None
    return {key: statistics.median(one[key] for one in found) for key in ("distance", "held_out_distance")}
