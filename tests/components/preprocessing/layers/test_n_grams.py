"""The language model of n-grams, against its formula on dictionaries of counts."""

import collections
import itertools

import keras
import numpy as np
import pytest

import kerasline as kl
from kerasline.components.core.errors import DataError

CLASSES = 4
IDS = np.array([[1, 2, 3, 1, 2], [2, 1, 2, 0, 0], [0, 0, 0, 0, 0], [3, 3, 0, 0, 0]])


def probability(word, before):
    """Witten and Bell's interpolation, by counting the texts once more."""
    if before is None:
        return 1 / CLASSES
    order, following = len(before) + 1, collections.Counter()
    for row in IDS:
        text = [0] * (order - 1) + [one for one in row.tolist() if one] + [0]
        for end in range(order - 1, len(text)):
            if tuple(text[end - order + 1 : end]) == before:
                following[text[end]] += 1
    kinds = len(following)
    lower = probability(word, before[1:] if before else None)
    return (following[word] + kinds * lower) / (following.total() + kinds) if kinds else lower


@pytest.mark.parametrize("order", [1, 2, 3])
def test_probabilities_are_those_of_the_formula(order):
    layer = kl.layers.NGrams(CLASSES, order)
    layer.adapt(IDS)
    contexts = np.array(list(itertools.product(range(CLASSES), repeat=order - 1)), int)
    found = np.exp(layer.log_probabilities(contexts))
    expected = [[probability(word, tuple(one)) for word in range(CLASSES)] for one in contexts.tolist()]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-6)


def test_ids_are_unchanged_and_counts_add_up(tmp_path):
    inputs = keras.Input((None,), dtype="int64")
    model = keras.Model(inputs, kl.layers.NGrams(CLASSES, 2, name="n_grams")(inputs))
    layer = model.get_layer("n_grams")
    parts = layer.new_state(), layer.new_state()
    parts[0].add(IDS[:1])
    parts[1].add(IDS[1:, :4])  # batches are padded to their own longest text
    parts[0].merge(parts[1])
    assert parts[0].readable()[:3] == [("1 2", 3), ("2 0", 2), ("0 0", 1)]
    layer.set_state(parts[0])
    whole = kl.layers.NGrams(CLASSES, 2)
    whole.adapt(IDS)
    np.testing.assert_array_equal(layer.table, whole.table)
    np.testing.assert_array_equal(model(IDS), IDS)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.get_layer("n_grams").table, whole.table)


def test_invalid_arguments_and_ids_are_refused():
    with pytest.raises(ValueError, match="NGrams: invalid order: expected classes \\*\\* order up to 4194304"):
        kl.layers.NGrams(100, 4)
    with pytest.raises(ValueError, match="invalid classes"):
        kl.layers.NGrams(1)
    with pytest.raises(ValueError, match="expected integers \\(rows, steps\\)"):
        kl.layers.NGrams(3)(keras.Input((3,)))
    with pytest.raises(DataError, match="expected ids from 0 to 2, received 0, 3"):
        kl.layers.NGrams(3).adapt(IDS)
