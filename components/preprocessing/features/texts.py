"""Texts by their words, moments by their parts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from kerasline.components.preprocessing.features.base import Feature, category_form

if TYPE_CHECKING:
    import keras
    import pyarrow as pa


@dataclass(frozen=True)
class Text(Feature):
    """Texts by the words in them.

    Args:
        encode: `index` (a row of word indices), `count`, `binary` or `tf_idf` (a column a word).
        top: how many words at most, the most frequent.
        length: of the row of indices, longer ones cut and shorter filled up with 0.
        ngrams: runs of up to so many words count as words too; for `index` of words alone.
        least: the number of texts that a word must be in; not for `index`.
    """

    encode: Literal["index", "count", "binary", "tf_idf"] = "index"
    top: int | None = None
    length: int = 128
    ngrams: int = 1
    least: int = 1

    def input_form(self, name: str, kind: pa.DataType) -> tuple[str, tuple[int | None, ...]]:
        return "string", (1,)

    def output(self, name: str, *inputs: keras.KerasTensor) -> keras.KerasTensor:
        import keras

        from kerasline.components.preprocessing.layers.text import BagOfWords, TfIdf

        words = f"{name}_words"
        if self.encode == "index":
            runs = self.ngrams if self.ngrams > 1 else None
            layer = keras.layers.TextVectorization(
                max_tokens=self.top, ngrams=runs, output_sequence_length=self.length, name=words
            )
            return layer(*inputs)
        options = {
            "max_tokens": self.top,
            "ngrams": (1, self.ngrams),
            "min_documents": self.least,
            "name": words,
        }
        layer = TfIdf(**options) if self.encode == "tf_idf" else BagOfWords(output=self.encode, **options)
        return layer(*inputs)


@dataclass(frozen=True)
class DateTime(Feature):
    """Parts of a moment: ISO 8601 texts, or whole numbers since 1970 in a `unit`.

    Args:
        parts: among those of `kerasline.components.preprocessing.layers.DateTimeParts`.
        unit: of numbers.
        cyclic: each part as sine and cosine, so that 23 o'clock is next to 0.
        impute: what stands for a missing moment's parts.
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
