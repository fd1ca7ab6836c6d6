"""A shuffled order of any number of rows, computed on demand instead of stored.

A Feistel network permutes pairs (row // side, row % side). Its round function is a mixing hash. Pairs that do not
denote a row are permuted again until they do (Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002).
"""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf

_FACTORS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
ROUNDS = 6  # four give a pseudo-random permutation (Luby and Rackoff, 1988); short orders need more


def shuffled(places: tf.Tensor, rows: int | tf.Tensor, seed: tf.Tensor, epoch: tf.Tensor) -> tf.Tensor:
    """Return the rows at some places of a shuffled order.

    Args:
        places: int64 (n,), each from 0 to rows - 1.
        rows: number of rows. All places together give each row once. If places belong to several orders, int64 (n,):
            the number of rows of each one's order, from 1.
        seed, epoch: int64 scalars. Each pair has its own order, the same on every machine.

    Returns:
        int64 (n,).
    """
    side = _side(rows)
    keys = _keys(seed, epoch)

    def outside(found: tf.Tensor) -> tf.Tensor:
        return tf.where(found >= rows)

    def walk(found: tf.Tensor) -> tuple[tf.Tensor]:
        where = outside(found)
        sides = side if isinstance(side, int) else tf.gather_nd(side, where)
        return (tf.tensor_scatter_nd_update(found, where, _permuted(tf.gather_nd(found, where), sides, keys)),)

    (found,) = tf.while_loop(lambda found: tf.size(outside(found)) > 0, walk, (_permuted(places, side, keys),))
    return found


def _side(rows: int | tf.Tensor) -> int | tf.Tensor:
    """Return the smallest integer whose square is at least the number of rows, and at least 1."""
    if isinstance(rows, int):
        return math.isqrt(max(rows - 1, 0)) + 1
    # float64 has exact squares up to 2^52 rows.
    return tf.cast(tf.sqrt(tf.cast(rows - 1, tf.float64)), tf.int64) + 1


def _permuted(row: tf.Tensor, side: int | tf.Tensor, keys: tf.Tensor) -> tf.Tensor:
    high = row // side
    low = row - high * side
    for number in range(ROUNDS):
        if number % 2:
            high = _moved(high, low, keys[number], side)
        else:
            low = _moved(low, high, keys[number], side)
    return high * side + low


def _moved(half: tf.Tensor, other: tf.Tensor, key: tf.Tensor, side: int | tf.Tensor) -> tf.Tensor:
    """Return (half + a hash of the other half) modulo side, computed without a division."""
    mixed = tf.cast(other, tf.uint64) * tf.constant(_FACTORS[0], tf.uint64) + key
    mixed = tf.bitwise.bitwise_xor(mixed, tf.bitwise.right_shift(mixed, tf.constant(32, tf.uint64)))
    mixed = mixed * tf.constant(_FACTORS[1], tf.uint64)
    mixed = tf.bitwise.right_shift(mixed, tf.constant(11, tf.uint64))
    step = tf.cast(tf.cast(mixed, tf.float64) * tf.cast(side / 2**53, tf.float64), tf.int64)  # 0 to side - 1
    total = half + step
    return tf.where(total >= side, total - side, total)


def _keys(seed: tf.Tensor, epoch: tf.Tensor) -> tf.Tensor:
    """Return a key for each round, uint64 (ROUNDS,)."""
    return mix(of_epoch(seed, epoch) + tf.cast(tf.range(1, ROUNDS + 1), tf.uint64))


def of_epoch(seed: Any, epoch: Any) -> tf.Tensor:
    """Hash a seed and an epoch, integers or int64 scalars, to a uint64 scalar."""
    return mix(mix(tf.cast(seed, tf.uint64)) + tf.cast(epoch, tf.uint64))


def mix(values: tf.Tensor) -> tf.Tensor:
    """Hash uint64 values by SplitMix64's step and finaliser (Steele, Lea and Flood, OOPSLA 2014)."""
    values = values + tf.constant(0x9E3779B97F4A7C15, tf.uint64)
    for shift, factor in zip((30, 27), _FACTORS):
        values = tf.bitwise.bitwise_xor(values, tf.bitwise.right_shift(values, tf.constant(shift, tf.uint64)))
        values = values * tf.constant(factor, tf.uint64)
    return tf.bitwise.bitwise_xor(values, tf.bitwise.right_shift(values, tf.constant(31, tf.uint64)))
