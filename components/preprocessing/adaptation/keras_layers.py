"""The states of Keras's own preprocessing layers.

They equal the results of the layer's `adapt()`, except that missing values (NaN; "" and -1 in vocabularies) and
infinite ones are left out, and that bin boundaries are distinct values of the data. Vocabularies are in Keras's order:
descending by count, then by value.
"""

from __future__ import annotations

from typing import Any, Protocol

import keras
import numpy as np
from keras import layers

from kerasline.components.core.keras_compat import lookup_layer, split_into_tokens
from kerasline.components.data.accumulators import Accumulator
from kerasline.components.data.accumulators.moments import Moments
from kerasline.components.data.accumulators.quantiles import Quantiles
from kerasline.components.data.accumulators.vocabulary import Vocabulary


class Adapter(Protocol):
    """Implements the protocol of `kerasline.components.preprocessing.adaptation` for a layer of Keras."""

    @staticmethod
    def new_state(layer: Any) -> Accumulator | None: ...

    @staticmethod
    def set_state(layer: Any, state: Any) -> None: ...


class _Normalization:
    @staticmethod
    def new_state(layer: layers.Normalization) -> Moments | None:
        return None if _has_mean(layer) else Moments(_reduced_axes(layer))

    @staticmethod
    def set_state(layer: layers.Normalization, state: Moments) -> None:
        seen = np.asarray(state.count) > 0  # without data, keep the state of a new layer
        layer.adapt_mean.assign(np.reshape(state.mean, layer.adapt_mean.shape))
        variance = np.where(seen, state.variance, 1.0)
        layer.adapt_variance.assign(np.reshape(variance, layer.adapt_variance.shape))
        layer.finalize_state()


class _Discretization:
    @staticmethod
    def new_state(layer: layers.Discretization) -> BinBoundaries | None:
        return None if layer.bin_boundaries else BinBoundaries(layer.num_bins)

    @staticmethod
    def set_state(layer: layers.Discretization, state: BinBoundaries) -> None:
        layer.bin_boundaries = state.boundaries.tolist()
        layer.summary = np.array([[], []], dtype="float32")


class BinBoundaries(Quantiles):
    """Boundaries of bins at equal ranks. There are fewer if a value fills several bins."""

    def __init__(self, bins: int) -> None:
        super().__init__()
        self._bins = bins

    @property
    def boundaries(self) -> np.ndarray:
        return np.unique(self.at(np.arange(1, self._bins) / self._bins))

    def readable(self) -> dict[str, Any]:
        return {"bin_boundaries": self.boundaries.tolist(), "count": self.count}


class _Lookup:
    @staticmethod
    def new_state(layer: Any) -> Vocabulary | None:
        return None if _has_vocabulary(layer) else Vocabulary(**_vocabulary_options(layer))

    @staticmethod
    def set_state(layer: Any, state: Vocabulary) -> None:
        words, documents = state.values(), state.documents()
        if not words:  # Keras refuses an empty vocabulary
            words, documents = [_impossible_value(layer)], None if documents is None else np.zeros(1)
        if documents is None:
            layer.set_vocabulary(words)
        else:  # Keras's formula: log(1 + rows / (1 + rows with the value))
            layer.set_vocabulary(words, idf_weights=np.log(1 + state.rows / (1 + documents)))


class _TextVectorization(_Lookup):
    @staticmethod
    def new_state(layer: layers.TextVectorization) -> Tokens | None:
        lookup = lookup_layer(layer)
        if _has_vocabulary(lookup):
            return None
        # Serialized, since the layer may have functions for `standardize` and `split`.
        serialized = keras.saving.serialize_keras_object(layer)
        serialized["config"]["name"] = None  # names count up within a process
        return Tokens(serialized, **_vocabulary_options(lookup))


class Tokens(Vocabulary):
    """The vocabulary of the tokens into which a TextVectorization splits its texts."""

    def __init__(self, serialized_layer: dict[str, Any], **options: Any) -> None:
        super().__init__(**options)
        self._serialized_layer = serialized_layer

    def add(self, texts: np.ndarray) -> None:
        splitter = keras.saving.deserialize_keras_object(self._serialized_layer)
        super().add(split_into_tokens(splitter, np.asarray(texts)))


_ADAPTERS: dict[type, type[Adapter]] = {
    layers.Normalization: _Normalization,
    layers.Discretization: _Discretization,
    layers.TextVectorization: _TextVectorization,
    layers.StringLookup: _Lookup,
    layers.IntegerLookup: _Lookup,
}


def adapter(layer: keras.layers.Layer) -> type[Adapter] | None:
    """Return the adapter of a layer of Keras, or None if it needs no data."""
    return next((how for kind, how in _ADAPTERS.items() if isinstance(layer, kind)), None)


def _reduced_axes(layer: layers.Normalization) -> tuple[int, ...]:
    if not layer.built:
        return ()
    rank = len(layer.get_build_config()["input_shape"])
    kept_axes = {axis % rank for axis in layer.axis}
    return tuple(axis for axis in range(rank) if axis not in kept_axes)


def _has_mean(layer: layers.Normalization) -> bool:
    """Return whether the mean was passed or computed. A new layer has mean 0 and variance 1."""
    if layer.input_mean is not None or not layer.built:
        return layer.input_mean is not None
    mean, variance = np.asarray(layer.adapt_mean), np.asarray(layer.adapt_variance)
    return bool(mean.any() or (variance != 1).any())


def _vocabulary_options(layer: Any) -> dict[str, Any]:
    room = None if layer.max_tokens is None else layer.max_tokens - len(layer.get_vocabulary())
    return {
        "max_size": room,
        "excluded": ("", -1, layer.mask_token, layer.oov_token),
        "single_lines": True,
        "count_documents": layer.output_mode == "tf_idf",
    }


def _impossible_value(layer: Any) -> Any:
    """Return the only value of the vocabulary of a column without values. No real value equals it."""
    return int(np.iinfo(np.int64).min) if isinstance(layer, layers.IntegerLookup) else "[no value]"


def _has_vocabulary(layer: Any) -> bool:
    return bool(layer.get_vocabulary(include_special_tokens=False))
