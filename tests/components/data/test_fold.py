"""What `fold` gives: the same whatever the number of workers, in the order of the elements."""

import functools
import operator

import numpy as np
import pytest

from kerasline.components.core.component import Context
from kerasline.components.core.errors import DataError
from kerasline.components.data.fold import fold

# Four runs of elements a worker at the most, of one length, a power of two: of 300 they are 150, in three blocks.
FEW, MANY = ["--direct_num_workers=1"], ["--direct_num_workers=40"]
# The options, and whether Beam is left out.
WAYS = [(FEW, False), (MANY, False), ([], True)]


def in_brackets(element):
    return [str(element)]


def a_float(element):
    return np.float32(1 / (element + 3))


def refusing(element, at):
    if element == at:
        raise DataError(f"element {at}: no good")
    return [element]


@pytest.mark.parametrize("options, here", WAYS)
@pytest.mark.parametrize("count", [1, 2, 63, 65, 300])
def test_accumulators_are_merged_in_the_order_of_their_elements(tmp_path, count, options, here):
    found = fold(range(count), in_brackets, operator.add, Context(tmp_path, tuple(options)), here=here)
    assert found == [str(element) for element in range(count)]


def test_sums_of_floats_are_the_same_to_the_bit_with_few_and_many_workers_and_without(tmp_path):
    few, many, without = (
        fold(range(317), a_float, operator.add, Context(tmp_path, tuple(options)), here=here) for options, here in WAYS
    )
    assert few == many == without
    assert few == pytest.approx(float(np.sum(1 / (np.arange(317) + 3.0))), rel=1e-6)


def test_no_elements_make_no_accumulator(tmp_path):
    assert fold([], in_brackets, operator.add, Context(tmp_path)) is None


@pytest.mark.parametrize("options, here", WAYS)
def test_a_users_mistake_comes_through_as_it_was_raised(tmp_path, options, here):
    refuse, context = functools.partial(refusing, at=299), Context(tmp_path, tuple(options))
    with pytest.raises(DataError, match="^element 299: no good$"):
        fold(range(300), refuse, operator.add, context, here=here)
