"""From texts to ids of a learned vocabulary and back: what `Subwords` and `WordPiece` share."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

import keras
import numpy as np
import pyarrow as pa
import tensorflow as tf

from kerasline.components.core.errors import ParameterError
from kerasline.components.data.accumulators.vocabulary import Vocabulary
from kerasline.components.preprocessing.layers.base import AdaptableLayer, check, is_whole


class Tokenizer(AdaptableLayer):
    """Base of layers from texts to ids of a learned vocabulary.

    A subclass implements `_tokenize`, `_detokenize`, `new_state` and `set_state`, and has the attributes `vocabulary`,
    `begin_id`, `end_id` and `unknown_id`. `pad_id` is 0 unless the vocabulary says otherwise.

    Args:
        top: int. Maximum size of the vocabulary, including the special ids.
        length: int. Number of ids of a row: longer texts are cut, shorter ones padded. None pads to the longest row of
            the batch.
        begin: bool. Begin each row with `begin_id`.
        end: bool. End each row with `end_id`, also one that is cut.
    """

    pad_id, unknown_id, begin_id, end_id = 0, 1, 2, 3

    def __init__(self, top: int, length: int | None, begin: bool, end: bool, **options: Any) -> None:
        super().__init__(**{**options, "dtype": "int32"})
        self.supports_jit = False  # XLA has no texts
        self._check(is_whole(top, 1), "top", top, "an integer from 1")
        self._check_length(length)
        self.top, self.length, self.begin, self.end = top, length, bool(begin), bool(end)

    @property
    def vocabulary(self) -> list[str] | None:
        """The tokens by their ids, or None if the layer is not adapted yet."""
        raise NotImplementedError

    @property
    def vocabulary_size(self) -> int | None:
        """The number of ids, or None if the layer is not adapted yet."""
        return None if self.vocabulary is None else len(self.vocabulary)

    def get_vocabulary(self) -> list[str]:
        """Return the tokens by their ids, as the lookup layers of Keras do."""
        return list(self.vocabulary or [])

    def call(
        self, texts: Any, length: int | None = None, begin: bool | None = None, end: bool | None = None
    ) -> tf.Tensor:
        """Return the ids of texts.

        Args:
            texts: texts of shape (rows,) or (rows, 1).
            length: replaces the layer's `length` in this call, as do `begin` and `end`. So one vocabulary can serve
                several columns.
        """
        self._check_adapted()
        texts = tf.convert_to_tensor(texts)
        self._check(texts.dtype == tf.string, "inputs", texts.dtype.name, "texts")
        self._check(texts.shape[1:] in ((), (1,)), "inputs", tuple(texts.shape), "shape (rows,) or (rows, 1)")
        length, begin, end = self._options(length, begin, end)
        ids = self._tokenize(tf.reshape(texts, [-1]))
        if length is not None:
            ids = ids[:, : max(length - begin - end, 0)]
        rows = ids.nrows()
        parts = [tf.fill([rows, 1], self.begin_id)] * begin + [ids] + [tf.fill([rows, 1], self.end_id)] * end
        ids = tf.concat(parts, axis=1) if len(parts) > 1 else ids
        dense = ids.to_tensor(self.pad_id, shape=[None, length])
        return tf.ensure_shape(dense, [texts.shape[0], length])

    def decode(self, ids: Any) -> tf.Tensor:
        """Return the texts of ids, up to the first `end_id`. Ids for padding and for the begin have no text.

        Args:
            ids: integers (..., length).

        Returns:
            Texts of shape (...).
        """
        self._check_adapted()
        ids = tf.cast(tf.convert_to_tensor(ids), tf.int32)
        flat = tf.reshape(ids, [-1, tf.shape(ids)[-1]])
        ended = tf.cumsum(tf.cast(flat == self.end_id, tf.int32), axis=1) > 0
        is_token = (flat >= 0) & (flat < self.vocabulary_size) & (flat != self.pad_id) & (flat != self.begin_id)
        texts = self._detokenize(tf.ragged.boolean_mask(flat, is_token & ~ended))
        return tf.ensure_shape(tf.reshape(texts, tf.shape(ids)[:-1]), ids.shape[:-1])

    def compute_output_spec(
        self, texts: Any, length: int | None = None, begin: bool | None = None, end: bool | None = None
    ) -> keras.KerasTensor:
        self._check(texts.dtype == "string", "inputs", texts.dtype, "texts")
        self._check(tuple(texts.shape[1:]) in ((), (1,)), "inputs", tuple(texts.shape), "shape (rows,) or (rows, 1)")
        length, *_ = self._options(length, begin, end)
        return keras.KerasTensor((texts.shape[0], length), "int32")

    def get_config(self) -> dict[str, Any]:
        config = {"top": self.top, "length": self.length, "begin": self.begin, "end": self.end}
        return {**super().get_config(), **config}

    def _tokenize(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """Return the int32 ids of texts (rows,)."""
        raise NotImplementedError

    def _detokenize(self, ids: tf.RaggedTensor) -> tf.Tensor:
        """Return the texts (rows,) of int32 ids without special ones."""
        raise NotImplementedError

    def _options(self, length: int | None, begin: bool | None, end: bool | None) -> tuple[int | None, bool, bool]:
        self._check_length(length)
        begin, end = self.begin if begin is None else begin, self.end if end is None else end
        return self.length if length is None else length, bool(begin), bool(end)

    def _check_length(self, length: int | None) -> None:
        self._check(length is None or is_whole(length, 1), "length", length, "an integer from 1, or None")

    def _check_adapted(self) -> None:
        if self.vocabulary is None:
            kind = type(self).__name__
            raise ValueError(f"{kind} {self.name!r} has no vocabulary yet; adapt it, or pass it one")

    def _check(self, holds: bool, name: str, received: Any, expected: str) -> None:
        check(type(self).__name__, holds, name, received, expected)


@keras.saving.register_keras_serializable("kerasline")
class TokensToText(keras.layers.Layer):
    """Returns the texts of ids: the inverse of `Subwords` and `WordPiece`.

    Args:
        tokenizer: an adapted `Subwords` or `WordPiece` layer.

    Inputs:
        Integers of shape (rows, length), such as generated ones. What follows the first end of a row has no text.

    Outputs:
        Texts of shape (rows,).

    Example:

    >>> words = kl.layers.WordPiece(vocabulary=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "read", "##ing"])
    >>> kl.layers.TokensToText(words)(words(np.array(["Reading"]))).numpy()
    array([b'reading'], dtype=object)
    """

    def __init__(self, tokenizer: Tokenizer, **options: Any) -> None:
        super().__init__(**options)
        self.supports_jit = False
        check("TokensToText", isinstance(tokenizer, Tokenizer), "tokenizer", tokenizer, "a Subwords or WordPiece layer")
        self.tokenizer = tokenizer

    def call(self, ids: Any) -> tf.Tensor:
        return self.tokenizer.decode(ids)

    def compute_output_spec(self, ids: Any) -> keras.KerasTensor:
        return keras.KerasTensor(ids.shape[:-1], "string")

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "tokenizer": keras.saving.serialize_keras_object(self.tokenizer)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> TokensToText:
        return cls(keras.saving.deserialize_keras_object(config.pop("tokenizer")), **config)


class WordCounts(Vocabulary):
    """Counts the words of texts, from which a subclass learns a vocabulary."""

    def add(self, texts: Any) -> None:
        """Count the words of texts: a NumPy array (rows, ...) or an Arrow array (rows,)."""
        values = texts if isinstance(texts, pa.Array) else pa.array(np.asarray(texts).reshape(-1))
        super().add(self.split(values.cast(pa.large_binary())))

    def split(self, texts: pa.Array) -> pa.Array:
        """Return the words of texts, both large_binary."""
        raise NotImplementedError

    def counts(self) -> list[tuple[str, int]]:
        """Return the words with their counts, the most frequent first."""
        return super().readable()


def import_library(name: str, layer: str) -> ModuleType:
    """Import a library of the extra `language`.

    Raises:
        ParameterError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ParameterError(
            f"{layer} needs {name.partition('.')[0].replace('_', '-')}, which cannot be imported ({error}): "
            "pip install 'kerasline[language]'"
        ) from error
