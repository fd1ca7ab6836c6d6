"""Encoded sound as samples. For spectrograms use Keras's `MelSpectrogram` and `STFTSpectrogram`."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasline.components.preprocessing.layers.base import check, is_whole

# Bytes at the beginning of a WAV file that name its format.
_WAV_HEAD = 12


@keras.saving.register_keras_serializable("kerasline")
class AudioDecoding(keras.layers.Layer):
    """Decodes WAV files (16-bit PCM).

    With a fixed length, longer files are cut, and shorter ones are padded with zeros at the end. Otherwise they are
    padded with NaN to the longest of the batch. A missing ("") file is silence, or has no samples. A file with fewer
    channels repeats its first one; of a file with more, the first ones are taken.

    Args:
        samples: int. Number of samples after decoding. None keeps the length of each file.
        rate: int. The sampling rate of every file, in samples per second.
        channels: int. Number of channels. Defaults to 1.

    Inputs:
        The files' contents as texts, (rows,) or (rows, 1).

    Outputs:
        float32 from -1 to 1: (rows, samples) for one channel, else (rows, samples, channels).

    Raises:
        ValueError: an argument or the inputs are invalid.
        tf.errors.InvalidArgumentError: when called, in training and serving, on a text that is not such a file or has
            another rate.

    Example:

    >>> import tensorflow as tf
    >>> wav = tf.audio.encode_wav([[0.5], [-0.5]], sample_rate=8000)
    >>> kl.layers.AudioDecoding(samples=3, rate=8000)(wav[None]).numpy().round(3).tolist()
    [[0.5, -0.5, 0.0]]
    """

    def __init__(self, samples: int | None, rate: int, channels: int = 1, **options: Any) -> None:
        super().__init__(**options)
        self.supports_jit = False  # XLA has no texts
        for name, received in (("samples", samples), ("rate", rate), ("channels", channels)):
            allowed = is_whole(received, 1) or (name == "samples" and received is None)
            check("AudioDecoding", allowed, name, received, "an integer from 1")
        self.samples, self.rate, self.channels = samples, rate, channels

    def call(self, files: Any) -> tf.Tensor:
        files = tf.reshape(tf.convert_to_tensor(files), [-1])
        form: Any = tf.TensorSpec((self.samples, self.channels), tf.float32)
        if self.samples is None:
            form = tf.RaggedTensorSpec((None, self.channels), tf.float32, ragged_rank=0)
        sound = tf.map_fn(self._decoded, files, fn_output_signature=form, parallel_iterations=16)
        sound = sound.to_tensor(math.nan) if self.samples is None else sound
        return sound[..., 0] if self.channels == 1 else sound

    def compute_output_spec(self, files: Any) -> keras.KerasTensor:
        fits = files.dtype == "string" and tuple(files.shape[1:]) in ((), (1,))
        received = f"{files.dtype} {tuple(files.shape)}"
        check("AudioDecoding", fits, "inputs", received, "texts (rows,) or (rows, 1), each a WAV file")
        shape = (files.shape[0], self.samples, *([] if self.channels == 1 else [self.channels]))
        return keras.KerasTensor(shape, "float32")

    def get_config(self) -> dict[str, Any]:
        config = {"samples": self.samples, "rate": self.rate, "channels": self.channels}
        return {**super().get_config(), **config}

    def _decoded(self, file: tf.Tensor) -> tf.Tensor:
        silence = tf.zeros((self.samples or 0, self.channels))
        return tf.cond(file == "", lambda: silence, lambda: self._decoded_file(file))

    def _decoded_file(self, file: tf.Tensor) -> tf.Tensor:
        # Checked here, as TensorFlow's message quotes the bytes, which Python then fails to decode.
        head = tf.strings.join([tf.strings.substr(file, 0, _WAV_HEAD), " " * _WAV_HEAD])
        is_wav = (tf.strings.substr(head, 0, 4) == "RIFF") & (tf.strings.substr(head, 8, 4) == "WAVE")
        message = f"AudioDecoding {self.name!r}: a text is not the content of a WAV file"
        with tf.control_dependencies([tf.debugging.Assert(is_wav, [message])]):
            sound, rate = tf.audio.decode_wav(file, self.channels, -1 if self.samples is None else self.samples)
        message = (
            f"AudioDecoding {self.name!r}: a file has another rate than the expected {self.rate} samples per second"
        )
        with tf.control_dependencies([tf.debugging.assert_equal(rate, self.rate, message)]):
            return tf.ensure_shape(tf.identity(sound), (self.samples, self.channels))


@keras.saving.register_keras_serializable("kerasline")
class Resampling(keras.layers.Layer):
    """Changes the sampling rate as SciPy's `resample_poly` does by default.

    The samples are upsampled `up` times and filtered by a Kaiser window (beta 5) of 20 max(up, down) + 1 taps. Then
    every `down`-th sample is kept. Here up / down is to_rate / from_rate as a reduced fraction. All of this is one
    convolution, with some 20 max(up, down) / up multiplications per sample.

    Args:
        from_rate: int. The inputs' rate in samples per second.
        to_rate: int. The outputs' rate in samples per second.

    Inputs:
        Numbers of shape (rows, samples).

    Outputs:
        float32 of shape (rows, ceil(samples up / down)).

    Raises:
        ValueError: an argument or the inputs are invalid.

    Example:

    >>> kl.layers.Resampling(8000, 4000)(np.ones((1, 10), "float32")).shape
    TensorShape([1, 5])
    """

    def __init__(self, from_rate: int, to_rate: int, **options: Any) -> None:
        super().__init__(**options)
        for name, received in (("from_rate", from_rate), ("to_rate", to_rate)):
            check("Resampling", is_whole(received, 1), name, received, "an integer from 1")
        self.from_rate, self.to_rate = from_rate, to_rate
        common = math.gcd(from_rate, to_rate)
        self._up, self._down = to_rate // common, from_rate // common
        self._taps = _low_pass(self._up, self._down)

    def call(self, samples: Any) -> tf.Tensor:
        samples = tf.convert_to_tensor(samples, tf.float32)
        if self._up == self._down:
            return samples
        # Each of the `up` phases of the output is a convolution of the input with a part of the taps.
        filters, before, stride = _phases(self._taps, self._up, self._down)
        count = tf.shape(samples)[1]
        size = -(-count * self._up // self._down)
        steps = -(-size // self._up)
        length = (steps - 1) * stride + filters.shape[0]
        padded = tf.pad(samples, [[0, 0], [before, tf.maximum(length - before - count, 0)]])[:, :length]
        phases = tf.nn.conv1d(padded[..., None], filters[:, None, :], stride=stride, padding="VALID")
        resampled = tf.reshape(phases, [tf.shape(samples)[0], -1])[:, :size]
        return tf.ensure_shape(resampled, [samples.shape[0], self._length(samples.shape[1])])

    def compute_output_spec(self, samples: Any) -> keras.KerasTensor:
        received = f"{samples.dtype} {tuple(samples.shape)}"
        fits = samples.dtype != "string" and len(samples.shape) == 2
        check("Resampling", fits, "inputs", received, "numbers (rows, samples)")
        return keras.KerasTensor((samples.shape[0], self._length(samples.shape[1])), "float32")

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "from_rate": self.from_rate, "to_rate": self.to_rate}

    def _length(self, samples: int | None) -> int | None:
        return None if samples is None else -(-samples * self._up // self._down)


@keras.saving.register_keras_serializable("kerasline")
class LogMel(keras.layers.Layer):
    """Computes log-mel frames of sound of any length: the natural logarithm of the power in bands of the mel scale.

    A frame is a Hann window of samples within the row, so that a row's frames do not depend on the other rows.

    Args:
        rate: int. The inputs' rate in samples per second.
        mels: int. Number of bands, from 20 Hz to half the rate. Defaults to 80.
        step: int. Number of samples from frame to frame. Defaults to those of 10 ms.
        window: int. Number of samples of a frame. Defaults to those of 25 ms.
        min_power: float above 0. Lower power counts as this. Defaults to 1e-6.
        normalize: bool. Whether each band of a row has the mean 0 over its frames, and the row the standard deviation
            1, so that loudness and the microphone hardly matter. Defaults to `False`.

    Inputs:
        Samples, (rows, samples), with NaN beyond a row's end, as `AudioDecoding(None, rate)` returns them.

    Outputs:
        float32 (rows, frames, mels), with NaN beyond a row's end. `Lengths` counts the frames, `LengthMask` replaces
        NaN by 0.

    Raises:
        ValueError: an argument or the inputs are invalid.

    Example:

    >>> kl.layers.LogMel(rate=8000, mels=40)(np.zeros((1, 360), "float32")).shape
    TensorShape([1, 3, 40])
    """

    def __init__(
        self,
        rate: int,
        mels: int = 80,
        step: int | None = None,
        window: int | None = None,
        min_power: float = 1e-6,
        normalize: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(**{"dtype": "float32", **options})
        self.rate, self.mels, self.min_power, self.normalize = rate, mels, float(min_power), bool(normalize)
        self.step, self.window = step or max(rate // 100, 1), window or max(rate // 40, 1)
        for name in ("rate", "mels", "step", "window"):
            check("LogMel", is_whole(getattr(self, name), 1), name, getattr(self, name), "an integer from 1")
        check("LogMel", min_power > 0, "min_power", min_power, "a number above 0")

    def call(self, samples: Any) -> tf.Tensor:
        samples = tf.cast(samples, tf.float32)
        is_missing = tf.math.is_nan(samples)
        lengths = tf.reduce_sum(tf.cast(~is_missing, tf.int32), axis=1)
        silent = tf.where(is_missing, 0.0, samples)
        count = tf.shape(samples)[1]
        silent = tf.pad(silent, [[0, 0], [0, tf.maximum(self.window - count, 0)]])  # the FFT refuses to have no frame
        power = tf.abs(tf.signal.stft(silent, self.window, self.step, self._fft_length)) ** 2
        frames = tf.math.log(tf.maximum(tf.matmul(power, self.bands()), self.min_power))
        frames = frames[:, : tf.maximum((count - self.window) // self.step + 1, 0)]
        counts = tf.maximum((lengths - self.window) // self.step + 1, 0)
        is_frame = tf.sequence_mask(counts, tf.shape(frames)[1])[..., tf.newaxis]
        if self.normalize:
            frames = _normalized(frames, tf.cast(is_frame, tf.float32), counts)
        return tf.where(is_frame, frames, math.nan)

    def bands(self) -> np.ndarray:
        """Return the weights by which the power of frequencies is summed to bands, float32 (bins, mels)."""
        with tf.init_scope():
            weights = tf.signal.linear_to_mel_weight_matrix(
                self.mels, self._fft_length // 2 + 1, self.rate, 20.0, self.rate / 2
            )
            return np.asarray(weights)

    @property
    def _fft_length(self) -> int:
        return 1 << (self.window - 1).bit_length()

    def compute_output_spec(self, samples: Any) -> keras.KerasTensor:
        received = f"{samples.dtype} {tuple(samples.shape)}"
        check("LogMel", samples.dtype != "string" and len(samples.shape) == 2, "inputs", received, "(rows, samples)")
        count = samples.shape[1]
        frames = None if count is None else max((count - self.window) // self.step + 1, 0)
        return keras.KerasTensor((samples.shape[0], frames, self.mels), "float32")

    def get_config(self) -> dict[str, Any]:
        names = ("rate", "mels", "step", "window", "min_power", "normalize")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


@keras.saving.register_keras_serializable("kerasline")
class PowerToDecibels(keras.layers.Layer):
    """Converts power to decibels: 10 log10(power), with a floor below the loudest value of each row.

    It does what librosa's `power_to_db` does for one recording. Keras's `MelSpectrogram(power_to_db=True)` takes the
    floor from the loudest value of the whole batch, so that a row's result depends on the other rows.

    Args:
        top_db: float above 0. Range of each row in decibels: lower values become its maximum minus `top_db`. Defaults
            to 80.
        min_power: float above 0. Lower power counts as this. Defaults to 1e-10.

    Inputs:
        Power, floats (rows, ...).

    Outputs:
        Decibels of the same shape, in the layer's dtype, which is float32 unless `dtype` is passed.

    Raises:
        ValueError: an argument is invalid.

    Example:

    >>> kl.layers.PowerToDecibels(top_db=30)(np.array([[1.0, 100.0, 0.0]])).numpy().tolist()
    [[0.0, 20.0, -10.0]]
    """

    def __init__(self, top_db: float = 80.0, min_power: float = 1e-10, **options: Any) -> None:
        super().__init__(**{"dtype": "float32", **options})  # whatever the global policy, as `NumericLayer`
        for name, received in (("top_db", top_db), ("min_power", min_power)):
            check("PowerToDecibels", received > 0, name, received, "a number above 0")
        self.top_db, self.min_power = float(top_db), float(min_power)

    def call(self, power: Any) -> Any:
        decibels = 10.0 * keras.ops.log10(keras.ops.maximum(power, self.min_power))
        loudest = keras.ops.max(decibels, axis=tuple(range(1, len(power.shape))), keepdims=True)
        return keras.ops.maximum(decibels, loudest - self.top_db)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "top_db": self.top_db, "min_power": self.min_power}


def _normalized(frames: tf.Tensor, is_frame: tf.Tensor, counts: tf.Tensor) -> tf.Tensor:
    """Return frames (rows, frames, mels) less the mean of each band, divided by the row's standard deviation."""
    counts = tf.maximum(tf.cast(counts, tf.float32), 1.0)[:, tf.newaxis, tf.newaxis]
    frames = (frames - tf.reduce_sum(frames * is_frame, axis=1, keepdims=True) / counts) * is_frame
    variance = tf.reduce_mean(tf.reduce_sum(frames**2, axis=1, keepdims=True) / counts, axis=2, keepdims=True)
    return frames * tf.math.rsqrt(variance + keras.config.epsilon())


def _low_pass(up: int, down: int) -> np.ndarray:
    """Return SciPy's windowed sinc `firwin(20 m + 1, 1 / m, window=("kaiser", 5.0)) * up`. m is the larger rate."""
    most = max(up, down)
    place = np.arange(-10 * most, 10 * most + 1)
    taps = np.sinc(place / most) / most * np.kaiser(20 * most + 1, 5.0)
    return taps / taps.sum() * up


def _phases(taps: np.ndarray, up: int, down: int) -> tuple[np.ndarray, int, int]:
    """Return the taps by phase, (width, up); the number of zeros before the input; and the input's stride.

    Output n is the sum over inputs k of taps[n down - k up + half]. With n = q up + p and k = q down + j, the tap is
    p down - j up + half, for every q.
    """
    half = len(taps) // 2
    low = -(half // up)
    high = ((up - 1) * down + half) // up
    j = np.arange(low, high + 1)[:, None]
    tap = np.arange(up)[None, :] * down - j * up + half
    there = (tap >= 0) & (tap < len(taps))
    return np.where(there, taps[np.where(there, tap, 0)], 0).astype(np.float32), -low, down
