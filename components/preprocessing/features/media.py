"""Images and sound, encoded or not."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from kerasline.components.preprocessing.features.base import Feature, form_of

if TYPE_CHECKING:
    import keras
    import pyarrow as pa


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
    """Sound as a log-mel spectrogram: WAV files, or samples as a list of one length.

    Args:
        seconds: longer ones are cut, shorter filled up with silence.
        rate: samples a second, of the files.
        resample: to so many samples a second first.
        mels: how many bands.
    """

    seconds: float
    rate: int
    resample: int | None = None
    mels: int = 80

    def input_form(self, name: str, kind: pa.DataType) -> tuple[str, tuple[int | None, ...]]:
        return ("string", (1,)) if form_of(kind)[0] == "string" else ("float32", (round(self.seconds * self.rate),))

    def output(self, name: str, *inputs: keras.KerasTensor) -> keras.KerasTensor:
        from keras import layers

        from kerasline.components.preprocessing.layers.audio import AudioDecoding, Resampling

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
            name=f"{name}_log_mel",
        )
        return spectrogram(x)
