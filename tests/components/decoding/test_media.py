"""Generated images and sound, against Pillow, SciPy, NumPy and closed forms."""

import io

import numpy as np
import pytest
import scipy.signal
import tensorflow as tf
from PIL import Image
from scipy.io import wavfile

import kerasline as kl
from kerasline import decoding

GENERATOR = np.random.default_rng(0)


@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_files_that_pillow_reads(channels):
    slope = np.linspace(-0.1, 1.1, 30).reshape(6, 5, 1) ** np.arange(1, channels + 1)
    images = (slope * np.array([1, 0.8, 0.5])[:, None, None, None]).astype("float32")
    expected = np.clip(np.rint(images * 255), 0, 255).astype("uint8")
    for encode, error in ((decoding.encode_png, 0), (decoding.encode_jpeg, 30)):
        for given in (images, expected):
            files = encode(given).numpy()
            found = np.stack([np.asarray(Image.open(io.BytesIO(file))).reshape(6, 5, channels) for file in files])
            assert np.abs(found.astype(int) - expected).max() <= error
    np.testing.assert_array_equal(decoding.encode_png(images[1:2]), decoding.encode_png(images)[1:2])


def test_sounds_are_files_that_scipy_reads():
    sound = GENERATOR.uniform(-1.2, 1.2, (3, 50)).astype("float32")
    lengths = np.array([[50], [20], [0]])
    files, raw = decoding.encode_wav(sound, 8000, lengths).numpy(), decoding.encode_pcm(sound, lengths).numpy()
    for file, pcm, samples, length in zip(files, raw, sound, lengths[:, 0]):
        found = np.frombuffer(pcm, "<i2")
        assert len(found) == length
        np.testing.assert_allclose(found, np.clip(samples[:length] * 32768, -32768, 32767), atol=1.01)
        if length:
            rate, read = wavfile.read(io.BytesIO(file))
            assert rate == 8000
            np.testing.assert_array_equal(read, found)
    stereo = decoding.encode_wav(np.stack([sound, -sound], axis=2), 16000).numpy()[0]
    assert wavfile.read(io.BytesIO(stereo))[1].shape == (50, 2)


def spectrogram_of(sound, length=128, step=32):
    window = np.hanning(length + 1)[:-1]
    frames = np.lib.stride_tricks.sliding_window_view(sound, length)[::step] * window
    return np.fft.rfft(frames)


def sound_of(spectrogram, length=128, step=32):
    inverse = tf.signal.inverse_stft_window_fn(step)(length, tf.float32).numpy()
    sound = np.zeros((len(spectrogram) - 1) * step + length)
    for place, frame in enumerate(np.fft.irfft(spectrogram)):
        sound[place * step : place * step + length] += frame * inverse
    return sound


def test_griffin_lim_does_what_numpy_does():
    sound = scipy.signal.chirp(np.arange(2000) / 4000, 200, 0.5, 900).astype("float32")
    magnitudes = np.abs(spectrogram_of(sound))
    angles, before = np.ones_like(magnitudes, complex), 0.0
    for _ in range(5):
        rebuilt = spectrogram_of(sound_of(magnitudes * angles))
        angles = rebuilt - 0.99 / 1.99 * before
        angles, before = angles / np.maximum(np.abs(angles), 1e-16), rebuilt
    options = {"frame_length": 128, "frame_step": 32}
    found = decoding.griffin_lim(magnitudes[None], iterations=5, **options).numpy()[0]
    np.testing.assert_allclose(found[200:-200], sound_of(magnitudes * angles)[200:-200], atol=2e-2)

    def error(iterations):
        found = decoding.griffin_lim(magnitudes[None], iterations=iterations, **options).numpy()[0]
        return np.linalg.norm(np.abs(spectrogram_of(found)) - magnitudes) / np.linalg.norm(magnitudes)

    assert error(60) < 0.1 and error(60) < error(1) / 3


def test_padded_frames_change_no_sound():
    magnitudes = np.abs(np.stack([spectrogram_of(GENERATOR.normal(size=1000)) for _ in range(2)])).astype("float32")
    options = {"frame_length": 128, "frame_step": 32, "iterations": 8}
    together = decoding.griffin_lim(magnitudes, lengths=[10, len(magnitudes[0])], **options)
    alone = decoding.griffin_lim(magnitudes[:1, :10], **options)
    np.testing.assert_allclose(together[0, : alone.shape[1]], alone[0], atol=1e-4)
    assert not together.numpy()[0, alone.shape[1] :].any()


