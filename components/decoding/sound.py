"""Sound from spectrograms, and sound encoded as files."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from kerasline.components.preprocessing.layers.audio import LogMel
from kerasline.components.preprocessing.layers.base import check

# Bytes before the samples in the WAV files that TensorFlow writes.
WAV_HEADER = 44


def griffin_lim(
    magnitudes: Any,
    *,
    frame_length: int,
    frame_step: int,
    lengths: Any = None,
    iterations: int = 32,
    momentum: float = 0.99,
) -> tf.Tensor:
    """Return sound whose spectrogram has these magnitudes: the fast Griffin-Lim algorithm (Perraudin et al., 2013).

    Frames are those of `tf.signal.stft` with its Hann window: frame k begins at sample k * frame_step. All phases begin
    at zero, so a row's sound depends on nothing else.

    Args:
        magnitudes: floats (rows, frames, bins), not squared. `fft_length` is 2 (bins - 1).
        frame_length: int. Samples in a frame.
        frame_step: int. Samples from frame to frame.
        lengths: integers (rows,). Number of frames of each row; what follows is silence. Defaults to None, all.
        iterations: int. More make the sound more consistent. Defaults to 32.
        momentum: float. 0 is the original algorithm of Griffin and Lim (1984). Defaults to 0.99.

    Returns:
        float32 (rows, (frames - 1) * frame_step + frame_length).

    Example:

    >>> import tensorflow as tf
    >>> sound = tf.sin(np.arange(400, dtype="float32") / 5)[None]
    >>> spectrogram = abs(tf.signal.stft(sound, 64, 16))
    >>> found = kl.decoding.griffin_lim(spectrogram, frame_length=64, frame_step=16)
    >>> float(tf.norm(abs(tf.signal.stft(found, 64, 16)) - spectrogram) / tf.norm(spectrogram)) < 0.2
    True
    """
    magnitudes = tf.cast(magnitudes, tf.float32)
    shape = tuple(magnitudes.shape)
    check("griffin_lim", len(shape) == 3 and shape[2] is not None, "magnitudes", shape, "shape (rows, frames, bins)")
    fft_length = 2 * (shape[2] - 1)
    check(
        "griffin_lim",
        1 <= frame_length <= fft_length,
        "frame_length",
        frame_length,
        f"an integer from 1 to {fft_length}",
    )
    check(
        "griffin_lim", 1 <= frame_step <= frame_length, "frame_step", frame_step, f"an integer from 1 to {frame_length}"
    )
    if lengths is not None:
        frames = tf.sequence_mask(tf.reshape(lengths, [-1]), tf.shape(magnitudes)[1], tf.float32)
        magnitudes *= frames[..., None]
    window = tf.signal.inverse_stft_window_fn(frame_step)

    def sound_of(spectrogram: tf.Tensor) -> tf.Tensor:
        return tf.signal.inverse_stft(spectrogram, frame_length, frame_step, fft_length, window)

    def body(i: tf.Tensor, spectrogram: tf.Tensor, before: tf.Tensor) -> tuple:
        rebuilt = tf.signal.stft(sound_of(spectrogram), frame_length, frame_step, fft_length)
        rebuilt = tf.ensure_shape(rebuilt, spectrogram.shape)
        direction = rebuilt - momentum / (1 + momentum) * before
        size = tf.maximum(tf.abs(direction), 1e-16)
        return i + 1, tf.cast(magnitudes / size, tf.complex64) * direction, rebuilt

    start = tf.cast(magnitudes, tf.complex64)
    loop = (tf.constant(0), start, tf.zeros_like(start))
    return sound_of(tf.while_loop(lambda i, *_: i < iterations, body, loop, maximum_iterations=iterations)[1])


def mel_to_linear(mels: Any, matrix: Any) -> tf.Tensor:
    """Return the least-squares spectrogram of mel bands, negative values as 0.

    Args:
        mels: floats (..., mels).
        matrix: floats (bins, mels) by which the spectrogram was multiplied, such as that of
            `tf.signal.linear_to_mel_weight_matrix`. An array, not a tensor of the graph.

    Returns:
        float32 (..., bins).
    """
    matrix = np.asarray(matrix, np.float32)
    check("mel_to_linear", matrix.ndim == 2, "matrix", matrix.shape, "shape (bins, mels)")
    return tf.maximum(tf.tensordot(tf.cast(mels, tf.float32), np.linalg.pinv(matrix), 1), 0.0)


def log_mel_to_linear(frames: Any, layer: LogMel) -> tf.Tensor:
    """Return the spectrogram from which a layer computed log-mel frames: the inverse of `kl.layers.LogMel`.

    The magnitudes are those of the least-squares power. `griffin_lim` makes sound of them, with the layer's `window` as
    `frame_length` and its `step` as `frame_step`.

    Args:
        frames: floats (..., mels), as the layer returns them.
        layer: LogMel, without `normalize`, which cannot be undone.

    Returns:
        float32 (..., bins).

    Example:

    >>> layer, sound = kl.layers.LogMel(8000, 80), np.sin(np.arange(4000, dtype="float32"))[None]
    >>> magnitudes = kl.decoding.log_mel_to_linear(layer(sound), layer)
    >>> kl.decoding.griffin_lim(magnitudes, frame_length=layer.window, frame_step=layer.step).shape
    TensorShape([1, 3960])
    """
    check("log_mel_to_linear", not layer.normalize, "layer", "LogMel(normalize=True)", "LogMel(normalize=False)")
    return tf.sqrt(mel_to_linear(tf.exp(tf.cast(frames, tf.float32)), layer.bands()))


def encode_wav(samples: Any, rate: int, lengths: Any = None) -> tf.Tensor:
    """Return sound as WAV files of 16-bit PCM.

    Args:
        samples: floats from -1 to 1, (rows, samples) or (rows, samples, channels). Others are cut.
        rate: int. Samples per second.
        lengths: integers (rows,). Number of samples of each row. Defaults to None, all.

    Returns:
        The files' contents, texts (rows,).

    Example:

    >>> files = kl.decoding.encode_wav(np.array([[0.5, -0.5, 0.0]]), rate=8000, lengths=[2])
    >>> kl.layers.AudioDecoding(samples=2, rate=8000)(files).numpy().round(3).tolist()
    [[0.5, -0.5]]
    """
    samples = tf.cast(samples, tf.float32)
    samples = samples[..., None] if samples.shape.rank == 2 else samples
    check(
        "encode_wav", samples.shape.rank == 3, "samples", tuple(samples.shape), "shape (rows, samples) or with channels"
    )
    rows = tf.shape(samples)[0]
    lengths = tf.fill([rows], tf.shape(samples)[1]) if lengths is None else tf.cast(tf.reshape(lengths, [-1]), tf.int32)

    def encoded(row: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        return tf.audio.encode_wav(row[0][: row[1]], rate)

    spec = tf.TensorSpec([], tf.string)
    return tf.map_fn(encoded, (tf.clip_by_value(samples, -1.0, 1.0), lengths), fn_output_signature=spec)


def encode_pcm(samples: Any, lengths: Any = None) -> tf.Tensor:
    """Return sound as 16-bit little-endian PCM without a header. The arguments are those of `encode_wav`."""
    files = encode_wav(samples, 1, lengths)
    sizes = tf.strings.length(files)
    return tf.strings.substr(files, tf.fill(tf.shape(sizes), WAV_HEADER), sizes - WAV_HEADER)
