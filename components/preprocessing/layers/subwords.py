"""Texts as subwords, by SentencePiece."""

from __future__ import annotations

import base64
import functools
import io
import re
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import keras
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf

from kerasline.components.core.errors import DataError, one_line
from kerasline.components.preprocessing.layers.tokenizer import Tokenizer, WordCounts, import_library

# SentencePiece's results depend on the number of its threads, so it is fixed.
THREADS = 2
# Unigrams are learned from sentences of this number of words, and from at most this number of words.
SENTENCE = 8
MOST_WORDS = 2_000_000


@keras.saving.register_keras_serializable("kerasline")
class Subwords(Tokenizer):
    """Splits texts into subwords with SentencePiece, which learns them from the counts of words.

    Ids are 0 for padding, 1 for what the vocabulary cannot represent, 2 for the begin and 3 for the end of a text. Then
    follow `symbols`, and the subwords. A missing ("") text has no subwords. Learning needs sentencepiece, encoding and
    decoding tensorflow-text: `pip install 'kerasline[language]'`.

    Args:
        top: int. Maximum size of the vocabulary, including the ids above. Defaults to 8,000.
        length: int. Number of ids of a row: longer texts are cut, shorter ones padded. Defaults to None: padded to the
            longest row of the batch.
        begin: bool. Begin each row with `begin_id`, 2. Defaults to `False`.
        end: bool. End each row with `end_id`, 3, also one that is cut. Defaults to `False`.
        algorithm: `"unigram"` (Kudo, 2018) or `"bpe"`, byte-pair encoding. Defaults to `"unigram"`.
        lower: bool. Ignore case: texts become lower case. Defaults to `False`.
        coverage: float. Share of the characters of the data that the vocabulary represents; the rarest ones are
            unknown. Defaults to 0.9995.
        byte_fallback: bool. Represent other characters by their UTF-8 bytes, which take 256 ids, instead of as unknown.
            Defaults to `False`.
        symbols: list of str. Tokens that are never split, such as `"<en>"`. Defaults to none.
        model: bytes, or their base64 text. A SentencePiece model (the content of a `.model` file); the layer then needs
            no data.

    Inputs:
        Texts of shape (rows,) or (rows, 1). In a call, `length`, `begin` and `end` replace those of the layer, so that
        one vocabulary can serve several columns.

    Outputs:
        int32 (rows, length).

    Raises:
        ValueError: an argument or the inputs are invalid, or the layer is called before it is adapted.
        ParameterError: tensorflow-text or sentencepiece is not installed.
        DataError: `top` is smaller than the number of different characters of the data.

    Example:

    >>> layer = kl.layers.Subwords(top=20, length=6, end=True, algorithm="bpe")
    >>> layer.adapt(["low lower", "low lowest"])
    >>> layer.vocabulary[:8]
    ['<pad>', '<unk>', '<s>', '</s>', 'lo', 'low', '▁low', '▁lowe']
    >>> ids = layer(np.array(["lower low", "low"]))
    >>> ids.numpy().tolist()
    [[9, 6, 3, 0, 0, 0], [6, 3, 0, 0, 0, 0]]
    >>> layer.decode(ids).numpy()
    array([b'lower low', b'low'], dtype=object)
    """

    def __init__(
        self,
        top: int = 8000,
        length: int | None = None,
        begin: bool = False,
        end: bool = False,
        algorithm: Literal["unigram", "bpe"] = "unigram",
        lower: bool = False,
        coverage: float = 0.9995,
        byte_fallback: bool = False,
        symbols: Sequence[str] = (),
        model: bytes | str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(top, length, begin, end, **options)
        self._check(algorithm in ("unigram", "bpe"), "algorithm", algorithm, "'unigram' or 'bpe'")
        self._check(0 < coverage <= 1, "coverage", coverage, "a number above 0, at most 1")
        self._check(all(isinstance(s, str) and s for s in symbols), "symbols", symbols, "a list of texts")
        self.algorithm, self.lower, self.coverage = algorithm, bool(lower), float(coverage)
        self.byte_fallback, self.symbols = bool(byte_fallback), list(symbols)
        self._model: bytes | None = None
        self._vocabulary: list[str] | None = None
        if model is not None:
            self._use(base64.b64decode(model) if isinstance(model, str) else model)

    @property
    def vocabulary(self) -> list[str] | None:
        return self._vocabulary

    @property
    def model(self) -> bytes | None:
        """The SentencePiece model, the content of a `.model` file. None if the layer is not adapted yet."""
        return self._model

    def new_state(self) -> SubwordCounts | None:
        if self._model is not None:
            return None
        return SubwordCounts(
            repr(self.name),
            vocab_size=self.top,
            model_type=self.algorithm,
            normalization_rule_name="nmt_nfkc_cf" if self.lower else "nmt_nfkc",
            character_coverage=self.coverage,
            byte_fallback=self.byte_fallback,
            user_defined_symbols=list(self.symbols),  # Keras tracks lists, in a form that pickle refuses
        )

    def set_state(self, state: SubwordCounts) -> None:
        self._use(state.learned)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "algorithm": self.algorithm,
            "lower": self.lower,
            "coverage": self.coverage,
            "byte_fallback": self.byte_fallback,
            "symbols": list(self.symbols),
            "model": None if self._model is None else base64.b64encode(self._model).decode(),
        }

    def _tokenize(self, texts: tf.Tensor) -> tf.RaggedTensor:
        return self._pieces.tokenize(texts)

    def _detokenize(self, ids: tf.RaggedTensor) -> tf.Tensor:
        return self._pieces.detokenize(ids)

    def _use(self, model: bytes) -> None:
        library = import_library("tensorflow_text", "Subwords")
        with tf.init_scope():
            try:
                self._pieces = library.SentencepieceTokenizer(model)
                size = int(self._pieces.vocab_size())
            except tf.errors.OpError as error:
                raise ValueError(
                    f"Subwords: invalid model: expected a SentencePiece model: {one_line(error)}"
                ) from None
            pieces = self._pieces.id_to_string(tf.range(size)).numpy()
        self._model, self._vocabulary = model, [piece.decode() for piece in pieces]
        for name, piece in (("pad_id", "<pad>"), ("unknown_id", "<unk>"), ("begin_id", "<s>"), ("end_id", "</s>")):
            # A model of other origin may lack some.
            setattr(self, name, self._vocabulary.index(piece) if piece in self._vocabulary else -1)


