"""Detection of image and audio formats from the first bytes."""

from __future__ import annotations

import io
import struct
import warnings
from dataclasses import dataclass


@dataclass(frozen=True)
class Media:
    """The format and size of an image or an audio clip.

    Attributes:
        kind: image or audio.
        format: PNG, JPEG, WAV, FLAC, ...
        size: (height, width) in pixels, or (sample rate in Hz, channels, frames). None if only decoding
            would reveal it.
    """

    kind: str
    format: str
    size: tuple[int, ...] | None = None


def sniff(content: bytes) -> Media | None:
    """Return the format of a file's content, or None if it is neither image nor audio, or its header is damaged."""
    if content[:4] == b"RIFF" and content[8:12] == b"WAVE":
        return _wav(content)
    if content[:4] == b"fLaC" and len(content) >= 42:
        packed = int.from_bytes(content[18:26], "big")  # rate 20 bits, channels 3, depth 5, frames 36
        size = (packed >> 44, (packed >> 41 & 7) + 1, packed & (1 << 36) - 1)
        return Media("audio", "FLAC", size)
    if content[:4] == b"OggS":
        return Media("audio", "OGG")
    if content[:3] == b"ID3" or (content[:1] == b"\xff" and content[1:2] in (b"\xfb", b"\xf3", b"\xf2")):
        return Media("audio", "MP3")
    return _image(content)


def _wav(content: bytes) -> Media | None:
    """Read the chunks of a WAV file (Microsoft and IBM, Multimedia Programming Interface, 1991)."""
    at, rate, channels, block = 12, 0, 0, 0
    while at + 8 <= len(content):
        name, size = content[at : at + 4], struct.unpack_from("<I", content, at + 4)[0]
        if name == b"fmt " and at + 22 <= len(content):
            channels, rate, _, block = struct.unpack_from("<HIIH", content, at + 10)
        if name == b"data" and block:
            return Media("audio", "WAV", (rate, channels, min(size, len(content) - at - 8) // block))
        at += 8 + size + size % 2
    return None


def _image(content: bytes) -> Media | None:
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about decompression bombs; nothing is decompressed here
            with Image.open(io.BytesIO(content)) as image:
                return Media("image", image.format or "unknown", (image.height, image.width))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None
