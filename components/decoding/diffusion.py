"""Images and other tensors from diffusion models."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import tensorflow as tf

from kerasline.components.preprocessing.layers.base import check

Rates = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


def cosine_rates(t: Any, max_signal: float = 0.9998, min_signal: float = 0.02) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the shares of signal and noise at time t, whose squares add up to 1: a cosine schedule.

    Use it in training, for `signal * images + noise * random`, and in `ddim`.

    Args:
        t: floats from 0 (signal) to 1 (noise).
        max_signal: float. The signal's rate at time 0. Defaults to 0.9998.
        min_signal: float. The signal's rate at time 1. Defaults to 0.02.

    Example:

    >>> signal, noise = kl.decoding.cosine_rates([0.0, 1.0])
    >>> signal.numpy().round(4), noise.numpy().round(4)
    (array([0.9998, 0.02  ], dtype=float32), array([0.02  , 0.9998], dtype=float32))
    """
    start, stop = math.acos(max_signal), math.acos(min_signal)
    angle = start + tf.cast(t, tf.float32) * (stop - start)
    return tf.cos(angle), tf.sin(angle)


def ddim(
    denoise: Callable[[tf.Tensor, tf.Tensor], Any],
    noise: Any,
    *,
    steps: int = 50,
    rates: Rates = cosine_rates,
    predicts: Literal["noise", "signal", "velocity"] = "noise",
    clip: tuple[float, float] | None = (-1.0, 1.0),
) -> tf.Tensor:
    """Return what a diffusion model makes of noise: deterministic sampling (Song et al., DDIM, 2021), in one loop.

    Args:
        denoise: callable `(x, t) -> prediction` of the shape of x. t, float32 (rows, 1), is the same for all rows.
        noise: floats (rows, ...), such as those of `row_noise`.
        steps: int. Number of calls of `denoise`. Defaults to 50.
        rates: callable from t to the rates of signal and noise. Defaults to `cosine_rates`.
        predicts: what `denoise` returns: the `"noise"`, the `"signal"`, or the `"velocity"`, signal_rate * noise -
            noise_rate * signal (Salimans and Ho, 2022). Defaults to `"noise"`.
        clip: tuple of two floats, the range of signals. None does not clip. Defaults to `(-1, 1)`.

    Returns:
        float32 (rows, ...): the signal predicted in the last step.

    Raises:
        ValueError: an argument is invalid.
    """
    kinds = ("noise", "signal", "velocity")
    check("ddim", isinstance(steps, int) and steps >= 1, "steps", steps, "an integer from 1")
    check("ddim", predicts in kinds, "predicts", predicts, " or ".join(map(repr, kinds)))
    noise = tf.cast(noise, tf.float32)
    rows = tf.shape(noise)[0]

    def body(i: tf.Tensor, x: tf.Tensor, _: tf.Tensor) -> tuple:
        t = 1.0 - tf.cast(i, tf.float32) / steps
        signal_rate, noise_rate = rates(t)
        predicted = tf.ensure_shape(tf.cast(denoise(x, tf.fill([rows, 1], t)), tf.float32), x.shape)
        if predicts == "noise":
            signal = (x - noise_rate * predicted) / signal_rate
        elif predicts == "signal":
            signal = predicted
        else:
            signal = signal_rate * x - noise_rate * predicted
        signal = signal if clip is None else tf.clip_by_value(signal, *clip)
        rest = (x - signal_rate * signal) / noise_rate
        next_signal_rate, next_noise_rate = rates(t - 1.0 / steps)
        return i + 1, next_signal_rate * signal + next_noise_rate * rest, signal

    first = (tf.constant(0), noise, noise)
    return tf.while_loop(lambda i, *_: i < steps, body, first, maximum_iterations=steps)[2]


def row_noise(seeds: Any, shape: Sequence[int]) -> tf.Tensor:
    """Return standard normal numbers, float32 (rows, *shape), that depend on the row's seed alone.

    Args:
        seeds: integers (rows,) or (rows, 1), such as a column of the request.
        shape: tuple of ints. The shape of a row.

    Example:

    >>> noise = kl.decoding.row_noise([1, 2, 1], (4, 4))
    >>> bool((noise[0] == noise[2]).numpy().all()), bool((noise[0] == noise[1]).numpy().all())
    (True, False)
    """
    spec = tf.TensorSpec(tuple(shape), tf.float32)

    def drawn(seed: tf.Tensor) -> tf.Tensor:
        return tf.random.stateless_normal(spec.shape, tf.stack([seed, 0]))

    return tf.map_fn(drawn, tf.reshape(tf.cast(seeds, tf.int64), [-1]), fn_output_signature=spec)
