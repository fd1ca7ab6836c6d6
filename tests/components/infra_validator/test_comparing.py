"""Comparison of served answers with those in process."""

import io

import numpy as np
import pytest
import soundfile
from PIL import Image

from kerasline.components.infra_validator.cases import Answer
from kerasline.components.infra_validator.comparison import compare

WAVE = 5000 * np.sin(np.arange(4000) / 5)


def answer(**outputs):
    return Answer({name: np.asarray(value) for name, value in outputs.items()})


def text(value):
    return np.array([value], object)


def sound(*steps):
    stream = io.BytesIO()
    soundfile.write(stream, np.int16(steps), 8000, format="WAV", subtype="PCM_16")
    return text(stream.getvalue())


def image(format, *pixels):
    stream = io.BytesIO()
    Image.fromarray(np.array([pixels] * 8, np.uint8)).save(stream, format)
    return text(stream.getvalue())


def refusal(status):
    return Answer(None, status, "because")


@pytest.mark.parametrize(
    ("own", "served"),
    [
        (answer(y=np.float32([1.0, 2.0])), answer(y=[1.00009, 2.0])),  # within 1e-4
        (answer(y=[1e6]), answer(y=[1e6 + 99.0])),  # relative to a number above 1
        (answer(y=[np.nan, 1.0]), answer(y=[np.nan, 1.0])),
        (answer(y=[np.inf]), answer(y=[np.nan])),  # an overflow either way
        (answer(y=text(b"a")), answer(y=text(b"a"))),
        (answer(y=np.zeros((0, 3))), answer(y=np.zeros((0, 3)))),
        (answer(y=sound(500, -500, 3)), answer(y=sound(501, -500, 1))),
        (answer(y=sound(*WAVE)), answer(y=sound(*-WAVE))),  # other phases
        (answer(y=image("PNG", 0, 128, 255, 9)), answer(y=image("PNG", 1, 128, 254, 9))),
        (answer(y=image("JPEG", *range(8))), answer(y=image("JPEG", 1, *range(1, 8)))),
        (refusal(400), refusal(404)),
        (refusal(501), refusal(500)),
    ],
)
def test_answers_agree(own, served):
    assert compare(own, served, 1e-4).mismatch is None


@pytest.mark.parametrize(
    ("own", "served", "why"),
    [
        (answer(y=[[1.0, 2.0]]), answer(y=[[1.0, 2.001]]), "y: served 2.001, in process 2 at [0, 1]"),
        (answer(y=[1e6]), answer(y=[1e6 + 101.0]), "y: served 1.0001e+06, in process 1e+06 at [0]"),
        (answer(y=[np.nan]), answer(y=[0.0]), "y: served 0, in process nan at [0]"),
        (answer(y=[3.4e38]), answer(y=[np.inf]), "y: served inf, in process 3.4e+38 at [0]"),
        (answer(n=np.int64([7])), answer(n=np.int64([8])), "n: served 8, in process 7 at [0]"),
        (answer(t=text(b"a")), answer(t=text(b"b")), "t: served 'b', in process 'a' at [0]"),
        (answer(y=[1.0]), answer(y=[[1.0]]), "y: served shape [1, 1], in process [1]"),
        (answer(y=[1.0], z=[1.0]), answer(y=[1.0]), "served outputs y, expected y, z"),
        (answer(y=[1.0]), refusal(500), "refused with 500 (because), but answered in process"),
        (refusal(400), answer(y=[1.0]), "answered, but refused in process (because)"),
        (refusal(400), refusal(500), "refused with 500 (because), expected 400 (because)"),
    ],
)
def test_first_difference_is_reported(own, served, why):
    assert compare(own, served, 1e-4).mismatch == why


@pytest.mark.parametrize(
    ("own", "served"),
    [
        (sound(500, -500, 3), sound(600, -500, 3)),
        (sound(500, -500, 3), sound(500, -500, 3, 0)),
        (sound(*WAVE), sound(*1.1 * WAVE)),
        (sound(500, -500, 3), text(sound(500, -500, 3)[0][:40])),
        (image("PNG", 0, 128, 255), image("PNG", 3, 128, 255)),
        (image("PNG", 0, 128), image("JPEG", 0, 128)),
        (image("JPEG", 0, 0, 0, 0), image("JPEG", 9, 9, 9, 9)),
    ],
)
def test_other_sound_or_image_is_a_difference(own, served):
    assert compare(answer(y=own), answer(y=served), 1e-4).mismatch.startswith("y: served ")


def test_largest_difference_of_equal_answers_is_reported():
    assert compare(answer(y=[1.0, np.inf]), answer(y=[1.25, np.inf]), 0.5).largest == 0.25
