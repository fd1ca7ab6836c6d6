"""Sound decoded and resampled in the graph, held against the wave module and SciPy."""

import io
import wave
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import signal

from kerasline.components.preprocessing.layers.audio import AudioDecoding, LogMel, PowerToDecibels, Resampling
from tests.components.preprocessing.layers.round_trip import round_trips
from tests.conftest import SHARED_DATA

RANDOM = np.random.default_rng(6)
NOISE = RANDOM.integers(-30000, 30000, (300, 2)).astype("<i2")


def wav(samples, rate=8000):
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(samples.shape[1]), file.setsampwidth(2), file.setframerate(rate)
        file.writeframes(samples.tobytes())
    return buffer.getvalue()


def column(*files):
    return np.array([[file] for file in files], object)


@pytest.mark.parametrize("samples", [300, 100, 450])
def test_decoded_samples_are_cut_or_padded_to_length(samples):
    ours = AudioDecoding(samples, 8000, channels=2)(column(wav(NOISE), b"")).numpy()
    expected = np.zeros((samples, 2), "float32")
    expected[:300] = (NOISE / 32768)[:samples]
    np.testing.assert_array_equal(ours, [expected, np.zeros_like(expected)])
    assert AudioDecoding(samples, 8000)(column(wav(NOISE[:, :1]))).shape == (1, samples)


def test_wrong_sample_rate_is_an_error_that_names_the_layer():
    with pytest.raises(
        tf.errors.InvalidArgumentError, match="AudioDecoding 'clip': a file has another rate than the expected 16000"
    ):
        AudioDecoding(10, 16000, name="clip")(column(wav(NOISE)))


