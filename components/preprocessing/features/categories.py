"""Categories: texts and integers by a vocabulary, a hash or the label, alone or crossed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Ge

from kerasline.components.preprocessing.features.base import Encoding, Feature, category_form, encoded

if TYPE_CHECKING:
    import keras
    import pyarrow as pa


# Mask of Hashing where no integer is missing; ids still begin at 1.
NO_INTEGER = -(2**63)


class _CategoryFeature(Feature):
    """Base of features of texts and integers."""

    def input_form(self, name: str, kind: pa.DataType) -> tuple[str, tuple[int | None, ...]]:
        return category_form(self, name, kind)


@dataclass(frozen=True)
class Category(_CategoryFeature):
    """Encodes texts or integers, or lists of them, by a vocabulary of the data.

    Args:
        top: int. Maximum size of the vocabulary, which holds the most frequent values. Defaults to None, unlimited.
        least: int. Minimum number of occurrences of a value of the vocabulary. Defaults to 1.
        unknown: int. Number of indices that all other values share. Defaults to 1.
        encode: `"index"` (0 for a missing value), `"one_hot"`, or for lists `"multi_hot"` or `"count"`. Defaults to
            `"index"`.
        may_be_missing: bool. Whether -1 in integers means a missing value. If `False`, it is an ordinary integer.
            Defaults to `True`.
        sample_weight: str. The column with the weight of each row, which is added instead of 1. Defaults to None.
        order: `"count"`, `"mutual_information"` or `"adjusted_mutual_information"` with the label: which values come
            first, see `kerasline.layers.FrequencyLookup`. Defaults to `"count"`.
        label: str. The label for `order` if Transform learns several.
        column: str. The column, if it has another name than the feature.

    Example:

    >>> data = kl.InMemoryExampleGen({"company": ["a", "b", "a", None]}, splits={"train": 1})
    >>> transform = kl.Transform(data.execute(folder / "a").examples, features={"company": kl.features.Category()})
    >>> model = transform.execute(folder / "b").preprocessing.load()
    >>> model({"company": np.array([["a"], ["b"], ["new"], [""]])})["company"].numpy().tolist()
    [[2], [3], [1], [0]]
    """

    top: int | None = None
    least: int = 1
    unknown: int = 1
    encode: Literal["index", "one_hot", "multi_hot", "count"] = "index"
    may_be_missing: bool = True
    sample_weight: str | None = None
    order: Literal["count", "mutual_information", "adjusted_mutual_information"] = "count"
    label: str | None = None

    def output(self, name: str, *inputs: keras.KerasTensor) -> keras.KerasTensor:
        from kerasline.components.preprocessing.layers.categories import FrequencyLookup

        lookup = FrequencyLookup(
            max_tokens=self.top,
            min_count=self.least,
            hash_bins=self.unknown,
            output_mode="int" if self.encode == "index" else self.encode,
            may_be_missing=self.may_be_missing,
            sample_weight=self.sample_weight,
            order=self.order,
            label=self.label,
            name=f"{name}_index",
        )
        return lookup(*inputs)


@dataclass(frozen=True)
class TargetEncoded(_CategoryFeature):
    """Encodes texts or integers by the mean of the label of each category, out-of-fold in training.

    See `kerasline.layers.TargetEncoding` for the formulas, and for how training avoids leaking the label. Transform
    needs `label`.

    Args:
        smooth: `"auto"` (empirical Bayes), or a number from 0. The larger, the closer are small categories to the
            overall mean. Defaults to `"auto"`.
        folds: int, at least 2. Number of folds. Defaults to 5.
        target_type: `"numeric"`, or `"multiclass"` for a column for each class. Defaults to `"numeric"`.
        label: str. The label to encode by if Transform learns several.
        may_be_missing: bool. Whether -1 in integers means a missing value. If `False`, it is an ordinary integer.
            Defaults to `True`.
        column: str. The column, if it has another name than the feature.

    Example:

    >>> data = kl.InMemoryExampleGen({"company": ["a", "a", "b", "b"], "tip": [1, 1, 0, 1]}, splits={"train": 1})
    >>> features = {"company": kl.features.TargetEncoded(smooth=0)}
    >>> transform = kl.Transform(data.execute(folder / "a").examples, features=features, label="tip")
    >>> model = transform.execute(folder / "b").preprocessing.load()
    >>> model({"company": np.array([["a"], ["b"], ["new"]])})["company"].numpy().tolist()
    [[1.0], [0.5], [0.75]]
    """

    smooth: Literal["auto"] | Annotated[float, Ge(0)] = "auto"
    folds: Annotated[int, Ge(2)] = 5
    target_type: Literal["numeric", "multiclass"] = "numeric"
    label: str | None = None
    may_be_missing: bool = True

    def output(self, name: str, *inputs: keras.KerasTensor) -> keras.KerasTensor:
        from kerasline.components.preprocessing.layers.target_encoding import TargetEncoding

        encoding = TargetEncoding(
            self.smooth,
            self.folds,
            self.target_type,
            self.label,
            may_be_missing=self.may_be_missing,
            name=f"{name}_target",
        )
        return encoding(*inputs)


@dataclass(frozen=True)
class Hashed(_CategoryFeature):
    """Maps texts or integers to buckets by a hash, without a vocabulary.

    Args:
        buckets: int. Number of buckets, numbered from 1. 0 is a missing value.
        encode: `"index"`, `"one_hot"`, or for lists `"multi_hot"`. Defaults to `"index"`.
        may_be_missing: bool. Whether -1 in integers means a missing value. If `False`, it is an ordinary integer.
            Defaults to `True`.
        column: str. The column, if it has another name than the feature.

    Example:

    >>> data = kl.InMemoryExampleGen({"company": ["a", "b"]}, splits={"train": 1})
    >>> transform = kl.Transform(data.execute(folder / "a").examples, features={"company": kl.features.Hashed(10)})
    >>> model = transform.execute(folder / "b").preprocessing.load()
    >>> model({"company": np.array([["a"], ["b"], [""]])})["company"].numpy().tolist()
    [[10], [3], [0]]
    """

    buckets: int
    encode: Encoding = "index"
    may_be_missing: bool = True

    def output(self, name: str, *inputs: keras.KerasTensor) -> keras.KerasTensor:
        return hashed(name, inputs[0], self.buckets, self.encode, self.may_be_missing)


@dataclass(frozen=True)
class Cross(_CategoryFeature):
    """Combines several columns into one category: joins their values and hashes the result.

    Args:
        of: list of str. The columns.
        buckets: int. Number of buckets, numbered from 1. 0 is a missing value in one of the columns.
        encode: `"index"` or `"one_hot"`. Defaults to `"index"`.
        may_be_missing: bool. Whether -1 in integers means a missing value. If `False`, it is an ordinary integer.
            Defaults to `True`.

    Example:

    >>> data = kl.InMemoryExampleGen({"day": ["mon", "tue"], "hour": [1, 2]}, splits={"train": 1})
    >>> features = {"time": kl.features.Cross(["day", "hour"], buckets=100)}
    >>> transform = kl.Transform(data.execute(folder / "a").examples, features=features)
    >>> model = transform.execute(folder / "b").preprocessing.load()
    >>> model({"day": np.array([["mon"], [""]]), "hour": np.array([[1], [1]])})["time"].numpy().tolist()
    [[38], [0]]
    """

    of: list[str]
    buckets: int
    encode: Encoding = "index"
    may_be_missing: bool = True

    def columns(self, name: str) -> list[str]:
        return list(self.of)

    def output(self, name: str, *inputs: keras.KerasTensor) -> keras.KerasTensor:
        from kerasline.components.preprocessing.layers import categories

        joined = categories.Cross(may_be_missing=self.may_be_missing, name=f"{name}_joined")(list(inputs))
        return hashed(name, joined, self.buckets, self.encode)


def hashed(
    name: str, tensor: keras.KerasTensor, buckets: int, encode: str, may_be_missing: bool = True
) -> keras.KerasTensor:
    """Return the bucket of each category, from 1; 0 for a missing one."""
    from keras import layers

    mask = "" if tensor.dtype == "string" else -1 if may_be_missing else NO_INTEGER
    hashing = layers.Hashing(buckets + 1, mask_value=mask, name=f"{name}_hash")
    hashing.may_be_missing = may_be_missing  # for `complete_inputs`
    return encoded(hashing(tensor), encode, buckets + 1)
