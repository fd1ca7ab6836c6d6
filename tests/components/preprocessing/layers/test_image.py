"""Images decoded in the graph, compared with Pillow."""

import io

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from kerasline.components.preprocessing.layers.image import ImageDecoding
from tests.components.preprocessing.layers.round_trip import round_trips

RANDOM = np.random.default_rng(2)
SMOOTH = np.asarray(Image.fromarray(RANDOM.integers(0, 256, (4, 5, 3), "uint8")).resize((40, 30), Image.BICUBIC))


def encoded(pixels, kind="PNG"):
    buffer = io.BytesIO()
    Image.fromarray(pixels.squeeze()).save(buffer, kind)
    return buffer.getvalue()


def column(*files):
    return np.array([[file] for file in files], object)


@pytest.mark.parametrize("rows", [1, 15, 16, 33])
@pytest.mark.parametrize("channels", [1, 3])
def test_image_of_the_target_size_keeps_its_pixels(rows, channels):
    pixels = RANDOM.integers(0, 256, (rows, 7, 9, channels), "uint8")
    files = column(*map(encoded, pixels))
    np.testing.assert_array_equal(ImageDecoding((7, 9), channels)(files), pixels)
    np.testing.assert_array_equal(ImageDecoding((7, 9), channels)(files[:, 0]), pixels)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("options", [{}, {"icc_profile": b"x" * 200}])
def test_photograph_is_turned_as_its_metadata_say(kind, options):
    for orientation in range(10):  # 0 and 9 do not exist
        exif = Image.Exif()
        exif[0x010F], exif[0x0112] = "a camera", orientation
        buffer = io.BytesIO()
        Image.fromarray(SMOOTH).save(buffer, kind, exif=exif, **options)
        expected = np.asarray(ImageOps.exif_transpose(Image.open(buffer)).convert("RGB"))
        ours = ImageDecoding(expected.shape[:2])(column(buffer.getvalue())).numpy()[0]
        assert np.abs(ours.astype(int) - expected).max() <= 3, orientation  # two implementations of JPEG


def test_damaged_metadata_leave_an_image_as_it_is():
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.fromarray(SMOOTH).save(buffer, "JPEG", exif=exif)
    whole = buffer.getvalue()
    for at in range(whole.index(b"Exif"), whole.index(b"Exif") + 30):
        damaged = whole[:at] + b"\xff" + whole[at + 1 :]
        assert ImageDecoding((30, 40))(column(damaged)).shape == (1, 30, 40, 3)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF", "JPEG", "WEBP"])
def test_all_formats_are_decoded(kind):
    file = encoded(SMOOTH, kind)
    expected = np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))
    ours = ImageDecoding((30, 40))(column(file)).numpy()[0]
    assert np.abs(ours.astype(int) - expected).max() <= (3 if kind == "JPEG" else 0)  # decoders of JPEG round


def test_grayscale_and_color_are_converted():
    grey = RANDOM.integers(0, 256, (5, 5), "uint8")
    np.testing.assert_array_equal(ImageDecoding((5, 5), 3)(column(encoded(grey)))[0, ..., 1], grey)
    assert ImageDecoding((30, 40), 1)(column(encoded(SMOOTH))).shape == (1, 30, 40, 1)


@pytest.mark.parametrize("size", [(15, 20), (60, 80), (10, 33)])
def test_other_sizes_are_resized_as_by_pillow(size):
    ours = ImageDecoding(size)(column(encoded(SMOOTH))).numpy()[0]
    expected = np.asarray(Image.fromarray(SMOOTH).resize(size[::-1], Image.BILINEAR))
    assert np.abs(ours.astype(int) - expected).max() <= 2


def test_other_aspect_ratios_are_cropped_or_padded():
    wide = np.zeros((10, 30, 3), "uint8")
    wide[:, 10:20] = 255  # white in the middle third
    files = column(encoded(wide))
    assert (ImageDecoding((10, 10), fit="crop")(files).numpy() == 255).all()
    padded = ImageDecoding((30, 30), fit="pad")(files).numpy()[0]
    assert (padded[:9] == 0).all() and (padded[11:19, 12:18] == 255).all() and (padded[21:] == 0).all()


def test_missing_image_is_black_and_empty_batch_stays_empty():
    files = column(b"", encoded(SMOOTH))
    assert ImageDecoding((30, 40))(files).numpy()[0].max() == 0
    assert ImageDecoding((30, 40))(np.empty((0, 1), "S1")).shape == (0, 30, 40, 3)


