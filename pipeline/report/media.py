"""Images and sounds of artifacts inside the page."""

from __future__ import annotations

import base64
from pathlib import Path

MEDIA = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".wav": "audio/wav"}
MOST_MEDIA_BYTES = 1_500_000  # of a section in total, as data URIs


def embedded(folder: Path, name: str, room: int) -> str | None:
    """Return an image or sound of the folder as a data URI, or None if it is too large, outside, or of another type."""
    path = (folder / name).resolve()
    kind = MEDIA.get(path.suffix.lower())
    if kind is None or not path.is_file() or not path.is_relative_to(folder.resolve()):
        return None
    if path.stat().st_size * 4 / 3 > room:
        return None
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
