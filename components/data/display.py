"""Rows for people: columns as plain values, images as PNG, sounds as WAV."""

from __future__ import annotations

import io
import math
import wave
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from kerasline.components.core.file_names import file_names
from kerasline.components.data.arrow_types import is_bytes
from kerasline.components.data.media import sniff

MOST_LETTERS, MOST_VALUES = 200, 10
MOST_PIXELS = 256  # Per side.
MOST_SECONDS = 10
Displayed = tuple[dict[str, Any], dict[str, str]]  # JSON values, and relative paths of files, by column
IMAGE_CHANNELS, SMALLEST_SIDE = (1, 3, 4), 4


def display_columns(row: pa.Table, folder: Path, start: str) -> Displayed:
    """Render the columns of a row, and write images and sounds as files.

    Args:
        row: a table of one row.
        folder: the folder of the artifact.
        start: the beginning of the files' paths in it, such as `worst/12`.

    Returns:
        JSON values by column, and relative paths of files by column.
    """
    columns, media = {}, {}
    files = file_names(row.schema.names)
    for name in row.schema.names:
        field, value = row.schema.field(name), row.column(name)[0]
        path = f"{start}-{files[name]}"
        written = _medium(field.type, value, folder, path)
        if written is not None:
            media[name] = written
        else:
            columns[name] = _value(field.type, value)
    return columns, media


def display_row(number: int, raw: pa.Table, answers: pa.Table | None, folder: Path, start: str) -> dict[str, Any]:
    """Render a row and the answers of the served model to it, and write images and sounds as files.

    Args:
        number: index of the row in both tables.
        answers: None if there is no served model.
        folder, start: see `display_columns`.

    Returns:
        `columns` and `media` of the row, `answers` and `answer_media` of the answers; see `display_columns`.
    """
    columns, media = display_columns(raw.slice(number, 1), folder, start)
    shown: Displayed = ({}, {})
    if answers is not None:
        shown = display_columns(answers.slice(number, 1), folder, f"{start}-answer")
    return {"columns": columns, "media": media, "answers": shown[0], "answer_media": shown[1]}


def plain(value: Any) -> Any:
    """Convert a value for JSON. Long texts and lists are truncated."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, bytes):
        text = value.decode("utf-8", "replace")
        return f"{len(value):,} bytes" if "\ufffd" in text or not text.replace("\n", " ").isprintable() else plain(text)
    if isinstance(value, (list, tuple)):
        items = ", ".join(str(plain(item)) for item in value[:MOST_VALUES])
        return plain(f"[{items}{', …' if len(value) > MOST_VALUES else ''}]")
    text = str(value)
    return text if len(text) <= MOST_LETTERS else text[: MOST_LETTERS - 1] + "…"


def _value(kind: pa.DataType, value: pa.Scalar) -> Any:
    if isinstance(kind, pa.FixedShapeTensorType):
        return f"tensor {'×'.join(map(str, kind.shape))}"
    if pa.types.is_float32(kind) and value.is_valid:
        return plain(float(str(np.float32(value.as_py()))))  # 16.6 and not 16.600000381469727
    return plain(value.as_py())


def _medium(kind: pa.DataType, value: pa.Scalar, folder: Path, path: str) -> str | None:
    """Write a value that is an image or a sound to a file. Return its path, or None for other values."""
    if not value.is_valid:
        return None
    if is_bytes(kind):
        content = value.as_py()
        found = sniff(content)
        if found is not None and found.kind == "image":
            return f"{path}.png" if write_image(content, folder / f"{path}.png") else None
        if found is not None and found.format == "WAV":
            return f"{path}.wav" if write_sound(content, folder / f"{path}.wav") else None
        return None
    pixels = image_pixels(kind, value)
    if pixels is None:
        return None
    save_picture(Image.fromarray(pixels), folder / f"{path}.png")
    return f"{path}.png"


def image_pixels(kind: pa.DataType, value: pa.Scalar) -> np.ndarray | None:
    """Return a tensor with the shape of an image, (height, width) or (height, width, channels), as uint8, or None."""
    if not isinstance(kind, pa.FixedShapeTensorType) or not value.is_valid:
        return None
    shape = tuple(kind.shape)
    if not is_image((None, *shape)) and not is_image((None, *shape, 1)):
        return None
    return as_pixels(np.asarray(value.value.values).reshape(shape))


def write_image(content: bytes, path: Path) -> bool:
    """Write an encoded image as a PNG of at most `MOST_PIXELS`. Return False if it cannot be decoded."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            save_picture(
                image.convert("RGBA" if "A" in image.getbands() or "transparency" in image.info else "RGB"), path
            )
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return False
    return True


def write_sound(content: bytes, path: Path) -> bool:
    """Write the first seconds of a PCM WAV file. Return False if it cannot be read."""
    try:
        with wave.open(io.BytesIO(content)) as source:
            with wave.open(str(path), "wb") as target:
                target.setparams(source.getparams())
                target.writeframes(source.readframes(source.getframerate() * MOST_SECONDS))
    except (wave.Error, EOFError):
        path.unlink(missing_ok=True)
        return False
    return True


def is_image(shape: Sequence[int | None]) -> bool:
    """Return whether a shape (rows, height, width, channels) is that of images."""
    return (
        len(shape) == 4 and shape[-1] in IMAGE_CHANNELS and all(size and size >= SMALLEST_SIDE for size in shape[1:3])
    )


def save_picture(image: Image.Image, path: Path, most_pixels: int = MOST_PIXELS) -> None:
    """Write a picture as a PNG of at most `most_pixels` per side."""
    image.thumbnail((most_pixels, most_pixels))
    image.save(path, "PNG", optimize=True)


def as_pixels(pixels: np.ndarray) -> np.ndarray:
    """Scale to 0 to 255: uint8 is unchanged, [0, 1] and [0, 255] use these ranges, others their own range."""
    pixels = pixels[..., 0] if pixels.ndim == 3 and pixels.shape[-1] == 1 else pixels
    if pixels.dtype == np.uint8:
        return pixels
    values = np.nan_to_num(pixels.astype(np.float64), posinf=0, neginf=0)
    low, high = values.min(), values.max()
    if low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    elif low >= 0 and 128 <= high <= 255:
        low, high = 0.0, 255.0
    return np.round((values - low) / ((high - low) or 1.0) * 255).astype(np.uint8)
