"""Encoded sound as samples. Spectrograms are Keras's own layers: `MelSpectrogram`, `STFTSpectrogram`."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
import tensorflow as tf


@keras.saving.register_keras_serializable("kerasline")
class AudioDecoding(keras.layers.Layer):
    """Decodes WAV files (16-bit PCM) to one length.

    Input: files as texts, (rows,) or (rows, 1). Output: float32 from -1 to 1, (rows, samples) of one
    channel, else (rows, samples, channels); longer ones are cut, shorter filled up with zeros at the
    end. A missing ("") file is silence. A file with fewer channels repeats its first, of one with more
    the first are taken.

    What is no such file, or has another rate, raises TensorFlow's InvalidArgumentError, in training
    and serving alike.

    Args:
        samples: how many there are after it.
        rate: samples a second that every file must have.
        channels: how many.
    """

    def __init__(self, samples: int, rate: int, channels: int = 1, **options: Any) -> None:
        super().__init__(**options)
        self.supports_jit = False  # XLA has no texts
        for name, given in (("samples", samples), ("rate", rate), ("channels", channels)):
            if not isinstance(given, int) or given < 1:
                raise ValueError(f"AudioDecoding: {name} is {given!r}; possible: 1 or more")
        self.samples, self.rate, self.channels = samples, rate, channels

    def call(self, files: Any) -> tf.Tensor:
        files = tf.reshape(tf.convert_to_tensor(files), [-1])
        form = tf.TensorSpec((self.samples, self.channels), tf.float32)
        sound = tf.map_fn(self._decoded, files, fn_output_signature=form, parallel_iterations=16)
        return sound[..., 0] if self.channels == 1 else sound

    def compute_output_spec(self, files: Any) -> keras.KerasTensor:
        if files.dtype != "string" or tuple(files.shape[1:]) not in ((), (1,)):
            raise ValueError(
                f"AudioDecoding: inputs are {files.dtype} {tuple(files.shape)}; possible: texts (rows,) or "
                "(rows, 1), each a WAV file"
            )
        shape = (files.shape[0], self.samples, *([] if self.channels == 1 else [self.channels]))
        return keras.KerasTensor(shape, "float32")

    def get_config(self) -> dict[str, Any]:
        config = {"samples": self.samples, "rate": self.rate, "channels": self.channels}
        return {**super().get_config(), **config}

    def _decoded(self, file: tf.Tensor) -> tf.Tensor:
        silence = tf.zeros((self.samples, self.channels))
        return tf.cond(file == "", lambda: silence, lambda: self._of_file(file))

    def _of_file(self, file: tf.Tensor) -> tf.Tensor:
        sound, rate = tf.audio.decode_wav(file, self.channels, self.samples)
        message = f"AudioDecoding {self.name!r}: a file's rate is not the {self.rate} samples a second wanted"
        with tf.control_dependencies([tf.debugging.assert_equal(rate, self.rate, message)]):
            return tf.ensure_shape(tf.identity(sound), (self.samples, self.channels))


@keras.saving.register_keras_serializable("kerasline")
class Resampling(keras.layers.Layer):
    """Changes the sampling rate as SciPy's `resample_poly` does by default.

    Raised `up` times, filtered by a Kaiser window (beta 5) of 20 max(up, down) + 1 taps, and every
    `down`-th sample kept, as one convolution: some 20 max(up, down) / up multiplications a sample.

    Input: float32 (rows, samples). Output: float32 (rows, ceil(samples up / down)).

    Args:
        from_rate, to_rate: samples a second.
    """

    def __init__(self, from_rate: int, to_rate: int, **options: Any) -> None:
        super().__init__(**options)
        for name, given in (("from_rate", from_rate), ("to_rate", to_rate)):
            if not isinstance(given, int) or given < 1:
                raise ValueError(f"Resampling: {name} is {given!r}; possible: 1 or more")
        self.from_rate, self.to_rate = from_rate, to_rate
        common = math.gcd(from_rate, to_rate)
        self._up, self._down = to_rate // common, from_rate // common
        self._taps = _low_pass(self._up, self._down)

    def call(self, samples: Any) -> tf.Tensor:
        samples = tf.convert_to_tensor(samples, tf.float32)
        if self._up == self._down:
            return samples
        # Each of the `up` phases of the output is a convolution of the input with its share of the taps.
        filters, before, stride = _phases(self._taps, self._up, self._down)
        count = tf.shape(samples)[1]
        wanted = -(-count * self._up // self._down)
        steps = -(-wanted // self._up)
        length = (steps - 1) * stride + filters.shape[0]
        padded = tf.pad(samples, [[0, 0], [before, tf.maximum(length - before - count, 0)]])[:, :length]
        phases = tf.nn.conv1d(padded[..., None], filters[:, None, :], stride=stride, padding="VALID")
        resampled = tf.reshape(phases, [tf.shape(samples)[0], -1])[:, :wanted]
        return tf.ensure_shape(resampled, [samples.shape[0], self._length(samples.shape[1])])

    def compute_output_spec(self, samples: Any) -> keras.KerasTensor:
        if samples.dtype == "string" or len(samples.shape) != 2:
            raise ValueError(
                f"Resampling: inputs are {samples.dtype} {tuple(samples.shape)}; possible: numbers (rows, samples)"
            )
        return keras.KerasTensor((samples.shape[0], self._length(samples.shape[1])), "float32")

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "from_rate": self.from_rate, "to_rate": self.to_rate}

    def _length(self, samples: int | None) -> int | None:
        return None if samples is None else -(-samples * self._up // self._down)


def _low_pass(up: int, down: int) -> np.ndarray:
    """The windowed sinc of SciPy's `firwin(20 m + 1, 1 / m, window=("kaiser", 5.0)) * up`, m the larger rate."""
    most = max(up, down)
    place = np.arange(-10 * most, 10 * most + 1)
    taps = np.sinc(place / most) / most * np.kaiser(20 * most + 1, 5.0)
    return taps / taps.sum() * up


def _phases(taps: np.ndarray, up: int, down: int) -> tuple[np.ndarray, int, int]:
    """The taps by phase, (width, up); how many zeros go before the input; and the input's stride.

    Output n is the sum over inputs k of taps[n down - k up + half]. For n = q up + p that is k = q down + j,
    of tap p down - j up + half, whatever q.
    """
    half = len(taps) // 2
    low = -(half // up)
    high = ((up - 1) * down + half) // up
    j = np.arange(low, high + 1)[:, None]
    tap = np.arange(up)[None, :] * down - j * up + half
    there = (tap >= 0) & (tap < len(taps))
    return np.where(there, taps[np.where(there, tap, 0)], 0).astype(np.float32), -low, down
