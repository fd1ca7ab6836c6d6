"""What becomes of a column, in one line: for `Transform(features={...})`.

Each key is the name of a model input, and of the column that it is made of unless `column` says
otherwise::

    Transform(examples, label="tips", features={
        "fare": Number(),                                # z-scores, a missing one at the mean
        "miles": Number(scale="robust", clip=(0.01, 0.99)),
        "latitude": Buckets(10, encode="one_hot"),
        "company": Category(top=1000, unknown=10),
        "review": Text(encode="tf_idf", top=5000),
        "started": DateTime(["hour", "weekday"], cyclic=True),
        "place": Cross(["company", "payment_type"], buckets=500),
        "photo": Image((64, 64), augment=["flip", "rotate"]),
    })

These are plain values: importing this module imports no Keras. `preprocessing_model` makes Keras layers
of them, those of Keras and of `components.layers`.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Optional, Union

from components.base import parse_value
from components.errors import DataError, nearest

if TYPE_CHECKING:
    import keras
    import pyarrow as pa

Encoding = Literal["index", "one_hot", "multi_hot"]


@dataclass(frozen=True)
class Feature:
    """Base of all. A subclass says what layers its columns go through.

    Raises:
        ParameterError: an argument is of the wrong kind; names it, what was given and what is wanted.
    """

    column: Optional[str] = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for one in dataclasses.fields(self):
            where = f"{type(self).__name__}.{one.name}"
            object.__setattr__(self, one.name, parse_value(where, hints[one.name], getattr(self, one.name)))

    def columns(self, name: str) -> list[str]:
        """The columns that the feature of this name is made of."""
        return [self.column or name]

    def input_form(self, name: str, kind: pa.DataType) -> tuple[str, tuple[int | None, ...]]:
        """The dtype and shape of the input for a column of this Arrow type.

        Raises:
            DataError: the feature is not for such columns.
        """
        return _number_form(self, name, kind)

    def output(self, name: str, *inputs: keras.KerasTensor) -> keras.KerasTensor:
        """The model input that becomes of the columns' inputs."""
        raise NotImplementedError


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

    scale: Optional[Literal["z_score", "min_max", "robust", "log", "uniform", "normal"]] = "z_score"
    impute: Union[Literal["mean", "median", "most_frequent"], float, None] = "mean"
    clip: Optional[tuple[float, float]] = None
    indicator: bool = False

    def output(self, name: str, *inputs: keras.KerasTensor) -> keras.KerasTensor:
        import keras

        from components.layers import missing, scaling

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

    bins: Union[int, list[float]] = 10
    encode: Encoding = "index"

    def output(self, name: str, *inputs: keras.KerasTensor) -> keras.KerasTensor:
        from components.layers.buckets import BucketIds

        given = isinstance(self.bins, list)
        options = {"boundaries": self.bins} if given else {"bins": self.bins}
        ids = BucketIds(**options, name=f"{name}_bucket")(*inputs)
        return _encoded(ids, self.encode, (len(self.bins) + 1 if given else self.bins) + 1)


@dataclass(frozen=True)
class Category(Feature):
    """Texts or whole numbers that name categories, by a vocabulary; lists of them too.

    Args:
        top: how many categories at most, the most frequent; None takes all.
        least: how often a category must occur.
        unknown: how many indices all others share.
        encode: `index`, `one_hot`, or for lists `multi_hot` or `count`.
    """

    top: Optional[int] = None
    least: int = 1
    unknown: int = 1
    encode: Literal["index", "one_hot", "multi_hot", "count"] = "index"

    def input_form(self, name: str, kind: pa.DataType) -> tuple[str, tuple[int | None, ...]]:
        return _category_form(self, name, kind)

    def output(self, name: str, *inputs: keras.KerasTensor) -> keras.KerasTensor:
        from components.layers.categories import FrequencyLookup

        mode = "int" if self.encode == "index" else self.encode
        lookup = FrequencyLookup(
            max_tokens=self.top, min_count=self.least, hash_bins=self.unknown, output_mode=mode,
            name=f"{name}_index",
        )  # fmt: skip
        return lookup(*inputs)


@dataclass(frozen=True)
class Hashed(Feature):
    """Texts or whole numbers by a hash, without a vocabulary; 0 stands for a missing one."""

    buckets: int
    encode: Encoding = "index"

    def input_form(self, name: str, kind: pa.DataType) -> tuple[str, tuple[int | None, ...]]:
        return _category_form(self, name, kind)

    def output(self, name: str, *inputs: keras.KerasTensor) -> keras.KerasTensor:
        return _hashed(name, inputs[0], self.buckets, self.encode)


