"""Texts as rows of numbers, with a column for each token of a vocabulary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf

from kerasline.components.data.accumulators.value_counts import ValueCounts
from kerasline.components.preprocessing.layers.base import AdaptableLayer, check, is_whole, vocabulary_table

# Bytes of text to split at a time: an n-gram takes about 100 bytes while it is counted.
BYTES_AT_ONCE = 1 << 20
BYTES_PER_VALUE = 256
# Python's \w and \s in RE2, whose own \w and \s are ASCII only.
NOT_OF_WORDS = r"[^\pL\pN_]+"
WHITE_SPACES = r"[\s\pZ\x{0b}\x{1c}-\x{1f}\x{85}]{2,}"
NOT_UTF_8 = r"\x{FFFD}"  # the replacement character, which stands for bytes that are not UTF-8


class TokenColumns(AdaptableLayer):
    """Base of layers with a column for each token of a vocabulary.

    Texts are lower-cased and split as scikit-learn's `CountVectorizer` does by default: into words, which are runs of
    at least two letters, digits and underscores of any script; or into characters, where runs of white space are one
    space. Bytes that are not UTF-8 separate words, and are dropped from characters. A NUL is a space. Tokens outside of
    the vocabulary are dropped. Without data the vocabulary is empty, and so is each row.

    The vocabulary is in descending order of count, then text. (scikit-learn does not define which of equally frequent
    tokens `max_tokens` keeps.) As the outputs are dense, keep it within thousands.

    Attributes:
        vocabulary: the tokens in the order of the columns. None before the layer is adapted.
    """

    def __init__(
        self,
        max_tokens: int | None = None,
        ngrams: tuple[int, int] = (1, 1),
        min_documents: int = 1,
        split: Literal["word", "character"] = "word",
        vocabulary: Any = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.supports_jit = False  # XLA has no texts
        low_high = tuple(ngrams) if isinstance(ngrams, (tuple, list)) else ()
        self._check(
            max_tokens is None or is_whole(max_tokens, 1), "max_tokens", max_tokens, "None or an integer from 1"
        )
        self._check(
            len(low_high) == 2 and all(is_whole(one, 1) for one in low_high) and low_high[0] <= low_high[1],
            "ngrams",
            ngrams,
            "two integers from 1, the lower first",
        )
        self._check(is_whole(min_documents, 1), "min_documents", min_documents, "an integer from 1")
        self._check(split in ("word", "character"), "split", split, "'word' or 'character'")
        self.max_tokens, self.min_documents = max_tokens, min_documents
        self._splitter = Splitter(split, (low_high[0], low_high[1]))
        self._tokens: np.ndarray | None = None  # of str; Keras would track each token of a list
        if vocabulary is not None:
            different = len(set(vocabulary)) == len(vocabulary) and "" not in vocabulary
            self._check(different, "vocabulary", vocabulary, "distinct texts, none of them empty")
            self._set_vocabulary(vocabulary)

    @property
    def vocabulary(self) -> list[str] | None:
        return None if self._tokens is None else self._tokens.tolist()

    def build(self, input_shape: Any) -> None:
        fits = len(input_shape) > 0 and tuple(input_shape[1:]) in ((), (1,))
        self._check(fits, "inputs", tuple(input_shape), "shape (rows,) or (rows, 1)")

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape[0], None if self._tokens is None else len(self._tokens)

    def compute_output_spec(self, texts: Any) -> keras.KerasTensor:
        self._check(texts.dtype == "string", "inputs", texts.dtype, "texts")
        return keras.KerasTensor(self.compute_output_shape(texts.shape), self.compute_dtype)

    def new_state(self) -> TokenCounts | None:
        if self._tokens is not None:
            return None
        return TokenCounts(self._splitter, self.max_tokens, self.min_documents)

    def set_state(self, state: TokenCounts) -> None:
        self._set_vocabulary([token for token, _ in state.readable()])

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "max_tokens": self.max_tokens,
            "ngrams": list(self._splitter.ngrams),
            "min_documents": self.min_documents,
            "split": self._splitter.split,
            "vocabulary": self.vocabulary,
        }

    def _counts(self, texts: Any) -> tf.Tensor:
        """Return the number of times that each row has each token: float32 (rows, vocabulary)."""
        if self._tokens is None:
            reason = "has no vocabulary yet; adapt it, or pass it one"
            raise ValueError(f"{type(self).__name__} {self.name!r} {reason}")
        texts = tf.convert_to_tensor(texts)
        self._check(texts.dtype == tf.string, "inputs", texts.dtype.name, "texts")
        known_rows, texts = texts.shape[0], tf.reshape(texts, [-1])
        tokens = self._splitter(texts)
        places, size = self._table.lookup(tokens.flat_values), len(self._tokens)
        rows = tf.size(texts, tf.int64)
        cells = tf.where(places < 0, places, tokens.value_rowids() * size + places)
        # Negative segments, the unseen tokens, are dropped.
        counts = tf.math.unsorted_segment_sum(tf.ones_like(cells, tf.float32), cells, rows * size)
        return tf.ensure_shape(tf.reshape(counts, [rows, size]), [known_rows, size])

    def _set_vocabulary(self, tokens: Any) -> None:
        self._tokens = np.array([*tokens, None], object)[:-1]  # of objects, whatever the texts are
        self._table = vocabulary_table(self._tokens)

    def _check(self, holds: bool, name: str, received: Any, expected: str) -> None:
        check(type(self).__name__, holds, name, received, expected)


@keras.saving.register_keras_serializable("kerasline")
class BagOfWords(TokenColumns):
    """Counts how often each token of a vocabulary occurs in a text.

    The numbers are those of scikit-learn's `CountVectorizer`, with the columns in another order. `TokenColumns`
    describes how texts are split.

    Args:
        max_tokens: int. Maximum size of the vocabulary, which holds the most frequent tokens. Defaults to None, all.
        ngrams: tuple of two ints. Fewest and most consecutive tokens that form one. Defaults to `(1, 1)`.
        min_documents: int. Minimum number of texts that contain a token of the vocabulary. Defaults to 1.
        split: `"word"` or `"character"`. Defaults to `"word"`.
        output: `"count"`, or `"binary"` for 1 if the token occurs, else 0. Defaults to `"count"`.
        vocabulary: list of str. The tokens; the layer then needs no data.

    Inputs:
        Texts of shape (rows,) or (rows, 1).

    Outputs:
        Floats of shape (rows, vocabulary) and the layer's dtype, float32 by default. A missing (empty) text gives 0.

    Raises:
        ValueError: an argument or the inputs are invalid, or the layer is called before it is adapted.

    Example:

    >>> layer = kl.layers.BagOfWords()
    >>> layer.adapt(["the cat", "the dog", "the cat sat"])
    >>> layer.vocabulary
    ['the', 'cat', 'sat', 'dog']
    >>> layer(np.array(["The dog, the dog!"])).numpy().tolist()
    [[2.0, 0.0, 0.0, 2.0]]
    """

    def __init__(
        self,
        max_tokens: int | None = None,
        ngrams: tuple[int, int] = (1, 1),
        min_documents: int = 1,
        split: Literal["word", "character"] = "word",
        output: Literal["count", "binary"] = "count",
        **options: Any,
    ) -> None:
        super().__init__(max_tokens, ngrams, min_documents, split, **options)
        self._check(output in ("count", "binary"), "output", output, "'count' or 'binary'")
        self._output = output

    def call(self, texts: Any) -> tf.Tensor:
        counts = self._counts(texts)
        return tf.cast(tf.minimum(counts, 1) if self._output == "binary" else counts, self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "output": self._output}


@keras.saving.register_keras_serializable("kerasline")
class TfIdf(TokenColumns):
    """Weights the tokens of a text by their frequency in it and their rarity in the data: tf * idf.

    The numbers are those of scikit-learn's `TfidfVectorizer`, with the columns in another order, or, with `tf="share"`
    and `norm=None`, those of tensorflow-transform's `tfidf`. For n texts, d of them with the token,
    idf = log((1 + n) / (1 + d)) + 1. Missing texts do not count. `TokenColumns` describes how texts are
    split.

    Args:
        max_tokens: int. Maximum size of the vocabulary, which holds the most frequent tokens. Defaults to None, all.
        ngrams: tuple of two ints. Fewest and most consecutive tokens that form one. Defaults to `(1, 1)`.
        min_documents: int. Minimum number of texts that contain a token of the vocabulary. Defaults to 1.
        split: `"word"` or `"character"`. Defaults to `"word"`.
        norm: scale each row to Euclidean length 1 (`"l2"`) or sum 1 (`"l1"`). None does not scale. Defaults to `"l2"`.
        smooth: bool. Compute idf as if one more text had every token; else idf = log(n / d) + 1. Defaults to `True`.
        tf: `"count"` of a token in the text, `"log"` (1 + log(count)), or `"share"` of the tokens of the vocabulary in
            the text. Defaults to `"count"`.
        vocabulary: list of str. The tokens; the layer then needs no data.
        idf: array-like with the idf of each token, if `vocabulary` is passed.

    Inputs:
        Texts of shape (rows,) or (rows, 1).

    Outputs:
        Floats of shape (rows, vocabulary) and the layer's dtype, float32 by default. A missing (empty) text gives 0.

    Raises:
        ValueError: an argument or the inputs are invalid, or the layer is called before it is adapted.

    Example:

    >>> layer = kl.layers.TfIdf()
    >>> layer.adapt(["the cat", "the dog"])
    >>> layer.vocabulary
    ['the', 'dog', 'cat']
    >>> print(layer(np.array(["the dog"])).numpy().round(3))
    [[0.58  0.815 0.   ]]
    """

    def __init__(
        self,
        max_tokens: int | None = None,
        ngrams: tuple[int, int] = (1, 1),
        min_documents: int = 1,
        split: Literal["word", "character"] = "word",
        norm: Literal["l2", "l1"] | None = "l2",
        smooth: bool = True,
        tf: Literal["count", "log", "share"] = "count",
        idf: Any = None,
        **options: Any,
    ) -> None:
        super().__init__(max_tokens, ngrams, min_documents, split, **options)
        self._check(norm in ("l2", "l1", None), "norm", norm, "'l2', 'l1' or None")
        tokens = 0 if self._tokens is None else len(self._tokens)
        fits = (idf is None) == (self._tokens is None) and (idf is None or len(idf) == tokens)
        self._check(fits, "idf", idf, f"a number for each of the {tokens} tokens of vocabulary")
        self._check(tf in ("count", "log", "share"), "tf", tf, "'count', 'log' or 'share'")
        self._norm, self._smooth, self._frequency = norm, bool(smooth), tf
        self._idf = None if idf is None else np.array(idf, np.float32)

    def call(self, texts: Any) -> tf.Tensor:
        weights = self._counts(texts)
        if self._frequency == "log":
            weights = tf.where(weights > 0, 1 + tf.math.log(tf.maximum(weights, 1)), 0)
        elif self._frequency == "share":
            weights = tf.math.divide_no_nan(weights, tf.reduce_sum(weights, axis=1, keepdims=True))
        weights *= self._idf
        if self._norm is not None:
            length = tf.norm(weights, ord=2 if self._norm == "l2" else 1, axis=1, keepdims=True)
            weights = tf.math.divide_no_nan(weights, length)
        return tf.cast(weights, self.compute_dtype)

    def set_state(self, state: TokenCounts) -> None:
        super().set_state(state)
        more = int(self._smooth)
        rarity = (state.documents + more) / (state.documents_with() + more)
        self._idf = (np.log(rarity) + 1).astype(np.float32)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "norm": self._norm,
            "smooth": self._smooth,
            "tf": self._frequency,
            "idf": None if self._idf is None else self._idf.tolist(),
        }


class TokenCounts:
    """Counts of each token, and of the texts that contain it.

    `add` takes an array of texts of any shape. Missing (empty) texts do not count.

    Attributes:
        documents: the number of texts.
    """

    def __init__(self, splitter: Splitter, max_tokens: int | None, min_documents: int) -> None:
        self._splitter, self._most, self._least = splitter, max_tokens, min_documents
        self._times = ValueCounts(max_values=None, estimate_distinct=False)
        self._texts_with = ValueCounts(max_values=None, estimate_distinct=False)
        self.documents = 0

    def limit(self, tokens: int) -> None:
        """Count at most this number of tokens at once; see `error`."""
        for counts in (self._times, self._texts_with):
            counts.limit(tokens, tokens * BYTES_PER_VALUE)

    @property
    def error(self) -> int:
        """The maximum error of a count, which is never too high. 0 unless the limit was reached."""
        return self._times.error

    def add(self, texts: np.ndarray) -> None:
        flat = np.asarray(texts).reshape(-1)
        sizes = pc.binary_length(pa.array(flat).cast(pa.large_binary())).to_numpy(zero_copy_only=False)
        flat, sizes = flat[sizes > 0], sizes[sizes > 0]
        low, high = self._splitter.ngrams
        part = np.cumsum(sizes) * (high - low + 1) // BYTES_AT_ONCE
        for some in np.split(flat, np.flatnonzero(np.diff(part)) + 1):
            self._add(self._splitter(tf.constant(some, tf.string, [len(some)])))
        self.documents += len(flat)

    def merge(self, other: TokenCounts) -> None:
        self._times.merge(other._times)
        self._texts_with.merge(other._texts_with)
        self.documents += other.documents

    def documents_with(self) -> np.ndarray:
        """Return the number of texts with each token of the vocabulary, in its order: int64."""
        return self._vocabulary()["texts_with"].to_numpy()

    def readable(self) -> list[tuple[str, int]]:
        """Return the vocabulary in its order, with counts."""
        vocabulary = self._vocabulary()
        return [(t.decode(), n) for t, n in zip(vocabulary["values"].to_pylist(), vocabulary["counts"].to_pylist())]

    def _add(self, tokens: tf.RaggedTensor) -> None:
        found = pa.array(tokens.flat_values.numpy()).cast(pa.large_binary()).dictionary_encode()
        places, different = found.indices.to_numpy().astype(np.int64), len(found.dictionary)
        self._times.add_counted(found.dictionary, _counted(places, different))
        # A token counts once for each text. The pairs of text and token, as numbers, are nearly sorted, so a stable
        # sort takes a tenth of np.unique's time.
        pairs = np.sort(tokens.value_rowids().numpy() * different + places, kind="stable")
        once = pairs[np.diff(pairs, prepend=-1) > 0] % max(different, 1)
        self._texts_with.add_counted(found.dictionary, _counted(once, different))

    def _vocabulary(self) -> pa.Table:
        """Return the vocabulary in its order: `values`, `counts`, `texts_with`."""
        vocabulary, texts_with = self._times.table().combine_chunks(), self._texts_with.table().combine_chunks()
        place = pc.index_in(vocabulary["values"], texts_with["values"])
        numbers = texts_with["counts"].take(place)  # null if `limit` left it out
        numbers = numbers.fill_null(self._texts_with.error)
        vocabulary = vocabulary.append_column("texts_with", numbers)
        vocabulary = vocabulary.filter(pc.greater_equal(numbers, self._least))
        return vocabulary.sort_by([("counts", "descending"), ("values", "descending")])[: self._most]


@dataclass(frozen=True)
class Splitter:
    """Splits texts (rows,) into tokens, a ragged tensor (rows, None), by TensorFlow's operations alone."""

    split: str
    ngrams: tuple[int, int]

    def __call__(self, texts: tf.Tensor) -> tf.RaggedTensor:
        # TensorFlow's `lower` cuts a text at its first NUL.
        texts = tf.strings.lower(tf.strings.regex_replace(texts, r"\x00", " "), encoding="utf-8")
        if self.split == "word":
            tokens = tf.strings.split(tf.strings.regex_replace(texts, NOT_OF_WORDS, " "))
            tokens = tf.ragged.boolean_mask(tokens, tf.strings.length(tokens, "UTF8_CHAR") > 1)
        else:
            texts = tf.strings.regex_replace(texts, NOT_UTF_8, "")
            tokens = tf.strings.unicode_split(tf.strings.regex_replace(texts, WHITE_SPACES, " "), "UTF-8")
        if self.ngrams == (1, 1):
            return tokens
        between = " " if self.split == "word" else ""
        low, high = self.ngrams
        return tf.strings.ngrams(tokens, tuple(range(low, high + 1)), separator=between)


def _counted(places: np.ndarray, different: int) -> pa.Array:
    return pa.array(np.bincount(places, minlength=different), pa.int64())
