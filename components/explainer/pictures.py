"""Small pictures and clips for people: images as PNG, attributions over them, sound as WAV."""

from __future__ import annotations

import io
import wave
from pathlib import Path

import numpy as np
from PIL import Image

MOST_PIXELS = 256  # a side
MOST_SECONDS = 10
# Blue lowers the score, red raises it: a pair that most kinds of colour blindness tell apart.
LOWERS, RAISES = (33, 102, 172), (178, 24, 43)


def write_image(content: bytes, path: Path) -> bool:
    """An encoded image as a PNG of at most `MOST_PIXELS`; False where it cannot be decoded."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            _save(image.convert("RGBA" if "A" in image.getbands() or "transparency" in image.info else "RGB"), path)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return False
    return True


def write_pixels(pixels: np.ndarray, path: Path) -> None:
    """Numbers (height, width) or (height, width, channels) as a PNG."""
    _save(Image.fromarray(_bytes(pixels)), path)


def write_sound(content: bytes, path: Path) -> bool:
    """The beginning of a WAV file of PCM samples; False where it cannot be read."""
    try:
        with wave.open(io.BytesIO(content)) as source:
            with wave.open(str(path), "wb") as target:
                target.setparams(source.getparams())
                target.writeframes(source.readframes(source.getframerate() * MOST_SECONDS))
    except (wave.Error, EOFError):
        path.unlink(missing_ok=True)
        return False
    return True


def write_attribution(values: np.ndarray, image: np.ndarray, path: Path) -> None:
    """Attributions as colours over the image in grey, the strongest hundredth in full colour.

    Args:
        values: (height, width) or (height, width, channels), which are summed.
        image: what they are of, of the same shape.
    """
    heat = values.sum(-1) if values.ndim == 3 else values
    grey = _bytes(image.mean(-1) if image.ndim == 3 else image).astype(np.float64)[..., None]
    strongest = np.quantile(np.abs(heat), 0.99) or np.abs(heat).max() or 1.0
    strength = np.clip(np.abs(heat) / strongest, 0, 1)[..., None]
    colour = np.where(heat[..., None] >= 0, RAISES, LOWERS)
    # The grey is paled, so that colours show on dark and light alike.
    mixed = (1 - strength) * (128 + grey / 2) + strength * colour
    _save(Image.fromarray(np.round(mixed).astype(np.uint8)), path)


def _save(image: Image.Image, path: Path) -> None:
    image.thumbnail((MOST_PIXELS, MOST_PIXELS))
    image.save(path, "PNG", optimize=True)


def _bytes(pixels: np.ndarray) -> np.ndarray:
    """Pixels from 0 to 255: bytes as they are, numbers from 0 to 1 or to 255 scaled so, others by their range."""
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
