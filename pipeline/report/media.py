"""Images and sounds of artifacts inside the page."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

MEDIA = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".svg": "image/svg+xml",
    ".wav": "audio/wav",
}
MOST_MEDIA_BYTES = 1_500_000  # of a section in total, as data URIs


def embedded_files(folder: Path, files: Sequence[tuple[str, str]], room: int) -> tuple[list[dict[str, Any]], int]:
    """Return the images and sounds among named files of the folder for the template, and the room that is left.

    Args:
        room: most bytes of their data URIs.
    """
    found = []
    for name, file in files:
        if uri := _embedded(folder, file, room):
            room -= len(uri)
            found.append({"uri": uri, "sound": uri.startswith("data:audio"), "name": name})
    return found, room


def _embedded(folder: Path, name: str, room: int) -> str | None:
    """Return an image or sound of the folder as a data URI, or None if it is too large, outside, or of another type."""
    path = (folder / name).resolve()
    if path.suffix.lower() not in MEDIA or not path.is_file() or not path.is_relative_to(folder.resolve()):
        return None
    if path.stat().st_size * 4 / 3 > room:
        return None
    return data_uri(path)


def data_uri(path: Path) -> str:
    return f"data:{MEDIA[path.suffix.lower()]};base64,{base64.b64encode(path.read_bytes()).decode()}"