@dataclass(frozen=True)
class Cross(Feature):
    """Several columns as one category: their values joined, then hashed; 0 where one is missing."""

    of: list[str]
    buckets: int
    encode: Encoding = "index"

    def columns(self, name: str) -> list[str]:
        return list(self.of)

    def input_form(self, name: str, kind: pa.DataType) -> tuple[str, tuple[int | None, ...]]:
        return _category_form(self, name, kind)

    def output(self, name: str, *inputs: keras.KerasTensor) -> keras.KerasTensor:
        from components.layers import categories

        joined = categories.Cross(name=f"{name}_joined")(list(inputs))
        return _hashed(name, joined, self.buckets, self.encode)


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
    top: Optional[int] = None
    length: int = 128
    ngrams: int = 1
    least: int = 1

    def input_form(self, name: str, kind: pa.DataType) -> tuple[str, tuple[int | None, ...]]:
        return "string", (1,)

    def output(self, name: str, *inputs: keras.KerasTensor) -> keras.KerasTensor:
        import keras

        from components.layers.text import BagOfWords, TfIdf

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
        parts: among those of `components.layers.DateTimeParts`.
        unit: of numbers.
        cyclic: each part as sine and cosine, so that 23 o'clock is next to 0.
        impute: what stands for a missing moment's parts.
    """

    parts: list[str] = field(default_factory=lambda: ["month", "day", "weekday", "hour"])
    unit: Literal["s", "ms", "us", "ns", "days"] = "s"
    cyclic: bool = False
    impute: Optional[float] = 0.0

    def input_form(self, name: str, kind: pa.DataType) -> tuple[str, tuple[int | None, ...]]:
        return _category_form(self, name, kind)

    def output(self, name: str, *inputs: keras.KerasTensor) -> keras.KerasTensor:
        from components.layers.date_time import DateTimeParts
        from components.layers.missing import Imputation

        source = "iso" if inputs[0].dtype == "string" else self.unit
        x = DateTimeParts(self.parts, source=source, cyclic=self.cyclic, name=f"{name}_parts")(*inputs)
        return x if self.impute is None else Imputation("constant", fill_value=self.impute)(x)


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
        from components.layers.projection import PrincipalComponents

        return PrincipalComponents(self.number, whiten=self.whiten, name=f"{name}_components")(*inputs)


@dataclass(frozen=True)
class Image(Feature):
    """Images, encoded (PNG, JPEG, BMP, GIF) or as pixels, from 0..255 to 0..1.

    Args:
        size: height and width.
        channels: 1 for grey, 3 for colour.
        augment: what is done at random in training alone: `flip` (left to right), `rotate`, `shift`,
            `zoom`, `contrast`, `brightness`.
    """

    size: tuple[int, int]
    channels: int = 3
    augment: list[Literal["flip", "rotate", "shift", "zoom", "contrast", "brightness"]] = field(
        default_factory=list
    )

    def input_form(self, name: str, kind: pa.DataType) -> tuple[str, tuple[int | None, ...]]:
        form = _form(kind)
        return ("string", (1,)) if form[0] == "string" else ("uint8", (*form[1], 1)[:3])

    def output(self, name: str, *inputs: keras.KerasTensor) -> keras.KerasTensor:
        import keras
        from keras import layers

        from components.layers.image import ImageDecoding

        (x,) = inputs
        if x.dtype == "string":
            x = ImageDecoding(self.size, channels=self.channels, name=f"{name}_pixels")(x)
        elif tuple(x.shape[1:3]) != tuple(self.size):
            x = layers.Resizing(*self.size, name=f"{name}_resized")(x)
        x = layers.Rescaling(1 / 255, name=f"{name}_scaled")(x)
        random = {
            "flip": lambda: layers.RandomFlip("horizontal"),
            "rotate": lambda: layers.RandomRotation(0.05),
            "shift": lambda: layers.RandomTranslation(0.1, 0.1),
            "zoom": lambda: layers.RandomZoom(0.1),
            "contrast": lambda: layers.RandomContrast(0.2, value_range=(0, 1)),
            "brightness": lambda: layers.RandomBrightness(0.2, value_range=(0, 1)),
        }
        for change in self.augment:
            x = random[change]()(x)
        return keras.ops.clip(x, 0.0, 1.0) if self.augment else x


@dataclass(frozen=True)
class Audio(Feature):
    """Sound as a log-mel spectrogram: WAV files, or samples as a list of one length.

    Args:
        seconds: longer ones are cut, shorter filled up with silence.
        rate: samples a second, of the files.
        resample: to so many samples a second first.
        mels: how many bands.
    """

    seconds: float
    rate: int
    resample: Optional[int] = None
    mels: int = 80

    def input_form(self, name: str, kind: pa.DataType) -> tuple[str, tuple[int | None, ...]]:
        return (
            ("string", (1,))
            if _form(kind)[0] == "string"
            else ("float32", (round(self.seconds * self.rate),))
        )

    def output(self, name: str, *inputs: keras.KerasTensor) -> keras.KerasTensor:
        from keras import layers

        from components.layers.audio import AudioDecoding, Resampling

        (x,) = inputs
        if x.dtype == "string":
            x = AudioDecoding(round(self.seconds * self.rate), self.rate, name=f"{name}_samples")(x)
        rate = self.resample or self.rate
        x = x if rate == self.rate else Resampling(self.rate, rate, name=f"{name}_resampled")(x)
        spectrogram = layers.MelSpectrogram(
            fft_length=1 << (rate // 40).bit_length(), sequence_stride=rate // 100, sequence_length=rate // 40,
            sampling_rate=rate, num_mel_bins=self.mels, max_freq=rate / 2, name=f"{name}_log_mel",
        )  # fmt: skip
        return spectrogram(x)


@dataclass(frozen=True)
class AsIs(Feature):
    """A number, or numbers, as they are, a missing one NaN."""

    def output(self, name: str, *inputs: keras.KerasTensor) -> keras.KerasTensor:
        from keras import layers

        return layers.Identity(name=f"{name}_as_is")(*inputs)


def preprocessing_model(features: Mapping[str, Feature], schema: pa.Schema) -> keras.Model:
    """The functional model, not yet adapted, that the specifications amount to.

    Args:
        features: by the name of the model input.
        schema: of the data, whose types decide the inputs' dtypes and shapes.

    Raises:
        DataError: a column is not in the data, or of a kind that its feature is not for.
    """
    import keras

    inputs: dict[str, keras.KerasTensor] = {}
    outputs: dict[str, keras.KerasTensor] = {}
    for name, feature in features.items():
        forms = {}
        for column in feature.columns(name):
            if column not in schema.names:
                raise DataError(f"Transform.features: the data has no column {column!r}, which {name!r} wants; "
                                f"{nearest(column, schema.names)}")  # fmt: skip
            forms[column] = feature.input_form(column, schema.field(column).type)
        taken = [_input(inputs, column, *form) for column, form in forms.items()]
        outputs[name] = feature.output(name, *taken)
    return keras.Model({name: inputs[name] for name in inputs}, outputs)


def _input(
    inputs: dict[str, keras.KerasTensor], column: str, dtype: str, shape: tuple[int | None, ...]
) -> keras.KerasTensor:
    """The column's input; one for all features that take it, in the form that the first takes."""
    import keras

    if column not in inputs:
        inputs[column] = keras.Input(shape, name=column, dtype=dtype)
    held = inputs[column]
    if (held.dtype, tuple(held.shape[1:])) == (dtype, shape):
        return held
    if "string" not in (held.dtype, dtype) and tuple(held.shape[1:]) == shape:
        return keras.ops.cast(held, dtype)
    raise DataError(
        f"Transform.features: column {column!r} is taken both as {held.dtype} {tuple(held.shape[1:])} and "
        f"as {dtype} {shape}; make one model input of it, or write a function"
    )


