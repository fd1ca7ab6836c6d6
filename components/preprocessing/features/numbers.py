"""Numbers: scaled, in buckets, as principal components, or unchanged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from kerasline.components.preprocessing.features.base import Encoding, Feature, encoded, number_form

if TYPE_CHECKING:
    import keras
    import pyarrow as pa


@dataclass(frozen=True)
class Number(Feature):
    """Scales numbers and fills missing ones.

    Args:
        scale: `"z_score"`, `"min_max"` (0 to 1), `"robust"` (median and quartiles), `"log"` (signed log1p),
            `"uniform"` or `"normal"` (by quantiles), or None to leave the scale. Defaults to `"z_score"`.
        impute: replacement for a missing number after scaling: `"mean"`, `"median"` or `"most_frequent"` of the scaled
            numbers, or a number. None leaves NaN. Defaults to `"mean"`.
        clip: tuple of two quantiles to clip numbers to before scaling. Defaults to None, no clipping.
        indicator: bool. Add a column that is 1 where the number is missing. Defaults to `False`.
        column: str. The column, if it has another name than the feature.

    Example:

    >>> data = kl.InMemoryExampleGen({"fare": [1.0, 3.0]}, splits={"train": 1})
    >>> features = {"fare": kl.features.Number()}
    >>> model = kl.Transform(data.execute(folder / "a").examples, features=features)
    >>> model = model.execute(folder / "b").preprocessing.load()
    >>> model({"fare": np.array([[3.0], [np.nan]])})["fare"].numpy().tolist()
    [[1.0], [0.0]]
    """

    scale: Literal["z_score", "min_max", "robust", "log", "uniform", "normal"] | None = "z_score"
    impute: Literal["mean", "median", "most_frequent"] | float | None = "mean"
    clip: tuple[float, float] | None = None
    indicator: bool = False

    def output(self, name: str, *inputs: keras.KerasTensor) -> keras.KerasTensor:
        import keras

        from kerasline.components.preprocessing.layers import missing, scaling

        (raw,) = inputs
        scalers = {
            "z_score": keras.layers.Normalization,
            "min_max": scaling.MinMaxScaling,
            "robust": scaling.RobustScaling,
            "log": scaling.SignedLog1p,
            "uniform": scaling.QuantileTransform,
            "normal": lambda name: scaling.QuantileTransform(output="normal", name=name),
        }
        x = raw if self.clip is None else scaling.QuantileClipping(*self.clip, name=f"{name}_clipped")(raw)
        x = x if self.scale is None else scalers[self.scale](name=f"{name}_scaled")(x)
        if self.scale == "z_score" and self.impute == "mean":  # 0, known without another pass
            x = missing.Imputation("constant", fill_value=0.0, name=f"{name}_filled")(x)
        elif isinstance(self.impute, str):
            x = missing.Imputation(self.impute, name=f"{name}_filled")(x)
        elif self.impute is not None:
            x = missing.Imputation("constant", fill_value=self.impute, name=f"{name}_filled")(x)
        if not self.indicator:
            return x
        return keras.layers.Concatenate(name=f"{name}_and_missing")([x, missing.MissingIndicator()(raw)])


@dataclass(frozen=True)
class Buckets(Feature):
    """Maps numbers to buckets that hold equal shares of the data. 0 is a missing number.

    Args:
        bins: int, the number of buckets, or list of floats, the ascending boundaries between them. Defaults to 10.
        encode: `"index"`, `"one_hot"`, or for lists `"multi_hot"`. Defaults to `"index"`.
        sample_weight: str. The column with the weight of each row: buckets then hold equal shares of the weight.
            Defaults to None, equal weights.
        column: str. The column, if it has another name than the feature.

    Example:

    >>> data = kl.InMemoryExampleGen({"fare": [1.0, 2.0, 3.0, 4.0]}, splits={"train": 1})
    >>> features = {"fare": kl.features.Buckets(2)}
    >>> model = kl.Transform(data.execute(folder / "a").examples, features=features)
    >>> model = model.execute(folder / "b").preprocessing.load()
    >>> model({"fare": np.array([[1.5], [9.0], [np.nan]])})["fare"].numpy().tolist()
    [[1], [2], [0]]
    """

    bins: int | list[float] = 10
    encode: Encoding = "index"
    sample_weight: str | None = None

    def input_form(self, name: str, kind: pa.DataType) -> tuple[str, tuple[int | None, ...]]:
        import pyarrow as pa

        dtype, shape = number_form(self, name, kind)
        return ("float64" if pa.types.is_integer(kind) else dtype), shape  # float32 joins integers from 2**24 on

    def output(self, name: str, *inputs: keras.KerasTensor) -> keras.KerasTensor:
        from kerasline.components.preprocessing.layers.buckets import BucketIds

        if isinstance(self.bins, list):
            layer, number = BucketIds(boundaries=self.bins, name=f"{name}_bucket"), len(self.bins) + 1
        else:
            layer, number = BucketIds(self.bins, sample_weight=self.sample_weight, name=f"{name}_bucket"), self.bins
        return encoded(layer(*inputs), self.encode, number + 1)


@dataclass(frozen=True)
class Components(Feature):
    """Projects vectors onto their principal components.

    Args:
        number: int. Number of components.
        whiten: bool. Scale each component to variance 1. Defaults to `False`.
        column: str. The column, if it has another name than the feature.

    Example:

    >>> import pyarrow as pa
    >>> places = pa.FixedShapeTensorArray.from_numpy_ndarray(np.array([[-1.0, 0.0], [1.0, 0.0], [3.0, 0.0]]))
    >>> data = kl.InMemoryExampleGen({"at": places}, splits={"train": 1})
    >>> features = {"at": kl.features.Components(1)}
    >>> model = kl.Transform(data.execute(folder / "a").examples, features=features)
    >>> model = model.execute(folder / "b").preprocessing.load()
    >>> model({"at": np.array([[2.0, 5.0]])})["at"].numpy().tolist()
    [[1.0]]
    """

    number: int
    whiten: bool = False

    def output(self, name: str, *inputs: keras.KerasTensor) -> keras.KerasTensor:
        from kerasline.components.preprocessing.layers.projection import PrincipalComponents

        return PrincipalComponents(self.number, whiten=self.whiten, name=f"{name}_components")(*inputs)


@dataclass(frozen=True)
class AsIs(Feature):
    """Passes numbers on unchanged. A missing one is NaN.

    Args:
        column: str. The column, if it has another name than the feature.

    Example:

    >>> data = kl.InMemoryExampleGen({"fare": [1.0]}, splits={"train": 1})
    >>> features = {"fare": kl.features.AsIs()}
    >>> model = kl.Transform(data.execute(folder / "a").examples, features=features)
    >>> model = model.execute(folder / "b").preprocessing.load()
    >>> model({"fare": np.array([[2.5]])})["fare"].numpy().tolist()
    [[2.5]]
    """

    def output(self, name: str, *inputs: keras.KerasTensor) -> keras.KerasTensor:
        from keras import layers

        return layers.Identity(name=f"{name}_as_is")(*inputs)
