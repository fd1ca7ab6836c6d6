"""Images and sound, encoded or decoded."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from kerasline.components.preprocessing.features.base import Feature, form_of

if TYPE_CHECKING:
    import keras
    import pyarrow as pa


@dataclass(frozen=True)
class Image(Feature):
    """Decodes (PNG, JPEG, BMP, GIF) and resizes images, and scales pixels from 0..255 to 0..1.

    Args:
        size: tuple of two ints. Height and width.
        channels: 1 for grey, 3 for color. Defaults to 3.
        augment: list of random changes in training: `"flip"` (left to right), `"rotate"`, `"shift"`, `"zoom"`,
            `"contrast"`, `"brightness"`. Defaults to none.
        column: str. The column, if it has another name than the feature.

    Example:

    >>> import tensorflow as tf
    >>> png = tf.io.encode_png(np.full((2, 2, 1), 51, "uint8")).numpy()
    >>> data = kl.InMemoryExampleGen({"photo": [png]}, splits={"train": 1})
    >>> features = {"photo": kl.features.Image((2, 2), channels=1)}
    >>> model = kl.Transform(data.execute(folder / "a").examples, features=features)
    >>> model = model.execute(folder / "b").preprocessing.load()
    >>> print(model({"photo": tf.constant([[png]])})["photo"].numpy().round(2).reshape(2, 2))
    [[0.2 0.2]
     [0.2 0.2]]
    """

    size: tuple[int, int]
    channels: Literal[1, 3, 4] = 3
    augment: list[Literal["flip", "rotate", "shift", "zoom", "contrast", "brightness"]] = field(default_factory=list)

    def input_form(self, name: str, kind: pa.DataType) -> tuple[str, tuple[int | None, ...]]:
        form = form_of(kind)
        return ("string", (1,)) if form[0] == "string" else ("uint8", (*form[1], 1)[:3])

    def output(self, name: str, *inputs: keras.KerasTensor) -> keras.KerasTensor:
        import keras
        from keras import layers

        from kerasline.components.preprocessing.layers.image import ImageDecoding

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
    """Computes log-mel spectrograms of sound: WAV files, or lists of samples of one length.

    Args:
        seconds: float. Length. Longer files are cut, shorter ones padded with silence.
        rate: int. The files' sampling rate, in samples per second.
        resample: int. Resample to this rate first. Defaults to None.
        mels: int. Number of mel bands. Defaults to 80.
        column: str. The column, if it has another name than the feature.

    Example:

    >>> data = kl.InMemoryExampleGen({"sound": [[0.0] * 800]}, splits={"train": 1})
    >>> features = {"sound": kl.features.Audio(seconds=0.1, rate=8000, mels=20)}
    >>> model = kl.Transform(data.execute(folder / "a").examples, features=features)
    >>> model.execute(folder / "b").preprocessing.load().output["sound"].shape
    (None, 20, 11)
    """

    seconds: float
    rate: int
    resample: int | None = None
    mels: int = 80

    def input_form(self, name: str, kind: pa.DataType) -> tuple[str, tuple[int | None, ...]]:
        return ("string", (1,)) if form_of(kind)[0] == "string" else ("float32", (round(self.seconds * self.rate),))

    def output(self, name: str, *inputs: keras.KerasTensor) -> keras.KerasTensor:
        from keras import layers

        from kerasline.components.preprocessing.layers.audio import AudioDecoding, PowerToDecibels, Resampling

        (x,) = inputs
        if x.dtype == "string":
            x = AudioDecoding(round(self.seconds * self.rate), self.rate, name=f"{name}_samples")(x)
        rate = self.resample or self.rate
        x = x if rate == self.rate else Resampling(self.rate, rate, name=f"{name}_resampled")(x)
        spectrogram = layers.MelSpectrogram(
            fft_length=1 << (rate // 40).bit_length(),
            sequence_stride=rate // 100,
            sequence_length=rate // 40,
            sampling_rate=rate,
            num_mel_bins=self.mels,
            max_freq=rate / 2,
            power_to_db=False,
            name=f"{name}_mel",
        )
        return PowerToDecibels(name=f"{name}_log_mel")(spectrogram(x))
