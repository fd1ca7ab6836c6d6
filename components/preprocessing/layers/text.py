"""Texts as rows of numbers: a column for each token of a vocabulary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf

from kerasline.components.data.accumulators.value_counts import ValueCounts

# Texts are split so many bytes at a time: an n-gram takes about 100 bytes while it is counted.
BYTES_AT_ONCE = 1 << 20
BYTES_A_VALUE = 256
# Python's \w and \s, as RE2 says them, where \w and \s mean ASCII.
NOT_OF_WORDS = r"[^\pL\pN_]+"
WHITE_SPACES = r"[\s\pZ\x{0b}\x{1c}-\x{1f}\x{85}]{2,}"
NOT_UTF_8 = r"\x{FFFD}"  # the replacement character, which takes the place of bytes that are no UTF-8


class TokenColumns(keras.layers.Layer):
    """What the layers below share: the tokens of texts, the vocabulary and its counts.

    Texts are put in lower case and split as scikit-learn's `CountVectorizer` does by default: into
    words, runs of two or more letters, digits and underscores of any script; or into characters,
    where runs of white space are one space. Bytes that are no UTF-8 part words, and are left out of
    characters; a NUL is a space. Tokens that are not in the vocabulary are left out.

    Input: texts (rows,) or (rows, 1). Output: (rows, vocabulary) of the layer's dtype (float32), dense;
    a row of zeros for a missing (empty) text. Over no texts the vocabulary is empty, and so is each row.

    Args:
        max_tokens: how many tokens the vocabulary has at most, the most frequent over all texts; of
            equally frequent ones the greater text (scikit-learn's choice there is not defined). All
            by default: as the output is dense, keep it within thousands.
        ngrams: from how many tokens in a row to how many make one: `(1, 2)` for words and pairs.
        min_documents: how many texts a token must be in.
        split: into what: `word` or `character`.
        vocabulary: the tokens, where they are known: such a layer needs no data.

    Attributes:
        vocabulary: the tokens in the order of the columns, by count, ties by text, both descending;
            None before the layer is adapted.

    Raises:
        ValueError: an argument is not among what is possible, or the layer is called without vocabulary.
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
        self._check(max_tokens is None or _is_whole(max_tokens), "max_tokens", max_tokens, "None, 1 or more")
        self._check(
            len(low_high) == 2 and all(map(_is_whole, low_high)) and low_high[0] <= low_high[1],
            "ngrams",
            ngrams,
            "two whole numbers, the first from 1 to the second",
        )
        self._check(_is_whole(min_documents), "min_documents", min_documents, "1 or more")
        self._check(split in ("word", "character"), "split", split, "'word' or 'character'")
        self.max_tokens, self.min_documents = max_tokens, min_documents
        self._splitter = Splitter(split, low_high)
        self._tokens: np.ndarray | None = None  # of str; a list would be tracked, token by token
        if vocabulary is not None:
            different = len(set(vocabulary)) == len(vocabulary) and "" not in vocabulary
            self._check(different, "vocabulary", vocabulary, "different texts, none of them empty")
            self._set_vocabulary(vocabulary)

    @property
    def vocabulary(self) -> list[str] | None:
        return None if self._tokens is None else self._tokens.tolist()

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        fits = len(input_shape) > 0 and tuple(input_shape[1:]) in ((), (1,))
        self._check(fits, "the inputs' shape", tuple(input_shape), "(rows,) and (rows, 1)")

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape[0], None if self._tokens is None else len(self._tokens)

    def compute_output_spec(self, texts: Any) -> keras.KerasTensor:
        self._check(texts.dtype == "string", "the inputs' dtype", texts.dtype, "string")
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
        """How often each row has each token of the vocabulary: float32 (rows, vocabulary)."""
        if self._tokens is None:
            told = "has no vocabulary yet; adapt it, or give it one"
            raise ValueError(f"{type(self).__name__} {self.name!r} {told}")
        texts = tf.convert_to_tensor(texts)
        self._check(texts.dtype == tf.string, "the inputs' dtype", texts.dtype.name, "string")
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
        with tf.init_scope():
            # TensorFlow refuses a table of nothing; no token is empty.
            keys = tf.constant([*self._tokens, ""])
            places = tf.constant([*range(len(self._tokens)), -1], tf.int64)
            self._table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(keys, places), -1)

    def _check(self, holds: bool, name: str, given: Any, possible: str) -> None:
        if not holds:
            raise ValueError(f"{type(self).__name__}: {name} is {given!r}; possible: {possible}")


