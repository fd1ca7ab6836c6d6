"""Random changes of sound and tokens, against NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasline import layers
from kerasline.components.preprocessing.row_seeds import RowSeeds, row_seeds
from tests.components.preprocessing.layers.round_trip import round_trips

RANDOM = np.random.default_rng(0)
SOUND = RANDOM.normal(size=(40, 500)).astype("float32")
SOUND[20:, 300:] = np.nan


def changed(layer, values, seed=0):
    with row_seeds(RowSeeds(seed, 0, tf.range(len(values), dtype=tf.int64))):
        return layer(values, training=True).numpy()


@pytest.mark.parametrize(
    "layer",
    [
        layers.RandomNoise(),
        layers.RandomTimeShift(),
        layers.RandomSpeed(),
        layers.SpecAugment(),
        layers.TokenDropout(0.5),
    ],
)
def test_nothing_changes_outside_of_training(layer, tmp_path):
    shape = (6, 5) if isinstance(layer, layers.SpecAugment) else (6,)
    dtype = "int64" if isinstance(layer, layers.TokenDropout) else "float32"
    values = np.ones((3, *shape), dtype)
    np.testing.assert_array_equal(layer(values), values)
    x = keras.Input(shape, dtype=dtype, name="x")
    round_trips(keras.Model({"x": x}, {"x": layer(x)}), {"x": values}, tmp_path)


def test_noise_has_the_given_power():
    noise = changed(layers.RandomNoise((20.0, 20.01)), SOUND) - SOUND
    ratio = np.nanmean(SOUND**2, axis=1) / np.nanmean(noise**2, axis=1)
    assert np.isnan(noise[20:, 300:]).all()
    np.testing.assert_allclose(10 * np.log10(ratio), 20, atol=1.2)
    assert abs(np.nanmean(noise)) < 0.01 and abs(np.corrcoef(noise[0], noise[1])[0, 1]) < 0.2


def test_shifted_sound_keeps_its_order():
    shifts = set()
    for before, after in zip(SOUND, changed(layers.RandomTimeShift(0.2), SOUND)):
        length = int((~np.isnan(before)).sum())
        candidates = range(-length // 5, length // 5 + 1)
        padded = np.concatenate([np.zeros(length), before[:length], np.zeros(length)])
        matching = [s for s in candidates if np.array_equal(after[:length], padded[length - s : 2 * length - s])]
        assert len(matching) == 1 and np.isnan(after[length:]).all()
        shifts.update(matching)
    assert len(shifts) > 20


def test_speed_interpolates():
    layer = layers.RandomSpeed((0.8, 0.800001))
    varying = tf.function(lambda x: layer(x, training=True), input_signature=[tf.TensorSpec((None, None))])
    found = varying(SOUND).numpy()
    assert (~np.isnan(found)).sum(axis=1).tolist() == [625] * 20 + [375] * 20
    expected = np.interp(np.arange(620) * 0.8, np.arange(500), SOUND[0])
    np.testing.assert_allclose(found[0, :620], expected, atol=0.01)
    assert layers.RandomSpeed()(SOUND[:20], training=True).shape == (20, 500)


def test_stretches_of_frames_and_bands_become_zero():
    frames = np.ones((60, 50, 16), "float32")
    frames[30:, 20:] = np.nan
    found = changed(layers.SpecAugment(1, frames=6, bands=4), frames)
    assert np.isnan(found[30:, 20:]).all()
    erased = found == 0
    for row, length in zip(erased, [50] * 30 + [20] * 30):
        of_frames, of_bands = row[:length].all(axis=1), row[:length].all(axis=0)
        np.testing.assert_array_equal(row[:length], of_frames[:, None] | of_bands)
        assert of_frames.sum() <= min(6, length / 5) and of_bands.sum() <= 4
        assert (np.diff(of_frames.astype(int)) == 1).sum() <= 1
    assert len({tuple(row.any(axis=1)) for row in erased[:30]}) > 3


def test_tokens_are_dropped_at_the_rate_but_for_special_ones():
    ids = RANDOM.integers(0, 30, (200, 50))
    found = changed(layers.TokenDropout(0.3), ids)
    replaced = found != ids
    assert set(found[replaced]) == {1} and not replaced[np.isin(ids, (0, 1, 2, 3))].any()
    assert replaced[ids > 3].mean() == pytest.approx(0.3, abs=0.02)


def test_row_decides_its_change_in_any_batch():
    layer = layers.TokenDropout(0.5)
    ids = RANDOM.integers(4, 30, (10, 20))
    with row_seeds(RowSeeds(1, 2, tf.constant([7, 3], tf.int64))):
        part = layer(ids[[7, 3]], training=True)
    with row_seeds(RowSeeds(1, 2, tf.range(10, dtype=tf.int64))):
        whole = layer(ids, training=True)
    np.testing.assert_array_equal(part, whole.numpy()[[7, 3]])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: layers.RandomNoise((3, 2)), "RandomNoise: invalid decibels: expected two numbers, the lower first"),
        (lambda: layers.RandomTimeShift(2), "RandomTimeShift: invalid share"),
        (lambda: layers.RandomSpeed((0, 1)), "RandomSpeed: invalid factors: expected two numbers above 0"),
        (lambda: layers.SpecAugment(frames=-1), "SpecAugment: invalid frames"),
        (lambda: layers.TokenDropout(1.5), "TokenDropout: invalid rate"),
        (lambda: layers.SpecAugment()(keras.Input((3,))), "SpecAugment: invalid inputs"),
        (lambda: layers.RandomNoise()(keras.Input((3, 2))), "RandomNoise: invalid inputs"),
        (lambda: layers.TokenDropout(0.5)(keras.Input((3,))), "TokenDropout: invalid inputs"),
    ],
)
def test_wrong_arguments_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()
