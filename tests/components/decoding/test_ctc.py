"""CTC decoding, against all paths of small examples."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

import kerasline as kl
from kerasline import decoding

GENERATOR = np.random.default_rng(0)
LOGITS = GENERATOR.normal(size=(4, 5, 4)).astype("float32") * 1.5
LENGTHS = np.array([5, 3, 4, 1])


def collapsed(path, blank):
    merged = [one for place, one in enumerate(path) if place == 0 or one != path[place - 1]]
    return tuple(one for one in merged if one != blank)


def log_softmax(logits):
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


@pytest.mark.parametrize("blank", [0, 2, 3])
def test_beams_find_the_most_probable_labels_over_all_paths(blank):
    found = decoding.ctc(LOGITS, LENGTHS, blank=blank, beams=200)
    for row, length in enumerate(LENGTHS):
        chances, totals = log_softmax(LOGITS[row, :length]), {}
        for path in itertools.product(range(4), repeat=int(length)):
            labels = collapsed(path, blank)
            totals[labels] = totals.get(labels, 0.0) + np.exp(sum(chances[at, one] for at, one in enumerate(path)))
        best = max(totals, key=totals.get)
        assert found.ids.numpy()[row, : len(best)].tolist() == list(best)
        assert (found.ids.numpy()[row, len(best) :] == blank).all() and found.lengths[row] == len(best)
        np.testing.assert_allclose(found.scores[row], np.log(totals[best]), rtol=1e-4)


@pytest.mark.parametrize("blank", [0, 2, 3])
def test_greedy_takes_the_most_probable_path(blank):
    found = decoding.ctc(LOGITS, LENGTHS, blank=blank)
    for row, length in enumerate(LENGTHS):
        chances = log_softmax(LOGITS[row, :length])
        labels = collapsed(chances.argmax(-1).tolist(), blank)
        assert found.ids.numpy()[row, : len(labels)].tolist() == list(labels)
        np.testing.assert_allclose(found.scores[row], chances.max(-1).sum(), rtol=1e-5)


@pytest.mark.parametrize("beams", [1, 8])
def test_row_alone_gets_the_answer_that_it_gets_among_others(beams):
    together = decoding.ctc(LOGITS, LENGTHS, beams=beams)
    for row, length in enumerate(LENGTHS):
        alone = decoding.ctc(LOGITS[[row], :length], beams=beams)
        size = int(alone.lengths[0])
        np.testing.assert_array_equal(alone.ids[0, :size], together.ids[row, :size])
        assert size == together.lengths[row]
        np.testing.assert_allclose(alone.scores[0], together.scores[row], rtol=1e-5)


def adapted(order):
    language = kl.layers.NGrams(4, order)
    language.adapt([[1, 2, 3, 1, 2], [2, 1, 2, 0, 0], [3, 1, 2, 3, 3], [1, 2, 2, 0, 0]])
    return language


@pytest.mark.parametrize(("order", "weight", "bonus"), [(1, 0.5, 0.0), (2, 1.5, 0.5), (3, 0.7, -0.3), (3, 0.0, 0.0)])
def test_language_model_is_added_to_the_probability_of_all_paths(order, weight, bonus):
    language = adapted(order)
    options = {"language": language, "language_weight": weight, "label_bonus": bonus}
    found = decoding.ctc(LOGITS, LENGTHS, beams=300, **options)
    for row, length in enumerate(LENGTHS):
        chances, totals = log_softmax(LOGITS[row, :length]), {}
        for path in itertools.product(range(4), repeat=int(length)):
            labels = collapsed(path, 0)
            totals[labels] = totals.get(labels, 0.0) + np.exp(sum(chances[at, one] for at, one in enumerate(path)))
        scores = {
            labels: np.log(chance) + weight * likelihood(language, labels) + bonus * len(labels)
            for labels, chance in totals.items()
        }
        best = max(scores, key=scores.get)
        assert found.ids.numpy()[row, : found.lengths[row]].tolist() == list(best)
        np.testing.assert_allclose(found.scores[row], scores[best], rtol=1e-4)


def likelihood(language, labels):
    """Return the logarithm of the probability of labels and their end, looked up id by id."""
    padded = [0] * (language.order - 1) + [*labels, 0]
    total = 0.0
    for place in range(len(labels) + 1):
        before = np.array([padded[place : place + language.order - 1]], int).reshape(1, -1)
        total += float(language.log_probabilities(before)[0, padded[place + language.order - 1]])
    return total


@pytest.mark.parametrize("beams", [1, 3])
def test_row_alone_is_decoded_as_among_others_with_a_language_model(beams):
    options = {"beams": beams, "language": adapted(3)}
    together = decoding.ctc(LOGITS, LENGTHS, **options)
    for row, length in enumerate(LENGTHS):
        alone = decoding.ctc(LOGITS[[row], :length], **options)
        size = int(alone.lengths[0])
        assert size == together.lengths[row]
        np.testing.assert_array_equal(alone.ids[0], together.ids[row, :size])
        np.testing.assert_allclose(alone.scores[0], together.scores[row], rtol=1e-5)


def test_frames_beyond_a_row_change_nothing_in_an_exported_graph(tmp_path):
    module = tf.Module()
    module.language = language = adapted(3)
    signature = [tf.TensorSpec([None, None, 4]), tf.TensorSpec([None], tf.int32)]

    @tf.function(input_signature=signature, autograph=False)
    def answer(logits, lengths):
        options = {"plain": {}, "fused": {"language": language}}
        found = {name: decoding.ctc(logits, lengths, beams=8, **more).ids for name, more in options.items()}
        return {name: decoding.join_tokens(ids, ["", "a", "b", "c"]) for name, ids in found.items()}

    module.answer = answer
    tf.saved_model.save(module, str(tmp_path))
    loaded = tf.saved_model.load(str(tmp_path))
    found = loaded.answer
    longer = np.concatenate([LOGITS, np.full((4, 3, 4), 7, "float32")], axis=1)
    lengths = LENGTHS.astype("int32")
    for name, texts in found(LOGITS, lengths).items():
        np.testing.assert_array_equal(found(longer, lengths)[name], texts)


def test_tokens_are_joined_as_words_or_characters():
    ids = np.array([[[2, 3, 0, 0], [3, -1, 2, 9]]])
    assert decoding.join_tokens(ids, ["", "?", "un", "deux"]).numpy().tolist() == [[b"undeux", b"deuxun"]]
    assert decoding.join_tokens(ids, ["", "?", "un", "deux"], " ").numpy().tolist() == [[b"un deux", b"deux un"]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"blank": 4}, "invalid blank"),
        ({"beams": 0}, "invalid beams"),
        ({"language": kl.layers.NGrams(5)}, "NGrams of as many classes"),
    ],
)
def test_invalid_argument_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        decoding.ctc(LOGITS, **options)