def test_mel_bands_become_the_least_squares_spectrogram():
    matrix = tf.signal.linear_to_mel_weight_matrix(20, 65, 8000, 60.0, 4000.0).numpy()
    linear = np.abs(GENERATOR.normal(size=(2, 7, 65)))
    mels = (linear @ matrix).astype("float32")
    found = decoding.mel_to_linear(mels, matrix).numpy()
    expected = np.maximum(np.linalg.lstsq(matrix.T, mels.reshape(-1, 20).T, rcond=None)[0].T, 0)
    np.testing.assert_allclose(found.reshape(-1, 65), expected, atol=1e-3)


def test_log_mel_frames_become_sound_with_these_frames():
    """A voice-like sound: twenty harmonics of a pitch that rises."""
    phase = 2 * np.pi * np.cumsum(np.linspace(120, 180, 8000)) / 8000
    sound = sum(np.sin(k * phase) / k for k in range(1, 20))[None].astype("float32") / 4
    layer = kl.layers.LogMel(8000, 80, step=100, window=400, min_power=1e-5)
    frames = layer(sound)
    magnitudes = decoding.log_mel_to_linear(frames, layer)
    power = np.linalg.lstsq(layer.bands().T, np.exp(frames[0].numpy()).T, rcond=None)[0].T
    np.testing.assert_allclose(magnitudes[0] ** 2, np.maximum(power, 0), rtol=1e-3, atol=1e-3 * power.max())
    found = decoding.griffin_lim(magnitudes, frame_length=400, frame_step=100)
    assert found.shape == sound.shape

    def spectrum(samples):
        return np.abs(tf.signal.stft(samples, 400, 100, 512).numpy())

    error = np.linalg.norm(spectrum(found) - spectrum(sound)) / np.linalg.norm(spectrum(sound))
    assert error < 0.3  # the spectral convergence of Sturmel and Daudet, 2011
    with pytest.raises(ValueError, match=r"invalid layer: expected LogMel\(normalize=False\)"):
        decoding.log_mel_to_linear(frames, kl.layers.LogMel(8000, normalize=True))


MEAN, SPREAD = 0.3, 0.2


def exact(kind):
    """The best prediction for data of a normal distribution with MEAN and SPREAD."""

    def denoise(x, t):
        signal, noise = decoding.cosine_rates(t[0, 0])
        variance = (signal * SPREAD) ** 2 + noise**2
        eps = noise * (x - signal * MEAN) / variance
        clean = (x - noise * eps) / signal
        return {"noise": eps, "signal": clean, "velocity": signal * eps - noise * clean}[kind]

    return denoise


@pytest.mark.parametrize("kind", ["noise", "signal", "velocity"])
def test_ddim_maps_noise_to_the_data_distribution(kind):
    """For normal data the sampler's limit is known: noise z becomes MEAN + SPREAD z."""
    noise = decoding.row_noise(np.arange(50), (4,))
    sample = tf.function(
        lambda: decoding.ddim(exact(kind), noise, steps=1000, predicts=kind, clip=None), autograph=False
    )
    found = sample()
    np.testing.assert_allclose(found, MEAN + SPREAD * noise, atol=0.02)


def test_ddim_does_what_numpy_does():
    noise = GENERATOR.normal(size=(2, 3)).astype("float32")

    def rates(t):
        angle = np.arccos(0.9998) + t * (np.arccos(0.02) - np.arccos(0.9998))
        return np.cos(angle), np.sin(angle)

    x = noise.astype("float64")
    for i in range(7):
        t = 1 - i / 7
        eps = np.tanh(x) * t
        (signal, share), (later_signal, later_share) = rates(t), rates(t - 1 / 7)
        clean = np.clip((x - share * eps) / signal, -1, 1)
        x = later_signal * clean + later_share * (x - signal * clean) / share
    found = decoding.ddim(lambda x, t: tf.tanh(x) * t, noise, steps=7)
    np.testing.assert_allclose(found, clean, atol=1e-4)


