"""Measures of a sound: duration, loudness, clipping and silence."""

from __future__ import annotations

import io

import numpy as np

# Length of the blocks whose loudness decides about silence, and the loudness of silence, in dB of full scale.
BLOCK_SECONDS, SILENCE_DECIBELS = 0.02, -60.0
LEAST_BIT = 2.0**-15  # of 16


def sound_measures(content: bytes) -> dict[str, float]:
    """Return measures of a WAV file, or none if it is damaged or empty.

    Returns:
        dict of `seconds`; `loudness`, the power in decibels, 0 if every sample is at full scale, and at least that of
        one bit; `clipped`, the share of the samples at full scale; and `silent`, the share of the blocks of 20 ms
        below -60 dB.

    Example:

    >>> import io
    >>> import soundfile
    >>> file = io.BytesIO()
    >>> soundfile.write(file, np.array([0.5, -0.5] * 400), 8000, format="WAV")
    >>> {name: round(value, 2) for name, value in sound_measures(file.getvalue()).items()}
    {'seconds': 0.1, 'loudness': -6.02, 'clipped': 0.0, 'silent': 0.0}
    """
    import soundfile

    try:
        samples, rate = soundfile.read(io.BytesIO(content), dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, ValueError, TypeError):
        return {}
    if not len(samples):
        return {}
    power = samples.astype(np.float64) ** 2
    block = max(round(rate * BLOCK_SECONDS), 1)
    starts = np.arange(0, len(samples), block)
    blocks = np.add.reduceat(power.mean(axis=1), starts) / np.diff(np.append(starts, len(samples)))
    is_clipped = (samples >= 1 - LEAST_BIT) | (samples <= -1)
    return {
        "seconds": len(samples) / rate,
        "loudness": 10 * float(np.log10(max(power.mean(), LEAST_BIT**2))),
        "clipped": float(is_clipped.mean()),
        "silent": float((blocks < 10 ** (SILENCE_DECIBELS / 10)).mean()),
    }
