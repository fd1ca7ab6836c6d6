"""Random changes of sound and tokens in training. Keras has most of those of images; see `random_window`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasline.components.data.shuffling import mix
from kerasline.components.preprocessing.layers.base import check, increase_within, is_whole
from kerasline.components.preprocessing.row_seeds import current_row_seeds


class RandomRows(keras.layers.Layer):
    """Base of layers that change rows at random in training.

    In Trainer a row's numbers depend on the seed, the epoch and the row alone, not on the batch that it is in.
    Elsewhere they come from Keras's generator.

    Args:
        seed: int. Seed of that generator. Defaults to None, at random.
    """

    def __init__(self, seed: int | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.supports_masking = True
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def uniform(self, rows: tf.Tensor, size: Any = 1) -> tf.Tensor:
        """Return numbers from 0 (included) to 1, float32 (rows, size)."""
        seeds = current_row_seeds()
        if seeds is None:
            return tf.convert_to_tensor(keras.random.uniform((rows, size), seed=self.seed_generator))
        cells = mix(seeds.next()[:, tf.newaxis] + tf.cast(tf.range(size), tf.uint64))
        return tf.cast(tf.bitwise.right_shift(cells, tf.constant(40, tf.uint64)), tf.float32) / 2**24

    def between(self, rows: tf.Tensor, low: float, high: float) -> tf.Tensor:
        """Return a number from `low` to `high` for each row, float32 (rows, 1)."""
        return low + self.uniform(rows) * (high - low)

    def normal(self, rows: tf.Tensor, size: Any) -> tf.Tensor:
        """Return numbers of the standard normal distribution, float32 (rows, size) (Box and Muller, 1958)."""
        radius = tf.sqrt(-2.0 * tf.math.log(1.0 - self.uniform(rows, size)))
        return radius * tf.cos(2 * math.pi * self.uniform(rows, size))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "seed": self.seed}


class RandomSound(RandomRows):
    """Base of layers from samples to samples, with NaN beyond a row's end."""

    def compute_output_spec(self, samples: Any, training: bool = False) -> keras.KerasTensor:
        fits = len(samples.shape) == 2 and "float" in str(samples.dtype)
        check(type(self).__name__, fits, "inputs", f"{samples.dtype} {tuple(samples.shape)}", "floats (rows, samples)")
        return keras.KerasTensor(samples.shape, samples.dtype)


@keras.saving.register_keras_serializable("kerasline")
class RandomNoise(RandomSound):
    """Adds white noise to sound in training.

    Args:
        decibels: pair of floats. Range of the ratio of the sound's power to that of the noise. Defaults to (10, 40).
        seed: int. See `kerasline.components.preprocessing.layers.augmentation.RandomRows`.

    Inputs:
        Samples, floats (rows, samples), with NaN beyond a row's end.

    Outputs:
        Samples of the same shape and dtype.

    Raises:
        ValueError: an argument or the inputs are invalid.

    Example:

    >>> noisy = kl.layers.RandomNoise(seed=0)(np.ones((1, 4), "float32"), training=True)
    >>> bool(np.all(noisy.numpy() != 1))
    True
    """

    def __init__(self, decibels: Sequence[float] = (10.0, 40.0), seed: int | None = None, **options: Any) -> None:
        super().__init__(seed, **options)
        allowed = increase_within(decibels, -math.inf, math.inf)
        check("RandomNoise", allowed, "decibels", decibels, "two numbers, the lower first")
        self.decibels = tuple(decibels)

    def call(self, samples: Any, training: bool = False) -> Any:
        if not training:
            return samples
        rows, size = tf.unstack(tf.shape(samples))
        sound, count = _without_nan(samples)
        power = tf.math.divide_no_nan(tf.reduce_sum(sound**2, axis=1, keepdims=True), tf.cast(count, sound.dtype))
        ratio = 10.0 ** (self.between(rows, *self.decibels) / 10)
        return samples + tf.cast(self.normal(rows, size), sound.dtype) * tf.sqrt(power / tf.cast(ratio, sound.dtype))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "decibels": list(self.decibels)}


