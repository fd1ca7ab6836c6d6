"""Numbers on the scale of their own group: the fares of each company, the temperatures of each town."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import keras
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf

from kerasline.components.preprocessing.layers.missing import is_missing

ALL = ""  # the key under which the figures of all rows stand: a missing key takes them
# A standard deviation below this share of the mean is what summing alike numbers in float64 leaves.
LEAST_SHARE = 1e-10


@keras.saving.register_keras_serializable("kerasline")
class ScalingPerKey(keras.layers.Layer):
    """Scales each number by the numbers that share its key, as tensorflow-transform's `..._per_key`.

    Called on `[values, keys]`, both (rows,) or (rows, 1): numbers, and texts or whole numbers. Gives
    floats of the values' shape. A key that was not seen, or is missing ("" or -1), takes the figures of
    all rows. NaN stays NaN. The numbers of a key that are all alike become 0.

    Args:
        method: `z_score`: mean 0 and (population) variance 1; `min_max`: from 0 to 1.
        max_keys: the keys with the most numbers, ties by text, have figures of their own; all by default.
        figures: of each key two numbers, where they are known: such a layer needs no data. For
            `z_score` mean and standard deviation, for `min_max` minimum and range; the key "" has
            those of all rows.
    """

    def __init__(
        self,
        method: Literal["z_score", "min_max"] = "z_score",
        max_keys: int | None = None,
        figures: dict[str, Sequence[float]] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**{"dtype": "float32", **options})  # whatever the global policy, as `NumericLayer`
        self.supports_jit = False  # XLA has no texts
        for holds, name, given, possible in (
            (method in ("z_score", "min_max"), "method", method, "'z_score' or 'min_max'"),
            (max_keys is None or max_keys >= 1, "max_keys", max_keys, "None, 1 or more"),
            (figures is None or ALL in figures, "figures", figures, "a dict with the key '' among others"),
        ):
            if not holds:
                raise ValueError(f"ScalingPerKey: {name} is {given!r}; possible: {possible}")
        self.method, self.max_keys = method, max_keys
        self._keys: np.ndarray | None = None
        if figures is not None:
            self._set_figures(figures)

    @property
    def figures(self) -> dict[str, list[float]] | None:
        return None if self._keys is None else dict(zip(self._keys.tolist(), self._pairs.tolist()))

    def call(self, inputs: Sequence[Any]) -> Any:
        values, keys = (tf.convert_to_tensor(one) for one in inputs)
        if self._keys is None:
            raise ValueError(f"ScalingPerKey {self.name!r} has no figures yet; adapt it first, or give it some")
        if keys.dtype != tf.string:
            keys = tf.where(is_missing(keys), ALL, tf.strings.as_string(keys))
        pairs = tf.gather(tf.constant(self._pairs, self.compute_dtype), self._table.lookup(keys))
        return (tf.cast(values, self.compute_dtype) - pairs[..., 0]) / pairs[..., 1]

    def compute_output_spec(self, inputs: Sequence[Any]) -> keras.KerasTensor:
        values, keys = inputs
        if values.dtype == "string" or "float" in keys.dtype:
            raise ValueError(
                f"ScalingPerKey: inputs are {values.dtype} and {keys.dtype}; possible: [numbers, texts "
                "or whole numbers]"
            )
        if len(values.shape) != len(keys.shape) or values.shape[1:] != keys.shape[1:]:
            raise ValueError(
                f"ScalingPerKey: inputs are of shapes {values.shape} and {keys.shape}; possible: two of the same"
            )
        return keras.KerasTensor(values.shape, self.compute_dtype)

    def new_state(self) -> KeyFigures | None:
        return KeyFigures() if self._keys is None else None

    def set_state(self, state: KeyFigures) -> None:
        self._set_figures(state.pairs(self.method, self.max_keys))

    def get_config(self) -> dict[str, Any]:
        config = {"method": self.method, "max_keys": self.max_keys, "figures": self.figures}
        return {**super().get_config(), **config}

    def _set_figures(self, figures: dict[str, Sequence[float]]) -> None:
        self._keys = np.array([*figures, None], object)[:-1]
        self._pairs = np.array(list(figures.values()), np.float64)
        default = self._keys.tolist().index(ALL)
        with tf.init_scope():
            places = tf.range(len(self._keys), dtype=tf.int64)
            content = tf.lookup.KeyValueTensorInitializer(tf.constant(list(self._keys)), places)
            self._table = tf.lookup.StaticHashTable(content, default)


class KeyFigures:
    """Count, mean, variance and extremes of the numbers of each key; only finite numbers count.

    Merged by Chan, Golub and LeVeque (1979), in float64. As many keys as there are stay in memory.
    """

    def __init__(self) -> None:
        self._keys = pa.array([], pa.large_binary())
        self._figures = np.empty((0, 5))  # count, mean, sum of squared deviations, minimum, maximum

    def add(self, values: np.ndarray, keys: np.ndarray) -> None:
        numbers, texts = np.asarray(values, np.float64).reshape(-1), _texts(np.asarray(keys).reshape(-1))
        known = np.isfinite(numbers)
        numbers, found = numbers[known], texts.filter(pa.array(known)).dictionary_encode()
        place, size = found.indices.to_numpy(), len(found.dictionary)
        count = np.bincount(place, minlength=size)
        mean = np.bincount(place, numbers, size) / np.maximum(count, 1)
        deviations = np.bincount(place, np.square(numbers - mean[place]), size)
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
        """What is subtracted and what is divided by, for each key and for all rows."""
        whole = _merged(self._figures, np.zeros(len(self._figures), int), 1)
        keys, figures = self._ordered()
        keys, figures = [ALL, *keys[:most]], np.concatenate([whole, figures[:most]])
        count, mean, deviations, minimum, maximum = figures.T
        if method == "z_score":
            offset, scale = mean, np.sqrt(deviations / np.maximum(count, 1))
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
        """Keys that are there and are UTF-8, by count, ties by text, both descending."""
        raw = self._keys.to_pylist()
        kept = [place for place, key in enumerate(raw) if key and _is_utf8(key)]
        kept.sort(key=lambda place: (self._figures[place, 0], raw[place]), reverse=True)
        return [raw[place].decode() for place in kept], self._figures[kept]

    def readable(self) -> dict[str, Any]:
        keys, figures = self._ordered()
        names = ("count", "mean", "minimum", "maximum")
        columns = figures[:, [0, 1, 3, 4]].tolist()
        return {key: dict(zip(names, column)) for key, column in zip(keys, columns)}


def _merged(figures: np.ndarray, place: np.ndarray, size: int) -> np.ndarray:
    """Figures of the same place as one: (size, 5)."""
    count, mean, deviations, minimum, maximum = figures.T
    total = np.bincount(place, count, size)
    joint = np.bincount(place, count * mean, size) / np.maximum(total, 1)
    spread = deviations + count * np.square(mean - joint[place])
    low, high = np.full(size, np.inf), np.full(size, -np.inf)
    np.minimum.at(low, place, minimum)
    np.maximum.at(high, place, maximum)
    return np.stack([total, joint, np.bincount(place, spread, size), low, high], axis=1)


def _texts(keys: np.ndarray) -> pa.Array:
    """Keys as bytes; whole numbers as their decimal text, -1 as the empty one."""
    if keys.dtype == object or keys.dtype.kind in "SU":
        return pa.array(keys).cast(pa.large_binary())
    texts = pa.array(keys).cast(pa.large_string())
    return pc.if_else(pa.array(keys == -1), pa.scalar("", pa.large_string()), texts).cast(pa.large_binary())


def _is_utf8(key: bytes) -> bool:
    try:
        key.decode()
        return True
    except UnicodeDecodeError:
        return False
