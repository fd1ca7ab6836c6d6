"""Alignment of frames and characters, and repetition by durations, against plain NumPy."""

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

import kerasline as kl

GENERATOR = np.random.default_rng(0)


def best_durations(scores):
    """Return the durations of the path with the largest sum, by a dynamic program over (frames, tokens)."""
    frames, tokens = scores.shape
    best = np.full((frames, tokens), -np.inf)
    best[0, 0] = scores[0, 0]
    for t in range(1, frames):
        for k in range(tokens):
            best[t, k] = scores[t, k] + max(best[t - 1, k], best[t - 1, k - 1] if k else -np.inf)
    durations, k = np.zeros(tokens, int), tokens - 1
    for t in range(frames - 1, -1, -1):
        durations[k] += 1
        if t and k and best[t - 1, k - 1] > best[t - 1, k]:
            k -= 1
    assert k == 0
    return durations


@pytest.mark.parametrize("deviation", [None, 0.2])
def test_alignment_is_the_best_path_of_a_dynamic_program(deviation):
    token_lengths, frame_lengths = np.array([5, 3, 1, 7]), np.array([12, 20, 4, 7])
    scores = GENERATOR.normal(size=(4, 20, 7)).astype("float32")
    layer = tf.function(kl.layers.MonotonicAlignment(deviation))
    found = layer(scores, token_lengths, frame_lengths).numpy()
    for row, (tokens, frames) in enumerate(zip(token_lengths, frame_lengths)):
        expected = scores[row, :frames, :tokens].astype(float)
        if deviation is not None:
            places = (np.arange(tokens) + 0.5) / tokens, (np.arange(frames) + 0.5) / frames
            density = scipy.stats.norm(scale=deviation)
            expected += density.logpdf(np.subtract.outer(places[1], places[0])) - density.logpdf(0)
        np.testing.assert_array_equal(found[row, :tokens], best_durations(expected))
        assert not found[row, tokens:].any()


def test_rows_without_sound_or_with_too_little_are_aligned():
    scores = GENERATOR.normal(size=(2, 3, 4)).astype("float32")
    found = kl.layers.MonotonicAlignment()(scores, np.array([4, 4]), np.array([0, 3])).numpy()
    assert found.sum(axis=1).tolist() == [0, 3]
    assert not kl.layers.MonotonicAlignment()(scores[:, :0], np.array([4, 4]), np.array([0, 0])).numpy().any()


def test_values_are_repeated_as_numpy_repeats_them():
    durations = np.array([[2, 0, 3, 1], [1, 1, 0, 0], [0, 0, 0, 0]])
    values = GENERATOR.normal(size=(3, 4, 5)).astype("float32")
    found, places = (one.numpy() for one in kl.layers.LengthRegulation()(values, durations))
    assert found.shape == (3, 6, 5) and places.shape == (3, 6, 1)
    for row in range(3):
        expected = np.repeat(values[row], durations[row], axis=0)
        np.testing.assert_array_equal(found[row, : len(expected)], expected)
        inside = np.concatenate([(np.arange(n) + 0.5) / max(n, 1) for n in durations[row]])
        np.testing.assert_allclose(places[row, : len(expected), 0], inside)
        assert not found[row, len(expected) :].any() and not places[row, len(expected) :].any()
    longer, _ = kl.layers.LengthRegulation()(values, durations, np.zeros((3, 8, 2)))
    np.testing.assert_array_equal(longer, np.pad(found, ((0, 0), (0, 2), (0, 0))))


def test_a_saved_model_aligns_and_repeats(tmp_path):
    """Gradients reach the values through the repetition, and none the scores."""
    scores, lengths = keras.Input((None, None)), [keras.Input((), dtype="int32") for _ in range(2)]
    values = keras.Input((None, 3))
    durations = kl.layers.MonotonicAlignment(0.3)(scores, *lengths)
    repeated, _ = kl.layers.LengthRegulation()(values, durations, scores)
    model = keras.Model([scores, *lengths, values], repeated)
    arrays = [tf.random.stateless_normal([2, 9, 4], [1, 2]), [4, 2], [9, 6], tf.ones([2, 4, 3])]
    arrays = [tf.convert_to_tensor(one) for one in arrays]
    with tf.GradientTape() as tape:
        tape.watch([arrays[0], arrays[3]])
        total = tf.reduce_sum(model(arrays))
    of_scores, of_values = tape.gradient(total, [arrays[0], arrays[3]])
    assert of_scores is None
    np.testing.assert_array_equal(of_values[..., 0], kl.layers.MonotonicAlignment(0.3)(*arrays[:3]))
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "model.keras")(arrays), model(arrays))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: kl.layers.MonotonicAlignment(0), "invalid deviation: expected a number above 0, or None, received 0"),
        (
            lambda: kl.layers.MonotonicAlignment()(keras.Input((2, 2)), keras.Input(()), keras.Input(())),
            "invalid token_lengths: expected integers",
        ),
        (
            lambda: kl.layers.LengthRegulation()(keras.Input((2,)), keras.Input((2,), dtype="int32")),
            r"expected \(rows, tokens, units\)",
        ),
    ],
)
def test_unusable_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