@keras.saving.register_keras_serializable("kerasline")
class RandomTimeShift(RandomSound):
    """Shifts sound in time in training, and fills what becomes free with zeros.

    Args:
        share: float from 0 to 1. Largest shift in both directions, as a share of the row's length. Defaults to 0.1.
        seed: int. See `kerasline.components.preprocessing.layers.augmentation.RandomRows`.

    Inputs, Outputs:
        As those of `RandomNoise`.

    Raises:
        ValueError: an argument or the inputs are invalid.

    Example:

    >>> shifted = kl.layers.RandomTimeShift(0.5, seed=1)(np.ones((1, 4), "float32"), training=True)
    >>> shifted.shape
    TensorShape([1, 4])
    """

    def __init__(self, share: float = 0.1, seed: int | None = None, **options: Any) -> None:
        super().__init__(seed, **options)
        check("RandomTimeShift", 0 <= share <= 1, "share", share, "a number from 0 to 1")
        self.share = float(share)

    def call(self, samples: Any, training: bool = False) -> Any:
        if not training:
            return samples
        rows, size = tf.unstack(tf.shape(samples))
        sound, count = _without_nan(samples)
        shift = tf.round(self.between(rows, -self.share, self.share) * tf.cast(count, tf.float32))
        source = tf.range(size) - tf.cast(shift, tf.int32)
        is_within = (source >= 0) & (source < count)
        moved = tf.gather(sound, tf.clip_by_value(source, 0, tf.maximum(size - 1, 0)), batch_dims=1)
        moved = tf.where(is_within, moved, tf.zeros_like(moved))
        return tf.where(tf.math.is_nan(samples), samples, moved)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "share": self.share}


@keras.saving.register_keras_serializable("kerasline")
class RandomSpeed(RandomSound):
    """Plays sound faster or slower in training, by linear interpolation; its pitch changes as well.

    Args:
        factors: pair of floats above 0. Range of the speed. Defaults to (0.9, 1.1).
        seed: int. See `kerasline.components.preprocessing.layers.augmentation.RandomRows`.

    Inputs:
        As those of `RandomNoise`.

    Outputs:
        Samples: rows of n samples get round(n / speed), with NaN beyond a row's end. If all rows have one length, that
        length stays: rows are cut, or padded with zeros.

    Raises:
        ValueError: an argument or the inputs are invalid.

    Example:

    >>> slower = kl.layers.RandomSpeed((0.5, 0.5001), seed=0)(np.array([[0.0, 2.0, np.nan]]), training=True)
    >>> slower.numpy().round().tolist()
    [[0.0, 1.0, 2.0]]
    """

    def __init__(self, factors: Sequence[float] = (0.9, 1.1), seed: int | None = None, **options: Any) -> None:
        super().__init__(seed, **options)
        allowed = increase_within(factors, np.nextafter(0, 1), math.inf)
        check("RandomSpeed", allowed, "factors", factors, "two numbers above 0, the lower first")
        self.factors = tuple(factors)
        self.supports_masking = False  # rows change their length

    def call(self, samples: Any, training: bool = False) -> Any:
        if not training:
            return samples
        rows, size = tf.unstack(tf.shape(samples))
        sound, count = _without_nan(samples)
        speed = self.between(rows, *self.factors)
        lengths = tf.cast(tf.round(tf.cast(count, tf.float32) / speed), tf.int32)
        is_fixed = samples.shape[1] is not None
        width = size if is_fixed else tf.reduce_max(lengths)
        place = tf.cast(tf.range(width), tf.float32) * speed
        low = tf.clip_by_value(tf.cast(place, tf.int32), 0, tf.maximum(count - 1, 0))
        high = tf.minimum(low + 1, tf.maximum(count - 1, 0))
        part = tf.cast(place - tf.floor(place), sound.dtype)
        found = tf.gather(sound, low, batch_dims=1) * (1 - part) + tf.gather(sound, high, batch_dims=1) * part
        beyond = tf.constant(0.0 if is_fixed else math.nan, sound.dtype)
        return tf.where(tf.range(width) < lengths, found, beyond)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "factors": list(self.factors)}


