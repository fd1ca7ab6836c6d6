"""Numbers: scaled, in buckets, by their principal components, or as they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from kerasline.components.preprocessing.features.base import Encoding, Feature, encoded

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Number(Feature):
    """Numbers on one scale.

    Args:
        scale: `z_score`, `min_max` (0 to 1), `robust` (median and quartiles), `log` (signed log1p),
            `uniform` or `normal` (by quantiles); None leaves them.
        impute: what a missing number becomes, after scaling: the `mean`, `median` or `most_frequent` of
            the scaled numbers, or a number; None leaves it NaN.
        clip: lower and upper quantile beyond which numbers are cut off, before scaling.
        indicator: adds a column that is 1 where the number is missing.
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
        if self.scale == "z_score" and self.impute == "mean":  # known without another pass
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
    """Numbers by their rank: 0 for a missing one, 1 to `bins` for as many buckets of equal size.

    Args:
        bins: how many; or the boundaries between them, in ascending order.
    """

    bins: int | list[float] = 10
    encode: Encoding = "index"

    def output(self, name: str, *inputs: keras.KerasTensor) -> keras.KerasTensor:
        from kerasline.components.preprocessing.layers.buckets import BucketIds

        given = isinstance(self.bins, list)
        options = {"boundaries": self.bins} if given else {"bins": self.bins}
        ids = BucketIds(**options, name=f"{name}_bucket")(*inputs)
        return encoded(ids, self.encode, (len(self.bins) + 1 if given else self.bins) + 1)


@dataclass(frozen=True)
class Components(Feature):
    """Vectors by their principal components.

    Args:
        number: how many.
        whiten: gives each component variance 1.
    """

    number: int
    whiten: bool = False

    def output(self, name: str, *inputs: keras.KerasTensor) -> keras.KerasTensor:
        from kerasline.components.preprocessing.layers.projection import PrincipalComponents

        return PrincipalComponents(self.number, whiten=self.whiten, name=f"{name}_components")(*inputs)


@dataclass(frozen=True)
class AsIs(Feature):
    """A number, or numbers, as they are, a missing one NaN."""

    def output(self, name: str, *inputs: keras.KerasTensor) -> keras.KerasTensor:
        from keras import layers

        return layers.Identity(name=f"{name}_as_is")(*inputs)
