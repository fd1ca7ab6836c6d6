"""When a served answer counts as that in process."""

import numpy as np
import pytest

from kerasline.components.infra_validator.answer import Answer
from kerasline.components.infra_validator.comparing import compare


def answer(**outputs):
    return Answer({name: np.asarray(value) for name, value in outputs.items()})


def text(value):
    return np.array([value], object)


def refusal(status):
    return Answer(None, status, "because")


@pytest.mark.parametrize(
    ("own", "served"),
    [
        (answer(y=np.float32([1.0, 2.0])), answer(y=[1.00009, 2.0])),  # within 1e-4
        (answer(y=[1e6]), answer(y=[1e6 + 99.0])),  # within that part of it
        (answer(y=[np.nan, 1.0]), answer(y=[np.nan, 1.0])),
        (answer(y=[np.inf]), answer(y=[np.nan])),  # an overflow either way
        (answer(y=text(b"a")), answer(y=text(b"a"))),
        (answer(y=np.zeros((0, 3))), answer(y=np.zeros((0, 3)))),
        (refusal(400), refusal(404)),
        (refusal(501), refusal(500)),
    ],
)
def test_alike(own, served):
    assert compare(own, served, 1e-4).wrong is None


@pytest.mark.parametrize(
    ("own", "served", "why"),
    [
        (answer(y=[[1.0, 2.0]]), answer(y=[[1.0, 2.001]]), "y: 2.001 served, 2 in process at [0, 1]"),
        (answer(y=[1e6]), answer(y=[1e6 + 101.0]), "y: 1.0001e+06 served, 1e+06 in process at [0]"),
        (answer(y=[np.nan]), answer(y=[0.0]), "y: 0 served, nan in process at [0]"),
        (answer(y=[3.4e38]), answer(y=[np.inf]), "y: inf served, 3.4e+38 in process at [0]"),
        (answer(n=np.int64([7])), answer(n=np.int64([8])), "n: 8 served, 7 in process at [0]"),
        (answer(t=text(b"a")), answer(t=text(b"b")), "t: 'b' served, 'a' in process at [0]"),
        (answer(y=[1.0]), answer(y=[[1.0]]), "y: shape [1, 1] served, [1] in process"),
        (answer(y=[1.0], z=[1.0]), answer(y=[1.0]), "outputs y served, y, z wanted"),
        (answer(y=[1.0]), refusal(500), "refused with 500 (because), in process it is answered"),
        (refusal(400), answer(y=[1.0]), "answered, in process it is refused (because)"),
        (refusal(400), refusal(500), "refused with 500 (because), where 400 is right (because)"),
    ],
)
def test_unlike_and_in_what(own, served, why):
    assert compare(own, served, 1e-4).wrong == why


def test_the_largest_difference_is_told_of_what_is_alike():
    assert compare(answer(y=[1.0, np.inf]), answer(y=[1.25, np.inf]), 0.5).largest == 0.25
