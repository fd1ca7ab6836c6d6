"""Decoding of image and audio files, to find damaged ones and to bring sound to the form that training decodes."""

from __future__ import annotations

import io
import struct
import warnings
from dataclasses import dataclass

import numpy as np

from kerasline.components.core.errors import one_line
from kerasline.components.data.media import Media, sniff, wav_chunks

# What `tf.io.decode_image` decodes. MPO is a JPEG with more pictures after the first, as cameras write it.
TRAINABLE_IMAGES = ("JPEG", "MPO", "PNG", "GIF", "BMP", "WEBP")
# The end of a PNG: the empty last chunk and its checksum. Pillow decodes files that lack it, TensorFlow refuses them.
_PNG_END = b"IEND\xaeB`\x82"
# The size of a WAV file's data that was streamed, so that the writer could not know it.
_STREAMED = 0xFFFFFFFF
_INT16_SCALE = 32768


class UndecodableError(Exception):
    """A file that training could not decode.

    Attributes:
        reason: what is wrong.
        advice: how to fix it.
    """

    def __init__(self, reason: str, advice: str = "obtain the file again") -> None:
        super().__init__(reason)
        self.reason, self.advice = reason, advice


def decode(content: bytes, form: SoundForm) -> tuple[Media, bytes, int | None]:
    """Return the kind of a file, its content in the form that training decodes, and the sampling rate of sound.

    Images are unchanged. Sound becomes a 16-bit WAV file, see `decode_sound`.

    Raises:
        UndecodableError: it is neither an image nor audio, or training could not decode it.
    """
    media = sniff(content)
    if media is None:
        raise UndecodableError("neither an image nor audio, or its header is damaged", "remove it")
    if media.kind == "image":
        check_image(content, media)
        return media, content, None
    return media, *decode_sound(content, form)


@dataclass(frozen=True)
class SoundForm:
    """The sampling rate and the number of channels of sound, each None if it may vary.

    Attributes:
        as_floats: whether sound becomes the bytes of its float32 samples, of one channel, instead of a 16-bit WAV file.
    """

    rate: int | None = None
    channels: int | None = None
    as_floats: bool = False

    def fits(self, rate: int, channels: int) -> bool:
        return self.rate in (None, rate) and self.channels in (None, channels) and not self.as_floats


def check_image(content: bytes, media: Media) -> None:
    """Decode an image.

    Raises:
        UndecodableError: it is damaged, or TensorFlow cannot decode its format.
    """
    from PIL import Image

    if media.format not in TRAINABLE_IMAGES:
        raise UndecodableError(f"{media.format} images cannot be decoded in training", "convert it to PNG or JPEG")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about decompression bombs, and of metadata that is not used
            with Image.open(io.BytesIO(content)) as image:
                image.verify()  # the checksums of a PNG
            with Image.open(io.BytesIO(content)) as image:
                image.draft(None, (1, 1))  # decodes all of a JPEG, but transforms less of it
                image.load()
                mode = image.mode
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError) as error:
        raise UndecodableError(f"damaged {media.format} image ({one_line(error)})") from error
    if media.format == "PNG" and _PNG_END not in content[-64:]:
        raise UndecodableError("damaged PNG image (its end is missing)")
    if media.format == "BMP":
        bits, compression = struct.unpack_from("<HI", content, 28)
        if mode not in ("L", "RGB", "RGBA") or bits not in (8, 24, 32) or compression not in (0, 3):
            raise UndecodableError(
                f"BMP images of {bits} bits per pixel, with a palette or compressed, cannot be decoded in training",
                "convert it to PNG",
            )


def decode_sound(content: bytes, form: SoundForm) -> tuple[bytes, int]:
    """Return a sound file as a 16-bit WAV file, which training decodes, and its sampling rate.

    A file that is one already, and has the form, is returned unchanged. If the form is of floats, their bytes are
    returned, of any size.

    Raises:
        UndecodableError: it is damaged, or does not fit 16-bit WAV or the form.
    """
    import soundfile

    if _missing_bytes(content):
        raise UndecodableError("damaged sound (the file ends early)")
    try:
        with soundfile.SoundFile(io.BytesIO(content)) as file:
            rate, frames, subtype = file.samplerate, file.frames, file.subtype
            samples = file.read(dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, ValueError, TypeError) as error:
        raise UndecodableError(f"damaged sound ({one_line(error)})") from error
    if not len(samples):
        raise UndecodableError("the sound has no samples")
    if len(samples) < frames:
        raise UndecodableError(f"damaged sound (the file ends after {len(samples)} of {frames} samples)")
    if subtype in ("FLOAT", "DOUBLE"):
        peak = float(np.abs(samples).max())
        if not peak <= (np.finfo(np.float32).max if form.as_floats else 1):  # also NaN
            raise UndecodableError(
                f"{'finite samples' if form.as_floats else 'samples from -1 to 1'} are expected in floating-point "
                f"sound, received up to {peak:.4g}",
                "scale the samples",
            )
    if form.fits(rate, samples.shape[1]) and _is_plain_wav(content):
        return content, rate
    return encode_sound(samples, rate, form), form.rate or rate


def encode_sound(samples: np.ndarray, rate: int, form: SoundForm) -> bytes:
    """Return samples, floats (frames, channels) from -1 to 1, as a 16-bit WAV file of the form, or as its floats.

    Raises:
        UndecodableError: they have several channels, and not those of the form.
    """
    import soundfile

    fitted = _resampled(_mixed(samples, 1 if form.as_floats else form.channels), rate, form.rate or rate)
    if form.as_floats:
        return fitted.astype(np.float32).tobytes()
    whole = np.clip(np.rint(fitted * _INT16_SCALE), -_INT16_SCALE, _INT16_SCALE - 1).astype(np.int16)
    stream = io.BytesIO()
    soundfile.write(stream, whole, form.rate or rate, format="WAV", subtype="PCM_16")
    return stream.getvalue()


def _mixed(samples: np.ndarray, channels: int | None) -> np.ndarray:
    """Return the samples (frames, channels) with another number of channels."""
    held = samples.shape[1]
    if channels in (None, held):
        return samples
    if channels == 1:
        return samples.mean(axis=1, keepdims=True)
    if held == 1:
        return np.repeat(samples, channels or 1, axis=1)
    raise UndecodableError(f"the sound has {held} channels, expected 1 or {channels}", "mix its channels")


def _resampled(samples: np.ndarray, rate: int, expected: int) -> np.ndarray:
    import soxr

    return samples if rate == expected else soxr.resample(samples, rate, expected)


def _missing_bytes(content: bytes) -> bool:
    """Return whether a WAV or AIFF file is shorter than its header says. libsndfile reads what there is."""
    if content[:4] == b"FORM":
        return struct.unpack_from(">I", content, 4)[0] + 8 > len(content)
    data = wav_chunks(content).get(b"data") if content[:4] == b"RIFF" else None
    return data is not None and data[1] != _STREAMED and sum(data) > len(content)


def _is_plain_wav(content: bytes) -> bool:
    """Return whether this is a WAV file that TensorFlow decodes: 16-bit PCM, without the extensions of its format."""
    if content[:4] != b"RIFF":
        return False
    chunks = wav_chunks(content)
    if b"fmt " not in chunks or b"data" not in chunks:
        return False
    at, size = chunks[b"fmt "]
    coding, _, _, _, _, bits = struct.unpack_from("<HHIIHH", content, at)
    return (coding, bits) == (1, 16) and size in (16, 18) and sum(chunks[b"data"]) <= len(content)
