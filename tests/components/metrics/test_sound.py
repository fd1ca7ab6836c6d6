"""Mel-cepstral distortion compared with a plain NumPy analysis and alignment, and with known distances."""

import io
import math

import numpy as np
import pytest
import scipy.fft
import soundfile

from kerasline.components.core.errors import DataError
from kerasline.components.metrics.sound import RATE, MelCepstralDistortion, aligned_means, distortions, mel_cepstra
from tests.components.metrics.of_rows import values


def wav(samples, rate=RATE):
    stream = io.BytesIO()
    soundfile.write(stream, samples, rate, format="WAV", subtype="PCM_16")
    return stream.getvalue()


def speech(seconds, seed, rate=RATE):
    """Return a vowel-like sound: harmonics whose loudness varies."""
    random, t = np.random.default_rng(seed), np.arange(int(seconds * rate)) / rate
    loudness = random.uniform(0.01, 0.05, 12)
    waves = [a * np.sin(2 * np.pi * 140 * (k + 1) * t + 3 * np.sin(2 * np.pi * t)) for k, a in enumerate(loudness)]
    return np.sum(waves, axis=0) * (1 + 0.5 * np.sin(2 * np.pi * random.uniform(1, 4) * t))


def aligned_by_loops(distance):
    """Return the mean along the best path, cell by cell."""
    m, n = distance.shape
    total, steps = np.full((m, n), np.inf), np.zeros((m, n))
    for i in range(m):
        for j in range(n):
            before = [
                (total[a, b], steps[a, b]) for a, b in ((i - 1, j - 1), (i - 1, j), (i, j - 1)) if a >= 0 and b >= 0
            ]
            least, count = min(before, key=lambda one: one[0]) if before else (0, 0)
            total[i, j], steps[i, j] = least + distance[i, j], count + 1
    return total[-1, -1] / steps[-1, -1]


def cepstra_by_numpy(samples, bands=80, window=400, step=160, size=512):
    """Return the coefficients of each frame by NumPy and SciPy."""
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    frames = np.lib.stride_tricks.sliding_window_view(samples, window)[::step] * hann
    power = np.abs(np.fft.rfft(frames, size)) ** 2

    def mel(hertz):
        return 1127 * np.log1p(np.asarray(hertz) / 700)

    edges = np.linspace(mel(20), mel(RATE / 2), bands + 2)
    bins = mel(np.arange(size // 2 + 1) * RATE / size)[:, np.newaxis]
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    weights = np.maximum(0, np.minimum(rising, falling))
    weights[0] = 0
    amplitude = np.log(np.maximum(power @ weights, 1e-6)) / 2
    return scipy.fft.dct(amplitude, type=2)[:, 1:14] / bands  # SciPy's DCT has a factor of 2


def test_distortion_equals_a_plain_analysis_and_alignment():
    pairs = [(speech(0.4, 0), speech(0.5, 1)), (speech(0.3, 2), speech(0.3, 3)), (speech(0.6, 4), speech(0.2, 4))]
    expected = []
    for pair in pairs:
        sides = [cepstra_by_numpy(np.round(side * 32768) / 32768) for side in pair]
        distance = np.linalg.norm(sides[0][:, np.newaxis] - sides[1], axis=-1)
        expected.append(10 / math.log(10) * math.sqrt(2) * aligned_by_loops(distance))
    labels, predictions = (np.array([wav(side) for side in sides], object) for sides in zip(*pairs))
    found = values(MelCepstralDistortion(), labels, predictions)
    assert found["mel_cepstral_distortion"] == pytest.approx(np.mean(expected), rel=2e-3)


def test_alignment_equals_a_loop_over_cells():
    random = np.random.default_rng(0)
    lengths = np.array([[1, 1], [7, 3], [1, 6], [5, 8], [7, 8], [0, 3]])
    distance = random.integers(0, 4, (6, 7, 8)).astype(float)
    found = aligned_means(distance, lengths)
    expected = [aligned_by_loops(one[:m, :n]) for one, (m, n) in zip(distance[:5], lengths)]
    assert found[:5] == pytest.approx(expected) and np.isnan(found[5])


def test_rows_in_parts_have_the_same_distortion(monkeypatch):
    random = np.random.default_rng(1)
    sides = [(random.normal(size=(9, 6, 13)), random.integers(1, 7, 9)) for _ in range(2)]
    whole = distortions(*sides[0], *sides[1])
    monkeypatch.setattr("kerasline.components.metrics.sound.MOST_DISTANCES", 72)
    assert distortions(*sides[0], *sides[1]) == pytest.approx(whole)


def test_equal_slow_and_resampled_sounds():
    sound = speech(0.5, 0)
    assert values(MelCepstralDistortion(), [wav(sound)], [wav(sound)])["mel_cepstral_distortion"] < 1e-4
    longer = np.repeat(mel_cepstra([wav(sound)])[0], 2, axis=1)  # each frame twice
    ((frames, count),) = [mel_cepstra([wav(sound)])]
    assert distortions(frames, count, longer, 2 * count)[0] < 1e-4
    other_rate = wav(speech(0.5, 0, rate=32_000), rate=32_000)
    assert values(MelCepstralDistortion(), [wav(sound)], [other_rate])["mel_cepstral_distortion"] < 1


def test_sound_too_short_for_a_frame_is_ignored():
    sound, short = wav(speech(0.3, 0)), wav(speech(0.01, 0))
    found = values(MelCepstralDistortion(), [sound, sound], [wav(speech(0.3, 1)), short])
    alone = values(MelCepstralDistortion(), [sound], [wav(speech(0.3, 1))])
    assert found == pytest.approx(alone)
    assert np.isnan(values(MelCepstralDistortion(), [sound], [short])["mel_cepstral_distortion"])


@pytest.mark.parametrize("wrong", [b"no sound", 0.5])
def test_other_values_than_sound_files_are_refused(wrong):
    with pytest.raises(DataError, match="mel_cepstral_distortion: "):
        values(MelCepstralDistortion(), np.array([wrong], object), np.array([wrong], object))
