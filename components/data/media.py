"""Formats and sizes of images and audio, from their headers."""

from __future__ import annotations

import io
import struct
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

AUDIO_FORMATS = ("WAV", "FLAC", "OGG", "MP3", "AIFF")
# The first two bytes of files that `sniff` may recognize: of audio, and of images in common use.
_FIRST_BYTES = (
    [b"RI", b"fL", b"Og", b"FO", b"ID"]  # WAV and WebP, FLAC, OGG, AIFF, MP3
    + [bytes([0xFF, second]) for second in (0xD8, *range(0xE2, 0x100))]  # JPEG, MP3
    + [b"\x89P", b"GI", b"BM", b"II", b"MM", b"\0\0"]  # PNG, GIF, BMP, TIFF, AVIF, JPEG 2000 and icons
    + [b"P%d" % kind for kind in range(1, 8)]  # PPM
)
# EXIF orientations that swap height and width (CIPA DC-008, 4.6.4).
ROTATED_ORIENTATIONS = (5, 6, 7, 8)
_EXIF_ORIENTATION = 0x0112


@dataclass(frozen=True)
class Media:
    """The format and size of an image or an audio clip.

    Attributes:
        kind: image or audio.
        format: PNG, JPEG, WAV, FLAC, ...
        size: (height, width) in pixels, as displayed, or (sample rate in Hz, channels, frames). None if only decoding
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
    if content[:4] == b"FORM" and content[8:12] in (b"AIFF", b"AIFC"):
        return Media("audio", "AIFF")
    # A frame of MPEG audio, layer III: 11 bits of synchronization, the version, which may not be 1, and the layer.
    frame = int.from_bytes(content[:2], "big")
    if content[:3] == b"ID3" or (frame & 0xFFE6 == 0xFFE2 and frame & 0x18 != 0x08):
        return Media("audio", "MP3")
    return _image(content)


def may_be_media(values: pa.Array) -> pa.Array:
    """Return which of the bytes begin like images or audio. Only these are worth `sniff`, which is much slower."""
    import pyarrow as pa
    import pyarrow.compute as pc

    return pc.is_in(pc.binary_slice(values, 0, 2), value_set=pa.array(_FIRST_BYTES, values.type))


def _wav(content: bytes) -> Media | None:
    chunks = wav_chunks(content)
    if b"fmt " not in chunks or b"data" not in chunks or chunks[b"fmt "][0] + 14 > len(content):
        return None
    channels, rate, _, block = struct.unpack_from("<HIIH", content, chunks[b"fmt "][0] + 2)
    at, size = chunks[b"data"]
    return Media("audio", "WAV", (rate, channels, min(size, len(content) - at) // block)) if block else None


def wav_chunks(content: bytes) -> dict[bytes, tuple[int, int]]:
    """Return where each chunk of a WAV file begins, and its size, by name.

    Microsoft and IBM, Multimedia Programming Interface, 1991.
    """
    chunks: dict[bytes, tuple[int, int]] = {}
    at = 12
    while at + 8 <= len(content):
        size = struct.unpack_from("<I", content, at + 4)[0]
        chunks.setdefault(content[at : at + 4], (at + 8, size))
        at += 8 + size + size % 2
    return chunks


def _image(content: bytes) -> Media | None:
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about decompression bombs; nothing is decompressed here
            with Image.open(io.BytesIO(content)) as image:
                size = image.height, image.width
                if image.getexif().get(_EXIF_ORIENTATION) in ROTATED_ORIENTATIONS:
                    size = size[::-1]
                return Media("image", image.format or "unknown", size)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None
