"""Axes: round ticks in the right places."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kerasline.components.charts.axis import category_axis, number_axis, round_step
from kerasline.components.charts.numbers import number_text

numbers = st.floats(-1e12, 1e12, allow_subnormal=False).filter(lambda x: x == 0 or abs(x) > 1e-9)


@given(st.lists(numbers, min_size=1, max_size=20))
def test_ticks_are_round_and_the_axis_covers_all_values(values):
    axis = number_axis(values)
    slack = 1e-6 * (axis.high - axis.low)
    assert axis.low - slack <= min(values) and max(values) <= axis.high + slack
    assert 2 <= len(axis.ticks) <= 12
    steps = {
        round((b - a) / (axis.ticks[1][0] - axis.ticks[0][0]), 6) for (a, _), (b, _) in zip(axis.ticks, axis.ticks[1:])
    }
    assert steps == {1.0}
    step = axis.ticks[1][0] - axis.ticks[0][0]
    mantissa = step / 10 ** math.floor(math.log10(step) + 1e-9)
    assert any(math.isclose(mantissa, round_one, rel_tol=1e-3) for round_one in (1, 2, 5, 10))


@pytest.mark.parametrize(
    ("rough", "step"),
    [(1.0, 1), (1.4, 1), (1.5, 2), (2.8, 2), (3.0, 5), (7.0, 5), (7.2, 10), (0.03, 0.05), (290, 500)],
)
def test_step_is_the_nearest_of_one_two_and_five(rough, step):
    """On a logarithmic scale, the bounds between 1, 2, 5 and 10 lie at their geometric means (or near)."""
    assert round_step(rough) == pytest.approx(step)


def test_ticks_have_the_decimals_that_they_need():
    assert [text for _, text in number_axis([-0.01, 0.05]).ticks] == [
        "-0.01",
        "0",
        "0.01",
        "0.02",
        "0.03",
        "0.04",
        "0.05",
    ]
    assert [text for _, text in number_axis([0, 4000]).ticks] == ["0", "1,000", "2,000", "3,000", "4,000"]


def test_labels_of_close_large_numbers_differ():
    texts = [text for _, text in number_axis([17_031_000_000, 17_031_900_000]).ticks]
    assert len(texts) == len(set(texts)) and len(texts) > 3


def test_integers_have_integer_ticks():
    assert [text for _, text in number_axis([1, 2]).ticks] == ["1", "2"]


def test_axis_extends_around_a_single_value():
    axis = number_axis([5.0])
    assert axis.low < 5 < axis.high


def test_logarithmic_axis_has_equal_distances_for_equal_ratios():
    axis = number_axis([1, 10000], log=True)
    places = [axis.share(value) for value in (1, 10, 100, 1000, 10000)]
    assert places == pytest.approx([0, 0.25, 0.5, 0.75, 1])
    assert [text for _, text in axis.ticks] == ["1", "10", "100", "1,000", "10,000"]


def test_zero_makes_a_logarithmic_axis_linear():
    assert not number_axis([0, 10], log=True).log


def test_categories_are_centered_in_their_slots():
    axis = category_axis(["a", "b", "c", "d"])
    assert [axis.share(value) for value, _ in axis.ticks] == pytest.approx([1 / 8, 3 / 8, 5 / 8, 7 / 8])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1234, "1,234"),
        (0.92537, "0.9254"),
        (1.2e-7, "1.2e-7"),
        (0.0, "0"),
        (None, "–"),
        (float("nan"), "–"),
        (True, "yes"),
        (-1234567.8, "-1,234,568"),
        (3e12, "3e12"),
        ("text", "text"),
        (0.5, "0.5"),
    ],
)
def test_numbers_are_readable(value, text):
    assert number_text(value) == text