class SubwordCounts(WordCounts):
    """Counts words, and learns subwords from the counts.

    Args:
        layer: the layer's name, for messages.
        **options: of SentencePiece's trainer.
    """

    def __init__(self, layer: str, **options: Any) -> None:
        super().__init__()
        self._layer, self._options = layer, options

    def split(self, texts: pa.Array) -> pa.Array:
        texts = texts.cast(options=pc.CastOptions(pa.large_string(), allow_invalid_utf8=True))
        words = pc.list_flatten(pc.ascii_split_whitespace(texts)).cast(pa.large_binary())
        return words.filter(pc.greater(pc.binary_length(words), 0))

    @functools.cached_property
    def learned(self) -> bytes:
        """The SentencePiece model."""
        sentencepiece = import_library("sentencepiece", "Subwords")
        written = io.BytesIO()
        counts = self.counts() or [("?", 1)]  # the trainer refuses to learn from nothing
        is_bpe = self._options["model_type"] == "bpe"
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=(f"{word}\t{n}" for word, n in counts) if is_bpe else _sentences(counts),
                input_format="tsv" if is_bpe else "text",
                model_writer=written,
                pad_id=Subwords.pad_id,
                unk_id=Subwords.unknown_id,
                bos_id=Subwords.begin_id,
                eos_id=Subwords.end_id,
                hard_vocab_limit=False,
                num_threads=THREADS,
                minloglevel=2,
                **self._options,
            )
        except RuntimeError as error:
            raise DataError(f"Subwords {self._layer}: {self._problem(error)}") from error
        return written.getvalue()

    def readable(self) -> list[tuple[str, Any]]:
        """Return the subwords by their ids, with SentencePiece's scores (logarithms of probabilities for unigrams)."""
        processor = import_library("sentencepiece", "Subwords").SentencePieceProcessor(model_proto=self.learned)
        return [(processor.id_to_piece(i), processor.get_score(i)) for i in range(processor.vocab_size())]

    def _problem(self, error: RuntimeError) -> str:
        few = re.search(r"required_chars\. (\d+) vs (\d+)", str(error))
        if few is None:
            return f"SentencePiece cannot learn from these texts: {one_line(error)}"
        return (
            f"top={few[1]} is too small, because the texts have {few[2]} different characters (special ids included); "
            "raise top, or lower coverage"
        )


def _sentences(counts: list[tuple[str, int]]) -> Iterator[str]:
    """Yield sentences of the words in random order.

    The trainer of unigrams takes as candidates what is followed by different characters. In a list of words each word
    is followed by the end of a text, so that frequent words would be no candidates.
    """
    sizes = np.array([count for _, count in counts])
    scale = min(1.0, MOST_WORDS / sizes.sum())
    order = np.random.RandomState(0).permutation(np.repeat(np.arange(len(counts)), np.round(sizes * scale).astype(int)))
    for start in range(0, len(order), SENTENCE):
        yield " ".join(counts[place][0] for place in order[start : start + SENTENCE])
