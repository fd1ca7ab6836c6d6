"""Computed orders have each row once, and all orders are equally likely."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from kerasline.components.data.shuffling import shuffled


def order(rows, seed, epoch=0):
    places = tf.range(rows, dtype=tf.int64)
    return shuffled(places, rows, tf.constant(seed, tf.int64), tf.constant(epoch, tf.int64)).numpy()


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 16, 17, 1000, 65537])
def test_every_row_has_one_place(rows):
    assert sorted(order(rows, 7)) == list(range(rows))


def test_part_of_an_order_equals_the_whole_order():
    places = tf.constant([5, 999, 0, 5], tf.int64)
    part = shuffled(places, 1000, tf.constant(7, tf.int64), tf.constant(2, tf.int64))
    np.testing.assert_array_equal(part, order(1000, 7, 2)[[5, 999, 0, 5]])


@pytest.mark.slow
def test_all_orders_of_few_rows_are_equally_likely():
    """Chi-square tests over the 6 orders of three rows, and over the places of ten rows."""
    each = [tuple(order(3, seed)) for seed in range(600)]
    counts = [each.count(one) for one in itertools.permutations(range(3))]
    assert stats.chisquare(counts).pvalue > 1e-4
    landed = np.zeros((10, 10))
    for seed in range(300):
        landed[np.arange(10), order(10, seed)] += 1
    assert stats.chisquare(landed.ravel()).pvalue > 1e-4


def test_seeds_and_epochs_have_unrelated_orders():
    orders = [order(5000, seed, epoch) for seed in (0, 1, -3) for epoch in (0, 1)]
    for one, other in itertools.combinations([np.arange(5000), *orders], 2):
        assert abs(np.corrcoef(one, other)[0, 1]) < 0.06 and (one == other).mean() < 0.01