def test_noise_depends_on_the_seed_of_the_row_alone():
    noise = decoding.row_noise(np.arange(2000)[:, None], (3,)).numpy()
    np.testing.assert_allclose(noise.mean(), 0, atol=0.05)
    np.testing.assert_allclose(noise.std(), 1, atol=0.05)
    np.testing.assert_array_equal(decoding.row_noise([7], (3,))[0], noise[7])


def test_exported_graph_draws_and_speaks(tmp_path):
    module = tf.Module()

    @tf.function(input_signature=[tf.TensorSpec([None, 1], tf.int64)], autograph=False)
    def answer(seed):
        drawn = decoding.ddim(exact("noise"), decoding.row_noise(seed, (8, 8, 1)), steps=5)
        spoken = decoding.griffin_lim(tf.abs(tf.reshape(drawn, [-1, 4, 16]))[:, :, :9], frame_length=16, frame_step=4)
        return {"png": decoding.encode_png(drawn / 2 + 0.5), "wav": decoding.encode_wav(spoken, 8000)}

    module.answer = answer
    tf.saved_model.save(module, str(tmp_path))
    answers = tf.saved_model.load(str(tmp_path)).answer
    found, alone = answers(np.array([[3], [4]])), answers(np.array([[4]]))
    np.testing.assert_array_equal(found["png"][1], alone["png"][0])
    assert kl.layers.ImageDecoding((8, 8), channels=1)(found["png"]).shape == (2, 8, 8, 1)
    assert wavfile.read(io.BytesIO(found["wav"].numpy()[0]))[0] == 8000


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: decoding.encode_png(np.zeros((4, 4, 1), "uint8")), "encode_png: invalid images: expected shape"),
        (lambda: decoding.encode_png(np.zeros((1, 4, 4, 1), "int32")), "expected uint8, or floats from 0 to 1"),
        (lambda: decoding.encode_wav(np.zeros(4), 8000), "encode_wav: invalid samples"),
        (lambda: decoding.griffin_lim(np.zeros((1, 4, 9)), frame_length=32, frame_step=4), "invalid frame_length"),
        (lambda: decoding.ddim(exact("noise"), np.zeros((1, 2)), steps=0), "invalid steps"),
        (lambda: decoding.ddim(exact("noise"), np.zeros((1, 2)), predicts="x"), "invalid predicts"),
    ],
)
def test_invalid_argument_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("target", ["noise", "signal", "velocity"])
def test_sampling_inverts_what_a_diffusion_model_learns(target):
    """A model that knows the target removes the noise at once."""
    images = GENERATOR.uniform(-1, 1, (4, 3, 3, 2)).astype("float32")
    layer, seeds = kl.layers.DiffusionNoise(target), np.arange(4)[:, None]
    for training in (False, True):
        noisy, time, learned = (one.numpy() for one in layer(images, seeds, training=training))
        signal_rate, noise_rate = (one.numpy()[:, :, None, None] for one in decoding.cosine_rates(time))
        noise = (noisy - signal_rate * images) / noise_rate
        velocity = signal_rate * noise - noise_rate * images
        np.testing.assert_allclose(learned, {"noise": noise, "signal": images, "velocity": velocity}[target], atol=2e-3)
        assert len(np.unique(time)) == 4
    again = layer(images[::-1], seeds[::-1])
    np.testing.assert_array_equal(again[1][::-1], layer(images, seeds)[1])

    def denoise(x, t):
        signal_rate, noise_rate = decoding.cosine_rates(t[0, 0])
        noise = (x - signal_rate * images) / noise_rate
        return {"noise": noise, "signal": images, "velocity": signal_rate * noise - noise_rate * images}[target]

    found = decoding.ddim(denoise, decoding.row_noise(seeds, images.shape[1:]), steps=3, predicts=target)
    np.testing.assert_allclose(found, images, atol=1e-3)


def test_noise_of_training_is_standard_normal():
    zeros = np.zeros((200, 50), "float32")
    _, time, noise = kl.layers.DiffusionNoise("noise", seed=1)(zeros, np.zeros((200, 1)), training=True)
    assert abs(np.mean(noise)) < 0.05 and abs(np.std(noise) - 1) < 0.05
    assert abs(np.mean(time) - 0.5) < 0.06 and abs(np.std(time) - 12**-0.5) < 0.03