@keras.saving.register_keras_serializable("kerasline")
class SpecAugment(RandomRows):
    """Sets random stretches of frames and of bands to 0 in training (Park et al., Interspeech 2019).

    Args:
        stretches: int. Number of stretches of frames, and of bands. Defaults to 2.
        frames: int. Largest number of frames of a stretch, at most a fifth of the row. Defaults to 20.
        bands: int. Largest number of bands of a stretch. Defaults to 8.
        seed: int. See `kerasline.components.preprocessing.layers.augmentation.RandomRows`.

    Inputs:
        Frames, floats (rows, frames, bands), scaled so that 0 is their mean. NaN beyond a row's end stays.

    Outputs:
        Frames of the same shape and dtype.

    Raises:
        ValueError: an argument or the inputs are invalid.

    Example:

    >>> float(kl.layers.SpecAugment(seed=0)(np.ones((1, 50, 20), "float32"), training=True).numpy().min())
    0.0
    """

    def __init__(
        self, stretches: int = 2, frames: int = 20, bands: int = 8, seed: int | None = None, **options: Any
    ) -> None:
        super().__init__(seed, **options)
        for name, received in (("stretches", stretches), ("frames", frames), ("bands", bands)):
            check("SpecAugment", is_whole(received, 0), name, received, "an integer from 0")
        self.stretches, self.frames, self.bands = stretches, frames, bands

    def call(self, values: Any, training: bool = False) -> Any:
        if not training:
            return values
        rows, frames, bands = tf.unstack(tf.shape(values))
        is_frame = ~tf.reduce_all(tf.math.is_nan(values), axis=2)
        counts = tf.reduce_sum(tf.cast(is_frame, tf.float32), axis=1, keepdims=True)
        erased = tf.zeros([rows, 1, 1], tf.bool)
        for _ in range(self.stretches):
            erased |= self._stretch(rows, frames, counts, tf.minimum(float(self.frames), counts / 5))[:, :, tf.newaxis]
            of_bands = tf.cast(bands, tf.float32)
            erased |= self._stretch(rows, bands, of_bands, tf.minimum(float(self.bands), of_bands))[:, tf.newaxis, :]
        return tf.where(erased & ~tf.math.is_nan(values), tf.zeros_like(values), values)

    def compute_output_spec(self, values: Any, training: bool = False) -> keras.KerasTensor:
        fits = len(values.shape) == 3 and "float" in str(values.dtype)
        received = f"{values.dtype} {tuple(values.shape)}"
        check("SpecAugment", fits, "inputs", received, "floats (rows, frames, bands)")
        return keras.KerasTensor(values.shape, values.dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "stretches": self.stretches, "frames": self.frames, "bands": self.bands}

    def _stretch(self, rows: tf.Tensor, size: tf.Tensor, length: tf.Tensor, longest: tf.Tensor) -> tf.Tensor:
        """Return where a random stretch of each row is, bool (rows, size)."""
        width = tf.floor(self.uniform(rows) * (longest + 1))
        start = tf.floor(self.uniform(rows) * (length - width + 1))
        place = tf.cast(tf.range(size), tf.float32)
        return (place >= start) & (place < start + width)


@keras.saving.register_keras_serializable("kerasline")
class TokenDropout(RandomRows):
    """Replaces random ids in training, as words that are unknown.

    Args:
        rate: float from 0 to 1. Probability of an id to be replaced.
        replacement: int. The id instead. Defaults to 1, the unknown token of `Subwords` and `TextVectorization`.
        kept: list of int. Ids that stay. Defaults to 0, 2 and 3: padding, begin and end of `Subwords`.
        seed: int. See `kerasline.components.preprocessing.layers.augmentation.RandomRows`.

    Inputs:
        Ids, integers (rows, steps).

    Outputs:
        Ids of the same shape and dtype.

    Raises:
        ValueError: an argument or the inputs are invalid.

    Example:

    >>> kl.layers.TokenDropout(1.0)(np.array([[2, 7, 8, 3, 0]]), training=True).numpy().tolist()
    [[2, 1, 1, 3, 0]]
    """

    def __init__(
        self,
        rate: float,
        replacement: int = 1,
        kept: Sequence[int] = (0, 2, 3),
        seed: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(seed, **options)
        self.autocast = False
        check("TokenDropout", 0 <= rate <= 1, "rate", rate, "a number from 0 to 1")
        self.rate, self.replacement, self.kept = float(rate), replacement, tuple(kept)

    def call(self, ids: Any, training: bool = False) -> Any:
        if not training:
            return ids
        ids = tf.convert_to_tensor(ids)
        rows, size = tf.unstack(tf.shape(ids))
        replaced = self.uniform(rows, size) < self.rate
        for one in self.kept:
            replaced &= ids != one
        return tf.where(replaced, tf.constant(self.replacement, ids.dtype), ids)

    def compute_output_spec(self, ids: Any, training: bool = False) -> keras.KerasTensor:
        fits = len(ids.shape) == 2 and "int" in str(ids.dtype)
        check("TokenDropout", fits, "inputs", f"{ids.dtype} {tuple(ids.shape)}", "integers (rows, steps)")
        return keras.KerasTensor(ids.shape, ids.dtype)

    def get_config(self) -> dict[str, Any]:
        config = {"rate": self.rate, "replacement": self.replacement, "kept": list(self.kept)}
        return {**super().get_config(), **config}


def _without_nan(samples: Any) -> tuple[tf.Tensor, tf.Tensor]:
    """Return samples with 0 for NaN, and the number of samples of each row, int32 (rows, 1)."""
    is_nan = tf.math.is_nan(samples)
    count = tf.reduce_sum(tf.cast(~is_nan, tf.int32), axis=1, keepdims=True)
    return tf.where(is_nan, tf.zeros_like(samples), samples), count
