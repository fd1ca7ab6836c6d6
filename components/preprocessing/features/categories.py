"""Categories: texts and whole numbers by a vocabulary or a hash, alone or crossed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from kerasline.components.preprocessing.features.base import Encoding, Feature, category_form, encoded

if TYPE_CHECKING:
    import keras
    import pyarrow as pa


@dataclass(frozen=True)
class Category(Feature):
    """Texts or whole numbers that name categories, by a vocabulary; lists of them too.

    Args:
        top: how many categories at most, the most frequent; None takes all.
        least: how often a category must occur.
        unknown: how many indices all others share.
        encode: `index`, `one_hot`, or for lists `multi_hot` or `count`.
    """

    top: int | None = None
    least: int = 1
    unknown: int = 1
    encode: Literal["index", "one_hot", "multi_hot", "count"] = "index"

    def input_form(self, name: str, kind: pa.DataType) -> tuple[str, tuple[int | None, ...]]:
        return category_form(self, name, kind)

    def output(self, name: str, *inputs: keras.KerasTensor) -> keras.KerasTensor:
        from kerasline.components.preprocessing.layers.categories import FrequencyLookup

        mode = "int" if self.encode == "index" else self.encode
        lookup = FrequencyLookup(
            max_tokens=self.top,
            min_count=self.least,
            hash_bins=self.unknown,
            output_mode=mode,
            name=f"{name}_index",
        )
        return lookup(*inputs)


@dataclass(frozen=True)
class Hashed(Feature):
    """Texts or whole numbers by a hash, without a vocabulary; 0 stands for a missing one."""

    buckets: int
    encode: Encoding = "index"

    def input_form(self, name: str, kind: pa.DataType) -> tuple[str, tuple[int | None, ...]]:
        return category_form(self, name, kind)

    def output(self, name: str, *inputs: keras.KerasTensor) -> keras.KerasTensor:
        return hashed(name, inputs[0], self.buckets, self.encode)


@dataclass(frozen=True)
class Cross(Feature):
    """Several columns as one category: their values joined, then hashed; 0 where one is missing."""

    of: list[str]
    buckets: int
    encode: Encoding = "index"

    def columns(self, name: str) -> list[str]:
        return list(self.of)

    def input_form(self, name: str, kind: pa.DataType) -> tuple[str, tuple[int | None, ...]]:
        return category_form(self, name, kind)

    def output(self, name: str, *inputs: keras.KerasTensor) -> keras.KerasTensor:
        from kerasline.components.preprocessing.layers import categories

        joined = categories.Cross(name=f"{name}_joined")(list(inputs))
        return hashed(name, joined, self.buckets, self.encode)


def hashed(name: str, tensor: keras.KerasTensor, buckets: int, encode: str) -> keras.KerasTensor:
    from keras import layers

    mask = "" if tensor.dtype == "string" else -1
    ids = layers.Hashing(buckets + 1, mask_value=mask, name=f"{name}_hash")(tensor)
    return encoded(ids, encode, buckets + 1)
