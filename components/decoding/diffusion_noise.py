"""What a diffusion model learns from: images with noise of a random level."""

from __future__ import annotations

import math
from typing import Any, Literal

import keras
import tensorflow as tf

from kerasline.components.decoding.diffusion import cosine_rates
from kerasline.components.preprocessing.layers.augmentation import RandomRows
from kerasline.components.preprocessing.layers.base import check

TARGETS = ("noise", "signal", "velocity")


@keras.saving.register_keras_serializable("kerasline")
class DiffusionNoise(RandomRows):
    """Adds noise of a random level to images, or other tensors, and returns what a diffusion model learns.

    The level is that of `kl.decoding.cosine_rates` at a time between 0 and 1. In training, time and noise depend on
    seed, epoch and row. In evaluation they depend on the row's seed alone, so that the loss is repeatable.

    Args:
        target: what the model learns to predict, as `predicts` of `kl.decoding.ddim`: `"noise"`, `"signal"` or
            `"velocity"`. Defaults to `"velocity"`.
        seed: int. See `kerasline.components.preprocessing.layers.augmentation.RandomRows`.

    Inputs:
        Images, floats (rows, ...), from -1 to 1, and seeds, integers (rows, 1).

    Outputs:
        The noisy images, the times (rows, 1), and the targets.

    Raises:
        ValueError: an argument is invalid.

    Example:

    >>> noisy, time, target = kl.layers.DiffusionNoise("noise")(np.ones((1, 4, 4, 1), "float32"), np.array([[7]]))
    >>> signal_rate, noise_rate = kl.decoding.cosine_rates(time)
    >>> bool(np.allclose(noisy[0], signal_rate[0] + noise_rate[0] * target[0], atol=1e-6))
    True
    """

    def __init__(
        self, target: Literal["noise", "signal", "velocity"] = "velocity", seed: int | None = None, **options: Any
    ) -> None:
        super().__init__(seed, **options)
        check("DiffusionNoise", target in TARGETS, "target", target, " or ".join(map(repr, TARGETS)))
        self.target = target

    def call(self, images: Any, seeds: Any, training: bool = False) -> tuple[Any, Any, Any]:
        images = tf.convert_to_tensor(images)
        rows, size = tf.shape(images)[0], math.prod(images.shape[1:])
        if training:
            time, noise = self.uniform(rows), self.normal(rows, size)
        else:
            seeds = tf.reshape(tf.cast(seeds, tf.int64), [-1])
            spec = (tf.TensorSpec((1,)), tf.TensorSpec((size,)))
            time, noise = tf.map_fn(lambda seed: _drawn(seed, size), seeds, fn_output_signature=spec)
        noise = tf.cast(tf.reshape(noise, tf.shape(images)), images.dtype)
        rates = cosine_rates(time)
        shape = [-1] + [1] * (images.shape.rank - 1)
        signal_rate, noise_rate = (tf.cast(tf.reshape(rate, shape), images.dtype) for rate in rates)
        noisy = signal_rate * images + noise_rate * noise
        velocity = signal_rate * noise - noise_rate * images
        return noisy, time, {"noise": noise, "signal": images, "velocity": velocity}[self.target]

    def compute_output_spec(self, images: Any, seeds: Any, training: bool = False) -> tuple[Any, Any, Any]:
        fits = "float" in str(images.dtype) and None not in images.shape[1:]
        received = f"{images.dtype} {tuple(images.shape)}"
        check("DiffusionNoise", fits, "images", received, "floats of a fixed shape")
        image, time = keras.KerasTensor(images.shape, images.dtype), keras.KerasTensor((images.shape[0], 1), "float32")
        return image, time, image

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "target": self.target}


def _drawn(seed: tf.Tensor, size: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the time and the noise of a row."""
    time = tf.random.stateless_uniform([1], tf.stack([seed, 1]))
    return time, tf.random.stateless_normal([size], tf.stack([seed, 2]))