def test_invalid_image_raises_an_error_of_tensorflow():
    with pytest.raises(tf.errors.InvalidArgumentError, match="[Uu]nknown image|format"):
        ImageDecoding((3, 3))(column(b"no image"))


@pytest.mark.parametrize("fit", ["stretch", "crop", "pad"])
def test_saved_and_exported_models_agree(fit, tmp_path):
    raw = keras.Input((1,), name="x", dtype="string")
    model = keras.Model({"x": raw}, {"y": ImageDecoding((8, 8), fit=fit)(raw)})
    assert model.output["y"].shape == (None, 8, 8, 3)
    round_trips(model, {"x": column(encoded(SMOOTH), b"", encoded(SMOOTH[:8, :8]))}, tmp_path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ImageDecoding((3,)), r"ImageDecoding: invalid size: expected height and width.*, received \(3,\)"),
        (lambda: ImageDecoding((3, 3), channels=2), "invalid channels: expected 1, 3 or 4, received 2"),
        (lambda: ImageDecoding((3, 3), fit="squeeze"), "invalid fit: .* received 'squeeze'"),
        (lambda: ImageDecoding((3, 3))(keras.Input((1,))), "invalid inputs: expected texts.* received 'float32'"),
        (lambda: ImageDecoding((3, 3))(keras.Input((2,), dtype="string")), r"invalid inputs: .* received \(None, 2\)"),
    ],
)
def test_invalid_arguments_raise(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def images_of_all_modes():
    """Yield a name and a file for each way in which formats store colours."""
    colour = Image.fromarray(SMOOTH)
    clear = colour.convert("RGBA")
    clear.putalpha(colour.convert("L"))
    palette = colour.quantize(64)
    for name, image, kind, options in (
        ("CMYK", colour.convert("CMYK"), "JPEG", {"quality": 95}),
        ("grey", colour.convert("L"), "JPEG", {"quality": 95}),
        ("progressive", colour, "JPEG", {"quality": 95, "progressive": True, "subsampling": 0}),
        ("palette", palette, "PNG", {}),
        ("transparent color", palette, "PNG", {"transparency": 3}),
        ("1 bit", colour.convert("1"), "PNG", {}),
        ("grey and alpha", clear.convert("LA"), "PNG", {}),
        ("alpha", clear, "PNG", {}),
        ("palette", palette, "GIF", {}),
        ("grey", colour.convert("L"), "BMP", {}),
        ("alpha", clear, "WEBP", {"lossless": True}),
    ):
        stream = io.BytesIO()
        image.save(stream, kind, **options)
        yield f"{kind}, {name}", stream.getvalue()


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_every_way_to_store_colours_is_decoded_as_by_pillow(channels):
    for name, file in images_of_all_modes():
        image = Image.open(io.BytesIO(file))
        expected = (
            image.convert("RGB") if channels == 3 else image.convert("RGBA").convert({1: "L", 4: "RGBA"}[channels])
        )
        found = ImageDecoding(SMOOTH.shape[:2], channels)(column(file)).numpy()[0].astype(int)
        difference = np.abs(found - np.reshape(expected, found.shape).astype(int)).max()
        assert difference <= (8 if "JPEG" in name else 1), name


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
@pytest.mark.parametrize(("kind", "error"), [("PNG", 1), ("BMP", 1), ("WEBP", 1), ("GIF", 60), ("JPEG", 8)])
def test_any_format_is_decoded_to_one_or_four_channels(kind, error, mode):
    ramp = np.linspace(0, 255, 12 * 16 * 3).reshape(12, 16, 3).astype("uint8")
    image, stream = Image.fromarray(ramp).convert(mode), io.BytesIO()
    if kind == "JPEG" and mode == "RGBA":
        pytest.skip("JPEG has no alpha")
    image.save(stream, kind, **({"lossless": True} if kind == "WEBP" else {"quality": 100} if kind == "JPEG" else {}))
    for channels, form in {1: "L", 4: "RGBA"}.items():
        found = ImageDecoding((12, 16), channels)(np.array([stream.getvalue()], object)).numpy()[0].astype(int)
        expected = np.asarray(Image.open(stream).convert("RGBA").convert(form), int).reshape(12, 16, channels)
        assert np.abs(found - expected).max() <= error
