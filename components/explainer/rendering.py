"""Attributions as pictures over images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from kerasline.components.data.display import as_pixels, save_picture
from kerasline.components.explainer.gradients import Attributions, IntegratedGradients

# Blue lowers the score, red raises it. Most kinds of colour blindness can distinguish the two.
LOWERS, RAISES = (33, 102, 172), (178, 24, 43)


def attribution_pictures(
    media: Mapping[str, str], gradients: IntegratedGradients, found: Attributions, number: int, folder: Path
) -> dict[str, str]:
    """Write the attributions of a row over its images. Return paths by column."""
    written = {}
    for column, path in media.items():
        feature = gradients.image_of(column) if path.endswith(".png") else None
        if feature is not None:
            written[column] = path.removesuffix(".png") + "-attribution.png"
            values, image = found.values[feature][number], found.points[feature][number]
            write_attribution(values, image, folder / written[column])
    return written


def write_attribution(values: np.ndarray, image: np.ndarray, path: Path) -> None:
    """Write attributions as colours over the grey image. The strongest percent has full colour.

    Args:
        values: (height, width) or (height, width, channels), which are summed.
        image: the image, of the same shape.
    """
    heat = values.sum(-1) if values.ndim == 3 else values
    grey = as_pixels(image.mean(-1) if image.ndim == 3 else image).astype(np.float64)[..., None]
    strongest = np.quantile(np.abs(heat), 0.99) or np.abs(heat).max() or 1.0
    strength = np.clip(np.abs(heat) / strongest, 0, 1)[..., None]
    colour = np.where(heat[..., None] >= 0, RAISES, LOWERS)
    # Lighten the grey, so that colours are visible on dark and light areas.
    mixed = (1 - strength) * (128 + grey / 2) + strength * colour
    save_picture(Image.fromarray(np.round(mixed).astype(np.uint8)), path)
