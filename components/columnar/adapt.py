"""The states of Keras's preprocessing layers as mergeable accumulators.

Each computes what the layer's `adapt()` would compute over all the data in one process, except
that NaN (a missing number) and "" (a missing text) are left out.
"""

from __future__ import annotations

from typing import Any, Protocol

import datasketches
import numpy as np

# Exact up to that many values; beyond it a quantile's rank is off by at most 0.07%.
KLL_K = 4096


class LayerState(Protocol):
    """What is accumulated for a layer; small and picklable."""

    def add(self, values: np.ndarray) -> None:
        """Takes in the layer's input of one batch, shape (rows, ...)."""

    def merge(self, other: Any) -> None:
        """Takes in what another worker accumulated."""

    def apply(self, layer: Any) -> None:
        """Sets the layer's state."""

    def readable(self) -> dict[str, Any] | list[tuple[str, int]]:
        """The state for people: numbers by name, or a vocabulary with counts."""


def new_state(layer: Any) -> LayerState | None:
    """An accumulator for a layer that needs one; None for a layer that does not."""
    import keras

    if isinstance(layer, keras.layers.Normalization):
        return None if layer.input_mean is not None else _NormalizationState(layer)
    if isinstance(layer, keras.layers.Discretization):
        return None if layer.bin_boundaries else _DiscretizationState(layer.num_bins)
    if isinstance(layer, keras.layers.TextVectorization):
        return _TextState(layer) if layer.vocabulary_size() <= 2 else None
    if isinstance(layer, (keras.layers.StringLookup, keras.layers.IntegerLookup)):
        return None if _has_vocabulary(layer) else _VocabularyState(layer)
    return None


class _NormalizationState:
    """Mean and variance a kept axis, merged by Chan, Golub and LeVeque (1979), in float64."""

    def __init__(self, layer: Any) -> None:
        self._axes = tuple(a for a in range(len(layer._build_input_shape)) if a not in layer._keep_axis)
        self.count: np.ndarray | float = 0.0
        self.mean: np.ndarray | float = 0.0
        self.m2: np.ndarray | float = 0.0

    def add(self, values: np.ndarray) -> None:
        known = ~np.isnan(values)
        filled = np.where(known, values, 0).astype(np.float64)
        count = known.sum(self._axes).astype(np.float64)
        mean = filled.sum(self._axes) / np.maximum(count, 1)
        spread = [slice(None) if a not in self._axes else np.newaxis for a in range(values.ndim)]
        deviation = np.where(known, filled - np.asarray(mean)[tuple(spread)], 0)
        self._combine(count, mean, np.square(deviation).sum(self._axes))

    def merge(self, other: _NormalizationState) -> None:
        self._combine(other.count, other.mean, other.m2)

    def _combine(self, count: Any, mean: Any, m2: Any) -> None:
        total = self.count + count
        delta = mean - self.mean
        share = count / np.maximum(total, 1)
        self.mean = self.mean + delta * share
        self.m2 = self.m2 + m2 + np.square(delta) * self.count * share
        self.count = total

    def apply(self, layer: Any) -> None:
        variance = self.m2 / np.maximum(self.count, 1)
        layer.adapt_mean.assign(np.reshape(self.mean, layer.adapt_mean.shape))
        layer.adapt_variance.assign(np.reshape(variance, layer.adapt_variance.shape))
        layer.finalize_state()

    def readable(self) -> dict[str, Any]:
        variance = self.m2 / np.maximum(self.count, 1)
        return {
            "mean": np.asarray(self.mean).tolist(),
            "variance": np.asarray(variance).tolist(),
            "count": np.asarray(self.count).tolist(),
        }


class _DiscretizationState:
    """Bin boundaries at equal ranks, from a KLL sketch (Karnin, Lang, Liberty, FOCS 2016)."""

    def __init__(self, bins: int) -> None:
        self._bins = bins
        self._sketch = b""

    def add(self, values: np.ndarray) -> None:
        sketch = self._opened()
        flat = values.reshape(-1).astype(np.float64)
        sketch.update(flat[~np.isnan(flat)])
        self._sketch = sketch.serialize()

    def merge(self, other: _DiscretizationState) -> None:
        sketch = self._opened()
        sketch.merge(other._opened())
        self._sketch = sketch.serialize()

    def apply(self, layer: Any) -> None:
        layer.bin_boundaries = self.readable()["bin_boundaries"]
        layer.summary = np.array([[], []], dtype="float32")

    def readable(self) -> dict[str, Any]:
        sketch = self._opened()
        if sketch.is_empty():
            return {"bin_boundaries": []}
        ranks = [i / self._bins for i in range(1, self._bins)]
        return {"bin_boundaries": sorted(set(map(float, sketch.get_quantiles(ranks, True))))}

    def _opened(self) -> datasketches.kll_doubles_sketch:
        if self._sketch:
            return datasketches.kll_doubles_sketch.deserialize(self._sketch)
        return datasketches.kll_doubles_sketch(KLL_K)


class _VocabularyState:
    """Counts of values; the vocabulary is in the order of Keras's: by count, ties by value, both
    descending."""

    def __init__(self, layer: Any) -> None:
        self._room = None
        if layer.max_tokens is not None:
            self._room = layer.max_tokens - len(layer.get_vocabulary())
        self.counts: dict[Any, int] = {}

    def add(self, values: np.ndarray) -> None:
        import pyarrow as pa

        flat = pa.array(values.reshape(-1))
        table = flat.value_counts()
        self._combine(zip(table.field("values").to_pylist(), table.field("counts").to_pylist()))

    def merge(self, other: _VocabularyState) -> None:
        self._combine(other.counts.items())

    def _combine(self, items: Any) -> None:
        for value, count in items:
            if value not in (b"", "", -1, None):
                self.counts[value] = self.counts.get(value, 0) + count

    def apply(self, layer: Any) -> None:
        layer.set_vocabulary([value for value, _ in self._ordered()])

    def readable(self) -> list[tuple[str, int]]:
        return [(_text(value), count) for value, count in self._ordered()]

    def _ordered(self) -> list[tuple[Any, int]]:
        items = sorted(self.counts.items(), key=lambda item: (item[1], item[0]), reverse=True)
        items = items if self._room is None else items[: self._room]
        return [(v.decode() if isinstance(v, bytes) else v, count) for v, count in items]


class _TextState(_VocabularyState):
    """The vocabulary of the tokens into which TextVectorization splits its texts."""

    def __init__(self, layer: Any) -> None:
        super().__init__(layer._lookup_layer)
        self._split = layer.get_config()

    def add(self, values: np.ndarray) -> None:
        import keras

        layer = keras.layers.TextVectorization.from_config(self._split)
        tokens = layer._preprocess(values)
        super().add(np.asarray(getattr(tokens, "flat_values", tokens)))


def _has_vocabulary(layer: Any) -> bool:
    empty = len(type(layer).from_config({**layer.get_config(), "vocabulary": None}).get_vocabulary())
    return len(layer.get_vocabulary()) > empty


def _text(value: Any) -> str:
    return value if isinstance(value, str) else str(value)
