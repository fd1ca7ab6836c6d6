"""Rows for people: columns as plain values, images and sounds as files, labels and answers in words."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from kerasline.components.data.media import sniff
from kerasline.components.explainer import pictures
from kerasline.components.explainer.gradients import Attributions, IntegratedGradients
from kerasline.components.explainer.raw_images import is_image

MOST_LETTERS, MOST_VALUES = 200, 10


def shown(row: pa.Table, place: int, folder: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """The columns of one row, and the files written of those that are images or sounds.

    Args:
        row: a table of one row.
        place: of the row in its split; names the files.
        folder: of the artifact; files go to its `worst/`.

    Returns:
        Values by column, as JSON has them; paths in the folder by column.
    """
    columns, media = {}, {}
    for name in row.schema.names:
        field, value = row.schema.field(name), row.column(name)[0]
        path = f"worst/{place}-{_file_name(name, row.schema.names)}"
        written = _medium(field.type, value, folder, path)
        if written is not None:
            media[name] = written
        else:
            columns[name] = _value(field.type, value)
    return columns, media


def attribution_pictures(
    media: Mapping[str, str], gradients: IntegratedGradients, found: Attributions, number: int, folder: Path
) -> dict[str, str]:
    """Attributions of one row over its images; paths by column."""
    written = {}
    for column, path in media.items():
        feature = gradients.image_of(column) if path.endswith(".png") else None
        if feature is not None:
            written[column] = path.removesuffix(".png") + "-attribution.png"
            values, image = found.values[feature][number], found.points[feature][number]
            pictures.write_attribution(values, image, folder / written[column])
    return written


def plain(value: Any) -> Any:
    """A value as JSON has it, texts and lists cut short."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, bytes):
        text = value.decode("utf-8", "replace")
        return f"{len(value):,} bytes" if "\ufffd" in text or not text.replace("\n", " ").isprintable() else plain(text)
    if isinstance(value, (list, tuple)):
        told = ", ".join(str(plain(item)) for item in value[:MOST_VALUES])
        return plain(f"[{told}{', …' if len(value) > MOST_VALUES else ''}]")
    text = str(value)
    return text if len(text) <= MOST_LETTERS else text[: MOST_LETTERS - 1] + "…"


def _value(kind: pa.DataType, value: pa.Scalar) -> Any:
    if isinstance(kind, pa.FixedShapeTensorType):
        return f"tensor {'×'.join(map(str, kind.shape))}"
    if pa.types.is_float32(kind) and value.is_valid:
        return plain(float(str(np.float32(value.as_py()))))  # 16.6 and not 16.600000381469727
    return plain(value.as_py())


def _medium(kind: pa.DataType, value: pa.Scalar, folder: Path, path: str) -> str | None:
    """The file written of a value that is an image or a sound; None of all others."""
    if not value.is_valid:
        return None
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        content = value.as_py()
        found = sniff(content)
        if found is not None and found.kind == "image":
            return f"{path}.png" if pictures.write_image(content, folder / f"{path}.png") else None
        if found is not None and found.format == "WAV":
            return f"{path}.wav" if pictures.write_sound(content, folder / f"{path}.wav") else None
        return None
    pixels = _pixels(kind, value)
    if pixels is None:
        return None
    pictures.write_pixels(pixels, folder / f"{path}.png")
    return f"{path}.png"


def _pixels(kind: pa.DataType, value: pa.Scalar) -> np.ndarray | None:
    """A tensor of an image's shape, (height, width) or (height, width, channels)."""
    if not isinstance(kind, pa.FixedShapeTensorType):
        return None
    shape = tuple(kind.shape)
    if not is_image((None, *shape)) and not is_image((None, *shape, 1)):
        return None
    return np.asarray(value.value.values).reshape(shape)


def _file_name(column: str, columns: list[str]) -> str:
    """The column's name as a file may have it; one that had to change has the column's number behind it."""
    name = re.sub(r"[^A-Za-z0-9_.]", "_", column)[:80]
    return name if name == column else f"{name}_{columns.index(column)}"
