"""`fold` has the same result for any number of workers, in the order of the elements."""

import functools
import operator

import numpy as np
import pytest

from kerasline.components.core.component import Context
from kerasline.components.core.errors import DataError
from kerasline.components.data.fold import fold

# At most four runs per worker, whose length is a power of two: 300 elements make 150 runs, in three parts.
FEW, MANY = ["--direct_num_workers=1"], ["--direct_num_workers=40"]
# The options, and whether to run without Beam.
WAYS = [(FEW, False), (MANY, False), ([], True)]


def in_brackets(element):
    return [str(element)]


def a_float(element):
    return np.float32(1 / (element + 3))


def failing(element, at):
    if element == at:
        raise DataError(f"element {at}: no good")
    return [element]


@pytest.mark.parametrize("options, in_process", WAYS)
@pytest.mark.parametrize("count", [1, 2, 63, 65, 300])
def test_accumulators_are_merged_in_the_order_of_elements(tmp_path, count, options, in_process):
    found = fold(range(count), in_brackets, operator.add, Context(tmp_path, tuple(options)), in_process=in_process)
    assert found == [str(element) for element in range(count)]


def test_float_sums_do_not_depend_on_the_number_of_workers(tmp_path):
    few, many, without = (
        fold(range(317), a_float, operator.add, Context(tmp_path, tuple(options)), in_process=in_process)
        for options, in_process in WAYS
    )
    assert few == many == without
    assert few == pytest.approx(float(np.sum(1 / (np.arange(317) + 3.0))), rel=1e-6)


def test_no_elements_have_no_result(tmp_path):
    assert fold([], in_brackets, operator.add, Context(tmp_path)) is None


@pytest.mark.parametrize("options, in_process", WAYS)
def test_user_error_is_raised_unchanged(tmp_path, options, in_process):
    refuse, context = functools.partial(failing, at=299), Context(tmp_path, tuple(options))
    with pytest.raises(DataError, match="^element 299: no good$"):
        fold(range(300), refuse, operator.add, context, in_process=in_process)
