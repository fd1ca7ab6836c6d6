"""Which frames of sound belong to which character: alignment in training, and durations in the answer."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from kerasline.components.preprocessing.layers.base import check

# Score of what no path can reach.
UNREACHABLE = -1e9


@keras.saving.register_keras_serializable("kerasline")
class MonotonicAlignment(keras.layers.Layer):
    """Returns the number of frames of each token on the best path: the monotonic alignment search of Glow-TTS.

    A path assigns a token to each frame. It begins with the first token, ends with the last, and from frame to frame
    stays at a token or goes to the next. The best path has the largest sum of scores (Kim et al., NeurIPS 2020). With
    scores that a model learns, such as log-likelihoods of frames, speech synthesis needs no other aligner. Nothing is
    learned through the durations themselves.

    Args:
        deviation: float above 0, or None. Adds the logarithm of a normal distribution about the diagonal, of this
            standard deviation as a share of the row, so that training begins with tokens of equal durations, before
            the scores say more. Defaults to 0.1.

    Inputs:
        Scores, floats (rows, frames, tokens), and the numbers of tokens and frames of each row, integers (rows,).

    Outputs:
        int32 (rows, tokens), 0 beyond a row's tokens. Each token has at least one frame if there are enough.

    Raises:
        ValueError: an argument or the inputs are invalid.

    Example:

    >>> scores = np.array([[[1, 0], [1, 0], [1, 0], [0, 1]]], "float32")
    >>> kl.layers.MonotonicAlignment(deviation=None)(scores, np.array([2]), np.array([4])).numpy().tolist()
    [[3, 1]]
    """

    def __init__(self, deviation: float | None = 0.1, **options: Any) -> None:
        super().__init__(**{"dtype": "float32", **options})
        allowed = deviation is None or deviation > 0
        check("MonotonicAlignment", allowed, "deviation", deviation, "a number above 0, or None")
        self.autocast, self.deviation = False, deviation

    def call(self, scores: Any, token_lengths: Any, frame_lengths: Any) -> tf.Tensor:
        scores = tf.stop_gradient(tf.cast(scores, tf.float32))
        token_lengths, frame_lengths = (
            tf.cast(tf.reshape(one, [-1]), tf.int32) for one in (token_lengths, frame_lengths)
        )
        if self.deviation is not None:
            scores += self._prior(scores, token_lengths, frame_lengths)
        frames, tokens = tf.shape(scores)[1], tf.shape(scores)[2]
        # Of a batch without sound one frame remains, which is in no row.
        scores = tf.pad(tf.transpose(scores, [1, 0, 2]), [[0, tf.maximum(1 - frames, 0)], [0, 0], [0, 0]])
        times = tf.range(tf.shape(scores)[0])
        best = tf.where(tf.range(tokens) == 0, scores[0], UNREACHABLE)

        def forward(state: Any, score: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            stayed = state[0]
            advanced = tf.pad(stayed[:, :-1], [[0, 0], [1, 0]], constant_values=UNREACHABLE)
            return tf.maximum(stayed, advanced) + score, advanced > stayed

        def backward(token: tf.Tensor, step: Any) -> tf.Tensor:
            advances, time = step
            has_advanced = tf.gather(advances, token, batch_dims=1) & (time < frame_lengths)
            return token - tf.cast(has_advanced, tf.int32)

        _, advances = tf.scan(forward, scores[1:], (best, tf.zeros_like(best, tf.bool)))
        last = tf.maximum(token_lengths - 1, 0)
        before = tf.scan(backward, (advances, times[1:]), last, reverse=True)
        path = tf.concat([before, last[tf.newaxis]], axis=0)
        is_frame = (times[:, tf.newaxis] < frame_lengths) & (token_lengths > 0)
        return tf.reduce_sum(tf.one_hot(tf.where(is_frame, path, -1), tokens, dtype=tf.int32), axis=0)

    def _prior(self, scores: tf.Tensor, token_lengths: tf.Tensor, frame_lengths: tf.Tensor) -> tf.Tensor:
        def places(size: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
            """Return the middle of each step as a share of the row, (rows, steps)."""
            return (tf.range(size, dtype=tf.float32) + 0.5) / tf.cast(tf.maximum(lengths, 1), tf.float32)[:, tf.newaxis]

        frames, tokens = (
            places(tf.shape(scores)[1], frame_lengths)[:, :, tf.newaxis],
            places(tf.shape(scores)[2], token_lengths)[:, tf.newaxis],
        )
        return -(((frames - tokens) / self.deviation) ** 2) / 2

    def compute_output_spec(self, scores: Any, token_lengths: Any, frame_lengths: Any) -> keras.KerasTensor:
        fits = len(scores.shape) == 3 and "float" in str(scores.dtype)
        received = f"{scores.dtype} {tuple(scores.shape)}"
        check("MonotonicAlignment", fits, "scores", received, "floats (rows, frames, tokens)")
        for name, lengths in (("token_lengths", token_lengths), ("frame_lengths", frame_lengths)):
            fits = "int" in str(lengths.dtype) and tuple(lengths.shape[1:]) in ((), (1,))
            received = f"{lengths.dtype} {tuple(lengths.shape)}"
            check("MonotonicAlignment", fits, name, received, "integers (rows,)")
        return keras.KerasTensor((scores.shape[0], scores.shape[2]), "int32")

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "deviation": self.deviation}


@keras.saving.register_keras_serializable("kerasline")
class LengthRegulation(keras.layers.Layer):
    """Repeats each token's vector for as many frames as the token lasts (Ren et al., FastSpeech, 2019).

    Inputs:
        Values, floats (rows, tokens, units), and durations, integers (rows, tokens). Optionally `like`, a tensor
        (rows, frames, ...), which has as many frames as the outputs shall have; without it, there are as many as the
        longest row lasts.

    Outputs:
        Two: the values of each frame, (rows, frames, units), and the place of the frame within its token, between 0 and
        1, (rows, frames, 1). Both are 0 beyond a row's end.

    Raises:
        ValueError: the inputs are invalid.

    Example:

    >>> values, places = kl.layers.LengthRegulation()(np.array([[[7.0], [8.0]]]), np.array([[1, 2]]))
    >>> values[0, :, 0].numpy().tolist(), places[0, :, 0].numpy().tolist()
    ([7.0, 8.0, 8.0], [0.5, 0.25, 0.75])
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.autocast = False  # float16 has no integers beyond 2,048

    def call(self, values: Any, durations: Any, like: Any = None) -> tuple[tf.Tensor, tf.Tensor]:
        values, durations = tf.convert_to_tensor(values), tf.cast(durations, tf.int32)
        ends = tf.cumsum(durations, axis=1)
        rows, tokens = tf.shape(values)[0], tf.shape(values)[1]
        frames = tf.maximum(tf.reduce_max(ends), 0) if like is None else tf.shape(like)[1]
        times = tf.tile(tf.range(frames)[tf.newaxis], [rows, 1])
        found = tf.searchsorted(ends, times, side="right")
        token = tf.minimum(found, tokens - 1)
        is_frame = (found < tokens)[..., tf.newaxis]
        repeated = tf.gather(values, token, batch_dims=1)
        begin, lasts = (tf.gather(one, token, batch_dims=1) for one in (ends - durations, durations))
        places = tf.cast(times - begin, tf.float32) + 0.5
        places = tf.cast(places / tf.cast(tf.maximum(lasts, 1), tf.float32), values.dtype)[..., tf.newaxis]
        return tuple(tf.where(is_frame, one, tf.zeros_like(one)) for one in (repeated, places))

    def compute_output_spec(
        self, values: Any, durations: Any, like: Any = None
    ) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        fits = len(values.shape) == 3 and len(durations.shape) == 2 and "int" in str(durations.dtype)
        received = f"{tuple(values.shape)} and {durations.dtype} {tuple(durations.shape)}"
        check("LengthRegulation", fits, "inputs", received, "(rows, tokens, units), and integers (rows, tokens)")
        rows, _, units = values.shape
        frames = None if like is None else like.shape[1]
        return keras.KerasTensor((rows, frames, units), values.dtype), keras.KerasTensor(
            (rows, frames, 1), values.dtype
        )