def _form(kind: pa.DataType) -> tuple[str, tuple[int | None, ...]]:
    """The dtype, as far as it matters here, and the shape of a column of this type."""
    import pyarrow as pa

    from components.columnar.unify import is_list

    if isinstance(kind, pa.FixedShapeTensorType):
        return _form(kind.value_type)[0], tuple(kind.shape)
    if is_list(kind):
        size = kind.list_size if pa.types.is_fixed_size_list(kind) else None
        return _form(kind.value_type)[0], (size,)
    if pa.types.is_floating(kind):
        return "float32", (1,)
    return ("int64" if pa.types.is_integer(kind) or pa.types.is_boolean(kind) else "string"), (1,)


def _number_form(feature: Feature, column: str, kind: pa.DataType) -> tuple[str, tuple[int | None, ...]]:
    import pyarrow as pa

    dtype, shape = _form(kind)
    if dtype == "string" and not pa.types.is_null(kind):
        raise DataError(
            f"Transform.features: column {column!r} holds {kind}, {type(feature).__name__} takes numbers"
        )
    return "float32", shape


def _category_form(feature: Feature, column: str, kind: pa.DataType) -> tuple[str, tuple[int | None, ...]]:
    dtype, shape = _form(kind)
    if dtype == "float32":
        raise DataError(
            f"Transform.features: column {column!r} holds {kind}, {type(feature).__name__} takes texts or "
            "whole numbers; Number and Buckets take fractions"
        )
    return dtype, shape


def _hashed(name: str, tensor: keras.KerasTensor, buckets: int, encode: str) -> keras.KerasTensor:
    from keras import layers

    mask = "" if tensor.dtype == "string" else -1
    ids = layers.Hashing(buckets + 1, mask_value=mask, name=f"{name}_hash")(tensor)
    return _encoded(ids, encode, buckets + 1)


def _encoded(ids: keras.KerasTensor, encode: str, number: int) -> keras.KerasTensor:
    from keras import layers

    if encode == "index":
        return ids
    return layers.CategoryEncoding(num_tokens=number, output_mode=encode)(ids)
