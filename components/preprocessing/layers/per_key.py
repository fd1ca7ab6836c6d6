"""Numbers relative to their own group: the fares of each company, the temperatures of each town."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import keras
import numpy as np
import pyarrow as pa
import tensorflow as tf

from kerasline.components.data.accumulators.quantiles import LEVEL, MIN_LEVEL, Quantiles, interpolated, weight_of_each
from kerasline.components.data.accumulators.weighted_quantiles import WeightedQuantiles
from kerasline.components.preprocessing.layers.base import (
    AdaptableLayer,
    as_arrow_texts,
    as_texts,
    check,
    is_missing,
    is_utf8,
    is_whole,
    known_numbers,
)

ALL = ""  # key of the figures of all rows, which a missing key takes
# Treat a standard deviation below this share of the mean as 0: it is the rounding error of equal numbers in float64.
LEAST_SHARE = 1e-10


@keras.saving.register_keras_serializable("kerasline")
class ScalingPerKey(AdaptableLayer):
    """Scales each number by the numbers that share its key.

    It does what tensorflow-transform's `scale_to_z_score_per_key` and `scale_by_min_max_per_key` do. An unseen key, and
    a missing one ("" or -1), takes the figures of all rows. NaN stays NaN. If all numbers of a key are equal, they
    become 0.

    Args:
        method: `"z_score"` for mean 0 and (population) variance 1, or `"min_max"` for 0 to 1. Defaults to `"z_score"`.
        max_keys: int. Only this number of keys, those with the most numbers, then by text, have their own figures.
            Defaults to None, all keys.
        figures: dict of two numbers by key. The layer then needs no data. The numbers are mean and standard deviation
            for `"z_score"`, minimum and range for `"min_max"`. Key "" has those of all rows.
        sample_weight: str. The output of the preprocessing, or else the raw column, with the weight of each row.
            Defaults to None, equal weights.
        may_be_missing: bool. Whether -1 in integers means a missing key. If `False`, it is an ordinary integer.
            Defaults to `True`.

    Inputs:
        A list `[values, keys]` of the same shape, (rows,) or (rows, 1): numbers, and texts or integers. Values may also
        be vectors (rows, n) with keys (rows, 1). All numbers of a vector count for its key.

    Outputs:
        Floats of the values' shape. The dtype is float32 unless `dtype` is passed.

    Raises:
        ValueError: an argument or the inputs are invalid, or the layer is called before it is adapted.

    Example:

    >>> layer = kl.layers.ScalingPerKey("min_max")
    >>> layer.adapt([1.0, 3.0, 10.0, 30.0], ["a", "a", "b", "b"])
    >>> layer([np.array([2.0, 20.0]), np.array(["a", "b"])]).numpy().tolist()
    [0.5, 0.5]
    """

    def __init__(
        self,
        method: Literal["z_score", "min_max"] = "z_score",
        max_keys: int | None = None,
        figures: dict[str, Sequence[float]] | None = None,
        sample_weight: str | None = None,
        may_be_missing: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(**{"dtype": "float32", **options})  # whatever the global policy, as `NumericLayer`
        self.supports_jit = False  # XLA has no texts
        self._check(method in ("z_score", "min_max"), "method", method, "'z_score' or 'min_max'")
        whole = max_keys is None or is_whole(max_keys, 1)
        self._check(whole, "max_keys", max_keys, "None or an integer from 1")
        self._check(figures is None or ALL in figures, "figures", figures, "a dict with the key ''")
        self.method, self.max_keys = method, max_keys
        self.sample_weight, self.may_be_missing = sample_weight, bool(may_be_missing)
        self._keys: np.ndarray | None = None
        if figures is not None:
            self._set_figures(figures)

    @property
    def figures(self) -> dict[str, list[float]] | None:
        return None if self._keys is None else dict(zip(self._keys.tolist(), self._pairs.tolist()))

    def call(self, inputs: Sequence[Any]) -> Any:
        values, keys = (tf.convert_to_tensor(one) for one in inputs)
        if self._keys is None:
            raise ValueError(f"ScalingPerKey {self.name!r} has no figures yet; adapt it, or pass it figures")
        places = self._table.lookup(as_texts(keys, "ScalingPerKey", self.may_be_missing))
        pairs = tf.gather(tf.constant(self._pairs, self.compute_dtype), places)
        return (tf.cast(values, self.compute_dtype) - pairs[..., 0]) / pairs[..., 1]

    def compute_output_spec(self, inputs: Sequence[Any]) -> keras.KerasTensor:
        check_values_and_keys("ScalingPerKey", inputs)
        return keras.KerasTensor(inputs[0].shape, self.compute_dtype)

    def new_state(self) -> KeyFigures | None:
        return KeyFigures(self.may_be_missing) if self._keys is None else None

    def set_state(self, state: KeyFigures) -> None:
        self._set_figures(state.pairs(self.method, self.max_keys))

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "method": self.method,
            "max_keys": self.max_keys,
            "figures": self.figures,
            "sample_weight": self.sample_weight,
            "may_be_missing": self.may_be_missing,
        }

    def _set_figures(self, figures: Mapping[str, Sequence[float]]) -> None:
        self._keys = np.array([*figures, None], object)[:-1]
        self._pairs = np.array(list(figures.values()), np.float64)
        self._table = key_table(self._keys.tolist())

    def _check(self, holds: bool, name: str, received: Any, expected: str) -> None:
        check("ScalingPerKey", holds, name, received, expected)


@keras.saving.register_keras_serializable("kerasline")
class BucketsPerKey(AdaptableLayer):
    """Maps each number to the id of its bucket among the numbers that share its key.

    Buckets hold equal shares of the numbers of each key, as those of tensorflow-transform's `bucketize_per_key`. An
    unseen key, and a missing one ("" or -1), takes the boundaries of all rows. A number equal to a boundary is in the
    bucket above it, as in `BucketIds`. The boundaries of a key are exact up to 1,024 numbers; beyond, the error of
    their ranks is at most log2(n / 1024) / 1024.

    Args:
        bins: int, at least 2. Number of buckets.
        max_keys: int. Only this number of keys, those with the most numbers, then by text, have their own boundaries.
            Defaults to None, all keys.
        boundaries: dict of lists of `bins` - 1 ascending numbers by key. The layer then needs no data. Key "" has those
            of all rows.
        sample_weight: str. The output of the preprocessing, or else the raw column, with the weight of each row.
            Defaults to None, equal weights.
        may_be_missing: bool. Whether -1 in integers means a missing key or number. If `False`, it is an ordinary
            integer. Defaults to `True`.

    Inputs:
        A list `[values, keys]`, as for `ScalingPerKey`.

    Outputs:
        int64 of the values' shape: 0 where the number is missing, else the bucket from 1 to `bins`.

    Raises:
        ValueError: an argument or the inputs are invalid, or the layer is called before it is adapted.

    Example:

    >>> layer = kl.layers.BucketsPerKey(bins=2)
    >>> layer.adapt([1.0, 2.0, 3.0, 10.0, 20.0, 30.0], ["a", "a", "a", "b", "b", "b"])
    >>> layer([np.array([1.0, 3.0, 10.0, 30.0]), np.array(["a", "a", "b", "b"])]).numpy().tolist()
    [1, 2, 1, 2]
    """

    def __init__(
        self,
        bins: int,
        max_keys: int | None = None,
        boundaries: Mapping[str, Sequence[float]] | None = None,
        sample_weight: str | None = None,
        may_be_missing: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(**{"autocast": False, **options})  # in float32, near timestamps are one number
        self.supports_jit = False  # XLA has no texts
        self._check(is_whole(bins, 2), "bins", bins, "an integer from 2")
        self._check(max_keys is None or is_whole(max_keys, 1), "max_keys", max_keys, "None or an integer from 1")
        fits = boundaries is None or (ALL in boundaries and {len(one) for one in boundaries.values()} == {bins - 1})
        self._check(fits, "boundaries", boundaries, f"a dict with the key '' and lists of {bins - 1} numbers")
        self.bins, self.max_keys = bins, max_keys
        self.sample_weight, self.may_be_missing = sample_weight, bool(may_be_missing)
        self._keys: list[str] | None = None
        if boundaries is not None:
            self._set_boundaries(boundaries)

    @property
    def boundaries(self) -> dict[str, list[float]] | None:
        return None if self._keys is None else dict(zip(self._keys, self._bounds.tolist()))

    def call(self, inputs: Sequence[Any]) -> Any:
        values, keys = (tf.convert_to_tensor(one) for one in inputs)
        if self._keys is None:
            raise ValueError(f"BucketsPerKey {self.name!r} has no boundaries yet; adapt it, or pass it boundaries")
        places = self._table.lookup(as_texts(keys, "BucketsPerKey", self.may_be_missing))
        bounds = tf.gather(tf.constant(self._bounds), places)
        reached = tf.cast(values, tf.float64)[..., None] >= bounds
        ids = tf.reduce_sum(tf.cast(reached, tf.int64), axis=-1) + 1
        return tf.where(is_missing(values, self.may_be_missing), tf.zeros_like(ids), ids)

    def compute_output_spec(self, inputs: Sequence[Any]) -> keras.KerasTensor:
        check_values_and_keys("BucketsPerKey", inputs)
        return keras.KerasTensor(inputs[0].shape, "int64")

    def new_state(self) -> KeyQuantiles | None:
        if self._keys is not None:
            return None
        return KeyQuantiles(self.may_be_missing, self.sample_weight is not None)

    def set_state(self, state: KeyQuantiles) -> None:
        self._set_boundaries(state.boundaries(self.bins, self.max_keys))

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "bins": self.bins,
            "max_keys": self.max_keys,
            "boundaries": self.boundaries,
            "sample_weight": self.sample_weight,
            "may_be_missing": self.may_be_missing,
        }

    def _set_boundaries(self, boundaries: Mapping[str, Sequence[float]]) -> None:
        self._keys = list(boundaries)
        self._bounds = np.array(list(boundaries.values()), np.float64)
        self._table = key_table(self._keys)

    def _check(self, holds: bool, name: str, received: Any, expected: str) -> None:
        check("BucketsPerKey", holds, name, received, expected)


def key_table(keys: Sequence[str]) -> tf.lookup.StaticHashTable:
    """Return a table from keys to their positions, and from other keys to the position of `ALL`."""
    with tf.init_scope():
        places = tf.range(len(keys), dtype=tf.int64)
        content = tf.lookup.KeyValueTensorInitializer(tf.constant(list(keys)), places)
        return tf.lookup.StaticHashTable(content, list(keys).index(ALL))


def check_values_and_keys(layer: str, inputs: Sequence[Any]) -> None:
    """Raise a ValueError if the inputs of a layer are no numbers with a key each, or with a key for each row."""
    values, keys = inputs
    fits = values.dtype != "string" and "float" not in keys.dtype
    check(layer, fits, "inputs", [values.dtype, keys.dtype], "[numbers, texts or integers]")
    same = len(values.shape) == len(keys.shape) and tuple(keys.shape[1:]) in (tuple(values.shape[1:]), (1,))
    check(layer, same, "inputs", [values.shape, keys.shape], "tensors of the same shape, or (rows, n) and (rows, 1)")


def flat_with_keys(
    values: np.ndarray, keys: np.ndarray, may_be_missing: bool, sample_weight: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, pa.DictionaryArray]:
    """Return all finite numbers, float64 (n,), their weights (n,), and the key of each as `as_arrow_texts` does."""
    numbers = np.asarray(values, np.float64).reshape(-1)
    texts = as_arrow_texts(np.asarray(keys).reshape(-1), may_be_missing)
    if numbers.size > len(texts):  # one key for each row
        texts = texts.take(pa.array(np.repeat(np.arange(len(texts)), numbers.size // len(texts))))
    weights = np.ones(numbers.size) if sample_weight is None else weight_of_each(sample_weight, numbers.size)
    known = np.isfinite(numbers) & (weights > 0)
    return numbers[known], weights[known], texts.filter(pa.array(known)).dictionary_encode()


class KeyQuantiles:
    """Quantiles of the numbers of each key, and of all. All keys stay in memory, with some 1,024 numbers a level.

    Args:
        may_be_missing: whether -1 is a missing integer.
        weighted: whether rows have weights.
    """

    def __init__(self, may_be_missing: bool, weighted: bool) -> None:
        self._may_be_missing, self._kind = may_be_missing, WeightedQuantiles if weighted else Quantiles
        self._all: Any = self._kind(LEVEL)
        self._of: dict[bytes, Any] = {}  # all of this kind
        self._weight: dict[bytes, float] = {}  # number of values of each key, or their weight

    def add(self, values: np.ndarray, keys: np.ndarray, sample_weight: np.ndarray | None = None) -> None:
        known = known_numbers(values, self._may_be_missing)
        numbers, weights, found = flat_with_keys(known, keys, self._may_be_missing, sample_weight)
        place = found.indices.to_numpy()
        order = np.argsort(place, kind="stable")
        columns = np.stack([numbers, weights] if self._kind is WeightedQuantiles else [numbers])[:, order]
        self._all.add(*columns)
        ends = np.searchsorted(place[order], np.arange(len(found.dictionary)), side="right")
        totals = np.bincount(place, weights, len(found.dictionary)).tolist()
        for key, total, part in zip(found.dictionary.to_pylist(), totals, np.split(columns, ends[:-1], axis=1)):
            self._of.setdefault(key, self._kind(MIN_LEVEL)).add(*part)
            self._weight[key] = self._weight.get(key, 0.0) + total

    def merge(self, other: KeyQuantiles) -> None:
        self._all.merge(other._all)
        for key, quantiles in other._of.items():
            self._of.setdefault(key, self._kind(MIN_LEVEL)).merge(quantiles)
            self._weight[key] = self._weight.get(key, 0.0) + other._weight[key]

    def boundaries(self, bins: int, most: int | None) -> dict[str, list[float]]:
        """Return the boundaries between buckets of equal shares for each key, most numbers first, and for all rows."""
        shares = np.arange(1, bins) / bins
        valid = [key for key in self._of if key and is_utf8(key)]
        valid.sort(key=lambda key: (self._weight[key], key), reverse=True)
        chosen = {ALL: self._all, **{key.decode(): self._of[key] for key in valid[:most]}}
        # Without data, all numbers are in the last bucket, as those of BucketIds.
        return {key: np.nan_to_num(interpolated(one, shares), nan=-np.inf).tolist() for key, one in chosen.items()}

    def readable(self) -> dict[str, Any]:
        quartiles = np.array([0.25, 0.5, 0.75])
        return {
            key.decode("utf-8", "backslashreplace"): {
                "count": self._weight[key],
                **dict(zip(("quartile_1", "median", "quartile_3"), interpolated(one, quartiles).tolist())),
            }
            for key, one in self._of.items()
        }


class KeyFigures:
    """Weight, mean, variance and extremes of the finite numbers of each key.

    Merged by Chan, Golub and LeVeque (1979), in float64. All keys stay in memory.

    Args:
        may_be_missing: whether -1 is a missing integer key.
    """

    def __init__(self, may_be_missing: bool) -> None:
        self._may_be_missing = may_be_missing
        self._keys = pa.array([], pa.large_binary())
        self._figures = np.empty((0, 5))  # count, mean, sum of squared deviations, minimum, maximum

    def add(self, values: np.ndarray, keys: np.ndarray, sample_weight: np.ndarray | None = None) -> None:
        numbers, weights, found = flat_with_keys(values, keys, self._may_be_missing, sample_weight)
        place, size = found.indices.to_numpy(), len(found.dictionary)
        count = np.bincount(place, weights, size)
        mean = np.bincount(place, weights * numbers, size) / np.where(count, count, 1)
        deviations = np.bincount(place, weights * np.square(numbers - mean[place]), size)
        minimum, maximum = np.full(size, np.inf), np.full(size, -np.inf)
        np.minimum.at(minimum, place, numbers)
        np.maximum.at(maximum, place, numbers)
        self._combine(found.dictionary, np.stack([count, mean, deviations, minimum, maximum], axis=1))

    def merge(self, other: KeyFigures) -> None:
        self._combine(other._keys, other._figures)

    def _combine(self, keys: pa.Array, figures: np.ndarray) -> None:
        found = pa.concat_arrays([self._keys, keys.cast(pa.large_binary())]).dictionary_encode()
        self._keys = found.dictionary
        self._figures = _merged(np.concatenate([self._figures, figures]), found.indices.to_numpy(), len(self._keys))

    def pairs(self, method: str, most: int | None) -> dict[str, list[float]]:
        """Return the offset to subtract and the scale to divide by, for each key and for all rows."""
        whole = _merged(self._figures, np.zeros(len(self._figures), int), 1)
        keys, figures = self._ordered()
        keys, figures = [ALL, *keys[:most]], np.concatenate([whole, figures[:most]])
        count, mean, deviations, minimum, maximum = figures.T
        if method == "z_score":
            offset, scale = mean, np.sqrt(deviations / np.where(count, count, 1))
            scale = np.where(scale > LEAST_SHARE * np.abs(mean), scale, 0)
        else:
            seen = count > 0
            offset, scale = (
                np.where(seen, minimum, 0),
                np.where(seen, maximum - np.where(seen, minimum, 0), 1),
            )
        scale = np.where(scale > 0, scale, 1)
        return {key: [float(a), float(b)] for key, a, b in zip(keys, offset, scale)}

    def _ordered(self) -> tuple[list[str], np.ndarray]:
        """Return the keys that are not missing and are UTF-8, by descending count, then text, and their figures."""
        raw = self._keys.to_pylist()
        valid = [place for place, key in enumerate(raw) if key and is_utf8(key)]
        valid.sort(key=lambda place: (self._figures[place, 0], raw[place]), reverse=True)
        return [raw[place].decode() for place in valid], self._figures[valid]

    def readable(self) -> dict[str, Any]:
        keys, figures = self._ordered()
        names = ("count", "mean", "minimum", "maximum")
        columns = figures[:, [0, 1, 3, 4]].tolist()
        return {key: dict(zip(names, column)) for key, column in zip(keys, columns)}


def _merged(figures: np.ndarray, place: np.ndarray, size: int) -> np.ndarray:
    """Merge the figures that share a place: (size, 5)."""
    count, mean, deviations, minimum, maximum = figures.T
    total = np.bincount(place, count, size)
    joint = np.bincount(place, count * mean, size) / np.where(total, total, 1)
    spread = deviations + count * np.square(mean - joint[place])
    low, high = np.full(size, np.inf), np.full(size, -np.inf)
    np.minimum.at(low, place, minimum)
    np.maximum.at(high, place, maximum)
    return np.stack([total, joint, np.bincount(place, spread, size), low, high], axis=1)
