"""Texts as their words or subwords, points in time as their parts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from kerasline.components.preprocessing.features.base import Feature, category_form

if TYPE_CHECKING:
    import keras
    import pyarrow as pa


@dataclass(frozen=True)
class Text(Feature):
    """Encodes texts by their words or subwords.

    Args:
        encode: `"index"` (a row of word indices), `"subword"` or `"word_piece"` (a row of ids by
            `kerasline.layers.Subwords` or `WordPiece`), or `"count"`, `"binary"` or `"tf_idf"` (a column for each
            word). Defaults to `"index"`.
        top: int. Maximum size of the vocabulary, which holds the most frequent words. Defaults to None: unlimited, for
            subwords 8,000.
        length: int. Number of indices of a row. Longer texts are cut, shorter ones padded with 0. None pads to the
            longest text of the batch. Defaults to 128.
        ngrams: int. Up to this number of consecutive words also count as one word. Not for subwords. Defaults to 1.
        least: int. Minimum number of texts that contain a word of the vocabulary. Only for `"count"`, `"binary"` and
            `"tf_idf"`. Defaults to 1.
        begin: bool. Begin each row with the id of the begin. Only for subwords. Defaults to `False`.
        end: bool. End each row with the id of the end, also a text that is cut. Only for subwords. Defaults to `False`.
        column: str. The column, if it has another name than the feature.

    Example:

    >>> data = kl.InMemoryExampleGen({"review": ["the cat", "the dog"]}, splits={"train": 1})
    >>> features = {"review": kl.features.Text(length=3)}
    >>> model = kl.Transform(data.execute(folder / "a").examples, features=features)
    >>> model = model.execute(folder / "b").preprocessing.load()
    >>> model({"review": np.array([["the bird"]])})["review"].numpy().tolist()
    [[2, 1, 0]]
    """

    encode: Literal["index", "subword", "word_piece", "count", "binary", "tf_idf"] = "index"
    top: int | None = None
    length: int | None = 128
    ngrams: int = 1
    least: int = 1
    begin: bool = False
    end: bool = False

    def input_form(self, name: str, kind: pa.DataType) -> tuple[str, tuple[int | None, ...]]:
        return "string", (1,)

    def output(self, name: str, *inputs: keras.KerasTensor) -> keras.KerasTensor:
        import keras

        from kerasline.components.preprocessing.layers.subwords import Subwords
        from kerasline.components.preprocessing.layers.text import BagOfWords, TfIdf
        from kerasline.components.preprocessing.layers.word_piece import WordPiece

        top = 8000 if self.top is None else self.top
        if self.encode == "subword":
            return Subwords(top, self.length, self.begin, self.end, name=f"{name}_subwords")(*inputs)
        if self.encode == "word_piece":
            return WordPiece(top, self.length, self.begin, self.end, name=f"{name}_subwords")(*inputs)
        words = f"{name}_words"
        if self.encode == "index":
            runs = self.ngrams if self.ngrams > 1 else None
            layer = keras.layers.TextVectorization(
                max_tokens=self.top, ngrams=runs, output_sequence_length=self.length, name=words
            )
            return layer(*inputs)
        options: dict[str, Any] = {
            "max_tokens": self.top,
            "ngrams": (1, self.ngrams),
            "min_documents": self.least,
            "name": words,
        }
        layer = TfIdf(**options) if self.encode == "tf_idf" else BagOfWords(output=self.encode, **options)
        return layer(*inputs)


@dataclass(frozen=True)
class DateTime(Feature):
    """Splits points in time into parts. Texts are ISO 8601; integers count from 1970.

    Args:
        parts: list of parts of `kerasline.layers.DateTimeParts`. Defaults to month, day, weekday and hour.
        unit: `"s"`, `"ms"`, `"us"`, `"ns"` or `"days"`, the unit of integers. Defaults to `"s"`.
        cyclic: bool. Encode each cyclic part as sine and cosine, so that 23 o'clock is next to 0. Defaults to `False`.
        impute: float. Replacement for the parts of a missing value. None leaves NaN. Defaults to 0.
        column: str. The column, if it has another name than the feature.

    Example:

    >>> data = kl.InMemoryExampleGen({"at": ["2026-11-24T01:38:35"]}, splits={"train": 1})
    >>> features = {"at": kl.features.DateTime(["month", "hour"])}
    >>> model = kl.Transform(data.execute(folder / "a").examples, features=features)
    >>> model = model.execute(folder / "b").preprocessing.load()
    >>> model({"at": np.array([["2026-11-24T01:38:35"]])})["at"].numpy().tolist()
    [[11.0, 1.0]]
    """

    parts: list[str] = field(default_factory=lambda: ["month", "day", "weekday", "hour"])
    unit: Literal["s", "ms", "us", "ns", "days"] = "s"
    cyclic: bool = False
    impute: float | None = 0.0

    def input_form(self, name: str, kind: pa.DataType) -> tuple[str, tuple[int | None, ...]]:
        return category_form(self, name, kind)

    def output(self, name: str, *inputs: keras.KerasTensor) -> keras.KerasTensor:
        from kerasline.components.preprocessing.layers.date_time import DateTimeParts
        from kerasline.components.preprocessing.layers.missing import Imputation

        source = "iso" if inputs[0].dtype == "string" else self.unit
        x = DateTimeParts(self.parts, source=source, cyclic=self.cyclic, name=f"{name}_parts")(*inputs)
        return x if self.impute is None else Imputation("constant", fill_value=self.impute)(x)
