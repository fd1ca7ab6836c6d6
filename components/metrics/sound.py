"""Distance of generated speech from recordings of the same words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from kerasline.components.core.errors import DataError
from kerasline.components.metrics.base import Direction, Rows, SumMetrics, divided

# Sound is compared at this rate, in samples per second.
RATE = 16_000
# Cepstral coefficients 1 to 13. Coefficient 0 is the loudness.
COEFFICIENTS = 13
# Limit of the distances between frames that are in memory at once: 32 MB.
MOST_DISTANCES = 1 << 22


class MelCepstralDistortion(SumMetrics):
    """Mel-cepstral distortion in decibels, after alignment by dynamic time warping; the mean over rows.

    The distance of two frames is 10 / ln 10 · sqrt(2 Σ (c_m - c'_m)²) over the mel-cepstral coefficients m = 1 to 13,
    for which ln |H| = Σ c_m cos(m ω) (Kubichek, "Mel-Cepstral Distance Measure for Objective Speech Quality
    Assessment", PacRim 1993). A row's distortion is the mean along the path of steps (1, 1), (1, 0) and (0, 1) with
    the least total distance (Sakoe and Chiba, IEEE Transactions on Acoustics, Speech, and Signal Processing 26, 1978).
    The spectra are those of `kl.layers.LogMel` at 16,000 samples per second, 80 bands of 25 ms every 10 ms, so that
    values can be compared with each other, but not with those of other analyses.

    Labels and predictions are sound files, bytes (rows,). Rows with less than one frame of sound are ignored.

    Raises:
        DataError: when computing: a value is no sound file.
    """

    directions: Mapping[str, Direction] = {"mel_cepstral_distortion": "down"}

    def sums(self, rows: Rows) -> np.ndarray:
        if not len(rows):
            return np.zeros((0, 3))
        distortion = distortions(*mel_cepstra(_files(rows.label)), *mel_cepstra(_files(rows.prediction)))
        known = np.isfinite(distortion)
        return np.stack([np.ones(len(rows)), np.where(known, distortion, 0), known], axis=1)

    def values(self, sums: np.ndarray) -> dict[str, np.ndarray]:
        return {"mel_cepstral_distortion": divided(sums[..., 1], sums[..., 2])}


def mel_cepstra(files: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """Return the mel-cepstral coefficients 1 to 13 of sound files.

    Returns:
        float64 (rows, frames, 13), and the number of frames of each row, int64 (rows,). What follows them is 0.
    """
    from kerasline.components.data.media_decoding import SoundForm, UndecodableError, decode_sound
    from kerasline.components.preprocessing.layers.audio import AudioDecoding, LogMel

    try:
        waves = [decode_sound(file, SoundForm(RATE, 1))[0] for file in files]
    except UndecodableError as error:
        raise DataError(f"mel_cepstral_distortion: {error.reason}; {error.advice}") from error
    frames = LogMel(RATE)(AudioDecoding(None, RATE)(np.array(waves, object))).numpy().astype(np.float64)
    bands = frames.shape[2]
    # Frames are logarithms of power, twice those of |H|: c_m = 2 / bands · Σ ln |H| cos(m ω).
    cosines = np.cos(np.pi / bands * np.outer(np.arange(bands) + 0.5, np.arange(1, COEFFICIENTS + 1)))
    return np.nan_to_num(frames) @ cosines / bands, np.isfinite(frames[..., 0]).sum(axis=1)


def distortions(
    reference: np.ndarray, reference_lengths: np.ndarray, other: np.ndarray, other_lengths: np.ndarray
) -> np.ndarray:
    """Return the mean distance in decibels of the aligned frames of each row, float64 (rows,).

    Args:
        reference, other: float64 (rows, frames, k), coefficients.
        reference_lengths, other_lengths: int64 (rows,), numbers of frames. NaN is returned where one is 0.
    """
    lengths = np.stack([reference_lengths, other_lengths], axis=1)
    at_once = max(1, MOST_DISTANCES // max(reference.shape[1] * other.shape[1], 1))
    means = []
    for first in range(0, len(lengths), at_once):
        a, b = (side[first : first + at_once] for side in (reference, other))
        squares = np.square(a).sum(-1)[:, :, np.newaxis] + np.square(b).sum(-1)[:, np.newaxis]
        distance = np.sqrt(np.maximum(squares - 2 * a @ b.swapaxes(1, 2), 0))
        means.append(aligned_means(distance, lengths[first : first + at_once]))
    return 10 / math.log(10) * math.sqrt(2) * np.concatenate(means)


def aligned_means(distance: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return the mean distance along the path of least total distance, float64 (rows,). Diagonal steps win ties.

    All rows advance together, one antidiagonal at a time.

    Args:
        distance: float64 (rows, m, n), between the frames of two sequences.
        lengths: int64 (rows, 2), of both sequences. NaN is returned where one is 0.
    """
    rows, m, n = distance.shape
    last, means = lengths.sum(axis=1) - 2, np.full(rows, np.nan)
    # Total and number of steps of the best path to each cell of the last two antidiagonals, by 1 + index in m.
    before, now = (np.full((2, rows, m + 1), np.inf) for _ in range(2))
    for diagonal in range(m + n - 1 if n else 0):
        i = np.arange(max(0, diagonal - n + 1), min(diagonal, m - 1) + 1)
        following = np.full((2, rows, m + 1), np.inf)
        steps = np.stack([before[:, :, i], now[:, :, i], now[:, :, i + 1]])  # from (i-1, j-1), (i-1, j), (i, j-1)
        if diagonal == 0:
            steps = np.zeros((3, 2, rows, 1))
        best = np.argmin(steps[:, :1], axis=0, keepdims=True)
        total, count = np.take_along_axis(steps, best, axis=0)[0]
        following[0][:, i + 1] = total + distance[:, i, diagonal - i]
        following[1][:, i + 1] = count + 1
        ended = np.flatnonzero((last == diagonal) & (lengths.min(axis=1) > 0))
        total, count = following[:, ended, lengths[ended, 0]]
        means[ended] = total / count
        before, now = now, following
    return means


def _files(values: np.ndarray) -> list[bytes]:
    files = values.reshape(len(values), -1)[:, 0].tolist() if len(values) else []
    for file in files:
        if not isinstance(file, bytes):
            raise DataError(
                "mel_cepstral_distortion: expected sound files, such as those of kl.decoding.encode_wav, received "
                f"{type(file).__name__}"
            )
    return files
