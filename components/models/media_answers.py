"""Comparison of answers that are sound or image files.

The last bits of a float depend on the number of rows that are computed together. Encoded, they move a sample or a pixel
to the next step, and so change the bytes of a file.
"""

from __future__ import annotations

import io

import numpy as np

# Difference between two files that rounding explains, in steps of 16-bit sound or of pixels.
ROUNDING_STEPS = 2.0
# Root mean square of the difference of two magnitude spectrograms, relative to one of them. Iterations that search for
# phases, as Griffin-Lim's, amplify rounding. Of speech drawn out to four times its length, samples changed by
# up to 7% of the loudest, and spectrograms by 1.3%. A change of loudness by 0.5 dB is 6%.
SPECTRUM_TOLERANCE = 0.05
_WINDOW, _HOP = 512, 256  # samples
_INT16_SCALE = 32768
_LOSSY = ("JPEG", "MPO", "WEBP", "MP3", "OGG")


def answers_agree(one: object, other: object, tolerance: float) -> bool:
    """Return whether two texts or bytes are equal, or files of the same sound or image but for rounding.

    Samples and pixels may differ by `tolerance`, relative to the largest of them, and two steps. Rounding changes whole
    blocks of a lossy format, so that the root mean square of its differences counts instead of the largest. Sound
    whose phases differ is compared by its spectrogram.
    """
    if one == other:
        return True
    if not isinstance(one, bytes) or not isinstance(other, bytes):
        return False
    from kerasline.components.data.media import sniff

    media = sniff(one)
    if media is None or sniff(other) != media:
        return False
    values, others = (_decoded(content, media.kind) for content in (one, other))
    if values is None or others is None or values.shape != others.shape:
        return False
    differences = np.abs(values - others)
    difference = np.sqrt(np.mean(differences**2)) if media.format in _LOSSY else differences.max(initial=0.0)
    if difference <= ROUNDING_STEPS + tolerance * np.abs(values).max(initial=0.0):
        return True
    return media.kind == "audio" and _spectra_agree(values, others)


def _decoded(content: bytes, kind: str) -> np.ndarray | None:
    """Return the samples (samples, channels) or pixels of a file in steps, float64; None if it cannot be decoded."""
    if kind == "audio":
        import soundfile

        try:
            return soundfile.read(io.BytesIO(content), always_2d=True)[0] * _INT16_SCALE
        except (soundfile.SoundFileError, ValueError, TypeError):
            return None
    from PIL import Image, ImageSequence

    try:
        with Image.open(io.BytesIO(content)) as image:
            return np.stack([np.asarray(frame, np.float64) for frame in ImageSequence.Iterator(image)])
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError):
        return None


def _spectra_agree(one: np.ndarray, other: np.ndarray) -> bool:
    magnitudes, others = (_spectrogram(samples) for samples in (one, other))
    return bool(np.linalg.norm(magnitudes - others) <= SPECTRUM_TOLERANCE * np.linalg.norm(magnitudes))


def _spectrogram(samples: np.ndarray) -> np.ndarray:
    padded = np.pad(samples, ((_WINDOW, _WINDOW), (0, 0)))
    frames = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW, axis=0)[::_HOP]
    return np.abs(np.fft.rfft(frames * np.hanning(_WINDOW)))
