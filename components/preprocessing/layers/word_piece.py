"""Texts as word pieces, as BERT splits them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import keras
import pyarrow as pa
import tensorflow as tf

from kerasline.components.preprocessing.layers.tokenizer import Tokenizer, WordCounts, import_library

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
# Number of texts to split at a time.
TEXTS_AT_ONCE = 10_000


@keras.saving.register_keras_serializable("kerasline")
class WordPiece(Tokenizer):
    """Splits texts into word pieces, as BERT does: at white space and punctuation, then greedily by a vocabulary.

    A vocabulary is learned from the counts of words by TensorFlow Text's learner. It begins with `[PAD]`, `[UNK]`,
    `[CLS]` (the begin of a text), `[SEP]` (the end) and `[MASK]`. Texts are decoded with spaces between words and
    punctuation. Needs tensorflow-text: `pip install 'kerasline[language]'`.

    Args:
        top: int. Maximum size of the vocabulary, unless the characters of the data alone take more. Defaults to 8,000.
        length: int. Number of ids of a row: longer texts are cut, shorter ones padded. Defaults to None: padded to the
            longest row of the batch.
        begin: bool. Begin each row with `[CLS]`. Defaults to `False`.
        end: bool. End each row with `[SEP]`, also one that is cut. Defaults to `False`.
        lower: bool. Ignore case and accents. Defaults to `True`.
        vocabulary: list of str, such as the lines of BERT's `vocab.txt`; the layer then needs no data.

    Inputs:
        Texts of shape (rows,) or (rows, 1). In a call, `length`, `begin` and `end` replace those of the layer, so that
        one vocabulary can serve several columns.

    Outputs:
        int32 (rows, length).

    Raises:
        ValueError: an argument or the inputs are invalid, or the layer is called before it is adapted.
        ParameterError: tensorflow-text is not installed.

    Example:

    >>> layer = kl.layers.WordPiece(vocabulary=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "read", "##ing", "!"], end=True)
    >>> ids = layer(np.array(["Reading!", "Read"]))
    >>> ids.numpy().tolist()
    [[4, 5, 6, 3], [4, 3, 0, 0]]
    >>> layer.decode(ids).numpy()
    array([b'reading !', b'read'], dtype=object)
    """

    def __init__(
        self,
        top: int = 8000,
        length: int | None = None,
        begin: bool = False,
        end: bool = False,
        lower: bool = True,
        vocabulary: Sequence[str] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(top, length, begin, end, **options)
        self.lower = bool(lower)
        self._vocabulary: list[str] | None = None
        if vocabulary is not None:
            self._use([str(token) for token in vocabulary])

    @property
    def vocabulary(self) -> list[str] | None:
        return self._vocabulary

    def new_state(self) -> WordPieceCounts | None:
        return None if self._vocabulary is not None else WordPieceCounts(self.top, self.lower)

    def set_state(self, state: WordPieceCounts) -> None:
        self._use(state.learned)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "lower": self.lower, "vocabulary": self._vocabulary}

    def _tokenize(self, texts: tf.Tensor) -> tf.RaggedTensor:
        return self._pieces.tokenize(self._normalizer.normalize(texts))

    def _detokenize(self, ids: tf.RaggedTensor) -> tf.Tensor:
        return self._pieces.detokenize(ids)

    def _use(self, vocabulary: list[str]) -> None:
        expected = f"a list of tokens with {', '.join(SPECIAL[:4])}"
        self._check(set(SPECIAL[:4]) <= set(vocabulary), "vocabulary", vocabulary[:6], expected)
        library = import_library("tensorflow_text", "WordPiece")
        with tf.init_scope():
            self._normalizer = library.FastBertNormalizer(lower_case_nfd_strip_accents=self.lower)
            self._pieces = library.FastWordpieceTokenizer(
                vocabulary, token_out_type=tf.int32, unknown_token=SPECIAL[1], support_detokenization=True
            )
        self._vocabulary = vocabulary
        self.pad_id, self.unknown_id, self.begin_id, self.end_id = map(vocabulary.index, SPECIAL[:4])


class WordPieceCounts(WordCounts):
    """Counts words, as BERT splits them, and learns word pieces from the counts."""

    def __init__(self, top: int, lower: bool) -> None:
        super().__init__()
        self._top, self._lower = top, lower

    def split(self, texts: pa.Array) -> pa.Array:
        library = import_library("tensorflow_text.python.ops.bert_tokenizer", "WordPiece")
        words = library.BasicTokenizer(lower_case=self._lower)
        parts = [
            pa.array(words.tokenize(tf.constant(part.to_numpy(zero_copy_only=False), tf.string)).flat_values.numpy())
            for part in (texts[start : start + TEXTS_AT_ONCE] for start in range(0, len(texts), TEXTS_AT_ONCE))
        ]
        return pa.concat_arrays([part.cast(pa.large_binary()) for part in parts or [pa.array([], pa.binary())]])

    @functools.cached_property
    def learned(self) -> list[str]:
        """The vocabulary."""
        learner = "tensorflow_text.tools.wordpiece_vocab.wordpiece_tokenizer_learner_lib"
        counts = self.counts() or [("?", 1)]  # TensorFlow Text refuses a vocabulary without tokens
        return import_library(learner, "WordPiece").learn(counts, self._top, list(SPECIAL))

    def readable(self) -> list[tuple[str, Any]]:
        """Return the word pieces with their ids."""
        return [(piece, place) for place, piece in enumerate(self.learned)]