@keras.saving.register_keras_serializable("kerasline")
class BagOfWords(TokenColumns):
    """How often each token is in a text, or whether it is.

    The same numbers as scikit-learn's `CountVectorizer`, the columns in another order.

    Args:
        output: `count`, or `binary`: 1 for each token that is there.

    The other arguments, the input, the output and the errors are those of `TokenColumns`.
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
    """How often each token is in a text, times how rare it is: tf * idf, each row of length 1.

    The same numbers as scikit-learn's `TfidfVectorizer`, the columns in another order. With n texts,
    d of them with the token, idf = log((1 + n) / (1 + d)) + 1; missing texts are not among the n.

    Args:
        norm: what is 1 in each row: `l2` the Euclidean length, `l1` the sum, or None for neither.
        smooth: as if one more text had every token; otherwise idf = log(n / d) + 1.
        sublinear: 1 + log(tf) takes the place of tf.
        idf: one number for each token, where `vocabulary` is given.

    The other arguments, the input, the output and the errors are those of `TokenColumns`.
    """

    def __init__(
        self,
        max_tokens: int | None = None,
        ngrams: tuple[int, int] = (1, 1),
        min_documents: int = 1,
        split: Literal["word", "character"] = "word",
        norm: Literal["l2", "l1"] | None = "l2",
        smooth: bool = True,
        sublinear: bool = False,
        idf: Any = None,
        **options: Any,
    ) -> None:
        super().__init__(max_tokens, ngrams, min_documents, split, **options)
        self._check(norm in ("l2", "l1", None), "norm", norm, "'l2', 'l1' or None")
        tokens = 0 if self._tokens is None else len(self._tokens)
        fits = (idf is None) == (self._tokens is None) and (idf is None or len(idf) == tokens)
        self._check(fits, "idf", idf, f"a number for each of the {tokens} tokens of the given vocabulary")
        self._norm, self._smooth, self._sublinear = norm, bool(smooth), bool(sublinear)
        self._idf = None if idf is None else np.array(idf, np.float32)

    def call(self, texts: Any) -> tf.Tensor:
        weights = self._counts(texts)
        if self._sublinear:
            weights = tf.where(weights > 0, 1 + tf.math.log(tf.maximum(weights, 1)), 0)
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
            "sublinear": self._sublinear,
            "idf": None if self._idf is None else self._idf.tolist(),
        }


class TokenCounts:
    """How often each token is in texts, and in how many texts.

    Takes one array of texts at a time, of any shape; an element is a text. Missing (empty) texts do not
    count.

    Attributes:
        documents: the number of texts.
    """

    def __init__(self, splitter: Splitter, max_tokens: int | None, min_documents: int) -> None:
        self._splitter, self._most, self._least = splitter, max_tokens, min_documents
        self._times = ValueCounts(most=None, estimates_distinct=False)
        self._texts_with = ValueCounts(most=None, estimates_distinct=False)
        self.documents = 0

    def limit(self, tokens: int) -> None:
        """Counts no more than so many tokens at once; see `error`."""
        for counts in (self._times, self._texts_with):
            counts.limit(tokens, tokens * BYTES_A_VALUE)

    @property
    def error(self) -> int:
        """By how much a count may be too low; 0 unless the limit was met."""
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
        """In how many texts each token of the vocabulary is, in its order: int64."""
        return self._kept()["texts_with"].to_numpy()

    def readable(self) -> list[tuple[str, int]]:
        """The vocabulary in its order, with counts."""
        kept = self._kept()
        return [(t.decode(), n) for t, n in zip(kept["values"].to_pylist(), kept["counts"].to_pylist())]

    def _add(self, tokens: tf.RaggedTensor) -> None:
        found = pa.array(tokens.flat_values.numpy()).cast(pa.large_binary()).dictionary_encode()
        places, different = found.indices.to_numpy().astype(np.int64), len(found.dictionary)
        self._times.add_counted(found.dictionary, _counted(places, different))
        # In each text a token counts once. The pairs of text and token, as numbers, are nearly sorted:
        # a stable sort takes a tenth of the time that np.unique takes.
        pairs = np.sort(tokens.value_rowids().numpy() * different + places, kind="stable")
        once = pairs[np.diff(pairs, prepend=-1) > 0] % max(different, 1)
        self._texts_with.add_counted(found.dictionary, _counted(once, different))

    def _kept(self) -> pa.Table:
        """The vocabulary in its order: `values`, `counts`, `texts_with`."""
        kept, texts_with = self._times.table().combine_chunks(), self._texts_with.table().combine_chunks()
        place = pc.index_in(kept["values"], texts_with["values"])
        numbers = texts_with["counts"].take(place)  # null for one that `limit` left out
        numbers = numbers.fill_null(self._texts_with.error)
        kept = kept.append_column("texts_with", numbers)
        kept = kept.filter(pc.greater_equal(numbers, self._least))
        return kept.sort_by([("counts", "descending"), ("values", "descending")])[: self._most]


@dataclass(frozen=True)
class Splitter:
    """Splits texts (rows,) into tokens, a ragged tensor (rows, None); by nothing but TensorFlow's ops."""

    split: str
    ngrams: tuple[int, int]

    def __call__(self, texts: tf.Tensor) -> tf.RaggedTensor:
        # TensorFlow's `lower` ends a text at its first NUL.
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


def _is_whole(number: Any) -> bool:
    return isinstance(number, (int, np.integer)) and not isinstance(number, bool) and number >= 1
