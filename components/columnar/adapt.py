"""The states of Keras's preprocessing layers as mergeable accumulators.

Each computes what the layer's `adapt()` would compute over all the data in one process, except
that what is missing (NaN; "" and -1 in vocabularies) is left out, and that bin boundaries are
values of the data, each once.

A layer of the user's own is adapted too, if its class has three methods that add up::

    @staticmethod
    def accumulate(values: np.ndarray) -> State      # of one batch of what enters the layer
    @staticmethod
    def merge(ours: State, theirs: State) -> State   # associative and commutative
    def set_state(self, state: State) -> None        # keeps it in weights, so that it is saved
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from components.columnar.quantiles import Quantiles


class LayerState(Protocol):
    """What is accumulated for a layer; small and picklable."""

    def add(self, values: Any) -> None:
        """Takes in the layer's input of one batch, an array of shape (rows, ...)."""

    def merge(self, other: Any) -> None:
        """Takes in what another worker accumulated."""

    def apply(self, layer: Any) -> None:
        """Sets the layer's state."""

    def readable(self) -> dict[str, Any] | list[tuple[str, int]]:
        """The state for people: numbers by name, or a vocabulary with counts."""


def new_state(layer: Any) -> LayerState | None:
    """An accumulator for a layer that needs one; None for one that does not, or is adapted."""
    import keras

    if isinstance(layer, keras.layers.Normalization):
        return None if _has_mean(layer) else _NormalizationState(layer)
    if isinstance(layer, keras.layers.Discretization):
        return None if layer.bin_boundaries else _DiscretizationState(layer.num_bins)
    if isinstance(layer, keras.layers.TextVectorization):
        return None if _has_vocabulary(layer._lookup_layer) else _TextState(layer)
    if isinstance(layer, (keras.layers.StringLookup, keras.layers.IntegerLookup)):
        return None if _has_vocabulary(layer) else _VocabularyState(layer)
    if all(callable(getattr(layer, name, None)) for name in ("accumulate", "merge", "set_state")):
        return _OwnState(type(layer))
    return None


class _NormalizationState:
    """Mean and variance a kept axis, merged by Chan, Golub and LeVeque (1979), in float64."""

    def __init__(self, layer: Any) -> None:
        kept = layer._keep_axis if layer.built else ()
        self._axes = tuple(a for a in range(len(layer._build_input_shape or ())) if a not in kept)
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
    """Bin boundaries at equal ranks."""

    def __init__(self, bins: int) -> None:
        self._bins = bins
        self._quantiles = Quantiles()

    def add(self, values: np.ndarray) -> None:
        self._quantiles.add(values)

    def merge(self, other: _DiscretizationState) -> None:
        self._quantiles.merge(other._quantiles)

    def apply(self, layer: Any) -> None:
        layer.bin_boundaries = self.readable()["bin_boundaries"]
        layer.summary = np.array([[], []], dtype="float32")

    def readable(self) -> dict[str, Any]:
        boundaries = self._quantiles.at(np.arange(1, self._bins) / self._bins)
        return {"bin_boundaries": np.unique(boundaries).tolist()}


class _VocabularyState:
    """Counts of values; the vocabulary is in the order of Keras's: by count, ties by value, both
    descending."""

    def __init__(self, layer: Any) -> None:
        self._room = None
        if layer.max_tokens is not None:
            self._room = layer.max_tokens - len(layer.get_vocabulary())
        reserved = {layer.mask_token, layer.oov_token}
        encoded = {token.encode() for token in reserved if isinstance(token, str)}
        self._left_out = {b"", "", -1, None} | reserved | encoded
        self._weighs = layer.output_mode == "tf_idf"
        self.rows = 0
        self.counts: dict[Any, int] = {}
        self.rows_with: dict[Any, int] = {}

    def add(self, values: Any) -> None:
        """Takes an array of shape (rows, ...) or a ragged tensor."""
        import pyarrow as pa

        ragged = hasattr(values, "flat_values")
        flat = np.asarray(values.flat_values if ragged else values).reshape(-1)
        found = pa.array(flat).dictionary_encode()
        distinct, place = found.dictionary.to_pylist(), found.indices.to_numpy()
        _count_up(self.counts, distinct, np.bincount(place, minlength=len(distinct)))
        if self._weighs and len(flat):
            rows = int(values.nrows()) if ragged else len(values)
            a_row = max(len(flat) // rows, 1)
            row = values.value_rowids() if ragged else np.arange(len(flat)) // a_row
            # In each row a value counts once: a pair of row and value as one number.
            pairs = np.unique(np.asarray(row) * len(distinct) + place)
            _count_up(self.rows_with, distinct, np.bincount(pairs % len(distinct)))
            self.rows += rows

    def merge(self, other: _VocabularyState) -> None:
        self.rows += other.rows
        _count_up(self.counts, other.counts, other.counts.values())
        _count_up(self.rows_with, other.rows_with, other.rows_with.values())

    def apply(self, layer: Any) -> None:
        items = self._ordered()
        words = [_decoded(value) for value, _ in items]
        if self._weighs:  # Keras's formula: log(1 + rows / (1 + rows with the value))
            rows_with = np.array([self.rows_with[value] for value, _ in items])
            layer.set_vocabulary(words, idf_weights=np.log(1 + self.rows / (1 + rows_with)))
        else:
            layer.set_vocabulary(words)

    def readable(self) -> list[tuple[str, int]]:
        return [(str(_decoded(value)), count) for value, count in self._ordered()]

    def _ordered(self) -> list[tuple[Any, int]]:
        items = [item for item in self.counts.items() if item[0] not in self._left_out]
        items.sort(key=lambda item: (item[1], item[0]), reverse=True)
        return items if self._room is None else items[: self._room]


class _TextState(_VocabularyState):
    """The vocabulary of the tokens into which TextVectorization splits its texts."""

    def __init__(self, layer: Any) -> None:
        super().__init__(layer._lookup_layer)
        self._split = layer.get_config()

    def add(self, values: np.ndarray) -> None:
        import keras

        layer = keras.layers.TextVectorization.from_config(self._split)
        super().add(layer._preprocess(values))


class _OwnState:
    """The state of a layer of the user's own; see the module's docstring."""

    def __init__(self, kind: type) -> None:
        self._kind = kind
        self._state: Any = None

    def add(self, values: np.ndarray) -> None:
        self._merge(self._kind.accumulate(values))

    def merge(self, other: _OwnState) -> None:
        if other._state is not None:
            self._merge(other._state)

    def _merge(self, state: Any) -> None:
        self._state = state if self._state is None else self._kind.merge(self._state, state)

    def apply(self, layer: Any) -> None:
        layer.set_state(self._state)

    def readable(self) -> dict[str, Any]:
        return {"state": self._state}


def _count_up(counts: dict[Any, int], values: Any, more: Any) -> None:
    for value, count in zip(values, more):
        counts[value] = counts.get(value, 0) + int(count)


def _has_mean(layer: Any) -> bool:
    """Whether its mean was given or computed; a fresh layer has 0, and 1 for the variance."""
    if layer.input_mean is not None or not layer.built:
        return layer.input_mean is not None
    mean, variance = np.asarray(layer.adapt_mean), np.asarray(layer.adapt_variance)
    return bool(mean.any() or (variance != 1).any())


def _has_vocabulary(layer: Any) -> bool:
    fresh = type(layer).from_config({**layer.get_config(), "vocabulary": None})
    return len(layer.get_vocabulary()) > len(fresh.get_vocabulary())


def _decoded(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value