@pytest.mark.parametrize("rates", [(8000, 16000), (44100, 16000), (16000, 8000), (48000, 44100), (8000, 8000), (3, 7)])
@pytest.mark.parametrize("length", [1, 50, 777])
def test_resampling_agrees_with_scipy(rates, length):
    samples = RANDOM.normal(size=(2, length)).astype("float32")
    common = np.gcd(*rates)
    expected = signal.resample_poly(samples.astype("float64"), rates[1] // common, rates[0] // common, axis=1)
    ours = Resampling(*rates)(samples)
    assert ours.shape == expected.shape
    np.testing.assert_allclose(ours, expected, atol=1e-5)


def log_mel(samples, rate, window, hop, size, bands, low=20.0):
    """Decibels of the power in bands of HTK's mel scale, within 80 of the loudest: (bands, frames)."""
    taps = np.zeros(size)
    taps[(size - window) // 2 :][:window] = signal.get_window("hann", window)
    padded = np.pad(samples, size // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop]
    power = np.abs(np.fft.rfft(frames * taps)) ** 2

    def mel(hertz):
        return 1127.0 * np.log1p(np.asarray(hertz) / 700.0)

    edges = np.linspace(mel(low), mel(rate / 2), bands + 2)
    place = mel(np.fft.rfftfreq(size, 1 / rate))[1:, None]  # the constant is in no band
    rising, falling = (place - edges[:-2]) / (edges[1:-1] - edges[:-2]), (edges[2:] - place) / (edges[2:] - edges[1:-1])
    weights = np.maximum(0, np.minimum(rising, falling))
    decibels = 10 * np.log10(np.maximum(power[:, 1:] @ weights, 1e-10)).T
    return np.maximum(decibels, decibels.max() - 80)


def test_spoken_digit_passes_all_layers_and_both_saved_formats(tmp_path):
    recordings = SHARED_DATA / "fsdd" / "recordings.zip"
    if not recordings.exists():
        pytest.skip(f"the spoken digits are not at {recordings}")
    with zipfile.ZipFile(recordings) as archive:
        names = [name for name in sorted(archive.namelist()) if name.endswith(".wav")][:3]
        files = column(*(archive.read(name) for name in names))
    raw = keras.Input((1,), name="x", dtype="string")
    samples = Resampling(8000, 16000)(AudioDecoding(4000, 8000)(raw))
    mel = keras.layers.MelSpectrogram(
        fft_length=512, sequence_stride=160, sequence_length=400, sampling_rate=16000, num_mel_bins=40, max_freq=8000
    )(samples)
    model = keras.Model({"x": raw}, {"samples": samples, "mel": mel})
    outputs = model({"x": tf.constant(files)})
    with wave.open(io.BytesIO(files[0, 0])) as file:
        held = np.frombuffer(file.readframes(4000), "<i2")[:4000] / 32768
    expected = signal.resample_poly(np.pad(held, (0, 4000 - len(held))), 2, 1)
    np.testing.assert_allclose(outputs["samples"][0], expected, atol=1e-5)
    bands = log_mel(expected, 16000, 400, 160, 512, 40)
    assert outputs["mel"].shape == (3, *bands.shape)
    np.testing.assert_allclose(outputs["mel"][0], bands, atol=0.05)
    round_trips(model, {"x": files}, tmp_path, tolerance=1e-4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AudioDecoding(0, 8000), "AudioDecoding: invalid samples: expected an integer from 1.*, received 0"),
        (lambda: AudioDecoding(10, 8000)(keras.Input((1,))), "invalid inputs: expected texts .* received 'float32"),
        (lambda: Resampling(8000, 0), "Resampling: invalid to_rate: .* received 0"),
        (lambda: Resampling(1, 2)(keras.Input((1, 2))), r"invalid inputs: .* received 'float32 \(None, 1, 2\)"),
    ],
)
def test_invalid_arguments_raise(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_decibels_follow_the_formula_row_by_row():
    power = np.random.default_rng(3).random((4, 3, 5)) * 10.0 ** np.array([-4, 0, 4, 9])[:, None, None]
    power[0, 0, 0] = 0
    expected = 10 * np.log10(np.maximum(power, 1e-10))
    expected = np.maximum(expected, expected.max(axis=(1, 2), keepdims=True) - 30)
    found = PowerToDecibels(top_db=30)(power.astype("float32"))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_files_of_any_length_are_padded_with_nan():
    ours = AudioDecoding(None, 8000)(column(wav(NOISE[:, :1]), b"", wav(NOISE[:100, :1]))).numpy()
    expected = np.full((3, 300), np.nan, "float32")
    expected[0], expected[2, :100] = NOISE[:, 0] / 32768, NOISE[:100, 0] / 32768
    np.testing.assert_array_equal(ours, expected)


def test_log_mel_frames_lie_within_each_row():
    """The same as SciPy's periodogram of each window, and TensorFlow's mel matrix."""
    lengths, (rate, step, window, size, mels) = (300, 150, 20), (8000, 40, 100, 128, 12)
    sound = RANDOM.normal(size=(3, 300)).astype("float32")
    sound[np.arange(300) >= np.array(lengths)[:, None]] = np.nan
    ours = LogMel(rate, mels, step=step, window=window)(sound).numpy()
    assert ours.shape == (3, 6, mels)
    bands = tf.signal.linear_to_mel_weight_matrix(mels, size // 2 + 1, rate, 20.0, rate / 2).numpy()
    for row, length in enumerate(lengths):
        starts = range(0, length - window + 1, step)
        windowed = [sound[row, start : start + window] * signal.get_window("hann", window) for start in starts]
        expected = [np.log(np.maximum(np.abs(np.fft.rfft(one, size)) ** 2 @ bands, 1e-6)) for one in windowed]
        np.testing.assert_allclose(ours[row, : len(starts)], np.reshape(expected, (len(starts), mels)), atol=1e-4)
        assert np.isnan(ours[row, len(starts) :]).all()


def test_log_mel_of_a_batch_shorter_than_a_frame_has_no_frames():
    assert LogMel(8000, 10, window=64)(np.zeros((2, 63), "float32")).shape == (2, 0, 10)
    assert LogMel(8000, 10, window=64)(np.zeros((2, 0), "float32")).shape == (2, 0, 10)


def test_normalized_frames_depend_neither_on_loudness_nor_on_a_filter():
    """Each band has mean 0, the row deviation 1; a louder row gives the same frames, and so does a padded one."""
    sound = RANDOM.normal(size=(3, 800)).astype("float32")
    sound[1] = 0.1 * sound[0]
    sound[2, 600:] = np.nan
    layer = LogMel(8000, 10, normalize=True)
    ours = layer(sound).numpy()
    plain = LogMel(8000, 10)(sound[:1]).numpy()[0]
    centered = plain - plain.mean(axis=0)
    np.testing.assert_allclose(ours[0], centered / centered.std(), atol=1e-4)
    np.testing.assert_allclose(ours[1], ours[0], atol=1e-3)
    alone = layer(sound[2:, :600]).numpy()
    np.testing.assert_allclose(ours[2, : alone.shape[1]], alone[0], atol=1e-5)
    assert np.isnan(ours[2, alone.shape[1] :]).all()


@pytest.mark.parametrize("content", [b"\xff" * 60, b"RIFF", b"RIFF\0\0\0\0\xff\xff\xff\xff" + b"\0" * 40])
def test_bytes_that_are_no_wav_file_are_refused_in_words(content):
    with pytest.raises(
        tf.errors.InvalidArgumentError, match="AudioDecoding 'clip': a text is not the content of a WAV"
    ):
        AudioDecoding(None, 8000, name="clip")(column(content))
