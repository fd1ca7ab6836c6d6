"""Nested models and FeatureSpaces that a function returns are adapted as Keras adapts them."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasline import Transform

RANDOM = np.random.default_rng(1)
ROWS = 300
COLUMNS = {
    "size": RANDOM.normal(5, 2, ROWS).astype("float32"),
    "weight": RANDOM.normal(size=ROWS).astype("float32"),
    "word": RANDOM.choice(["a", "b", "b", "c"], ROWS),
    "code": RANDOM.choice([3, 5, 5, 8], ROWS),
}


def space(output_mode="concat"):
    features = keras.utils.FeatureSpace
    return features(
        {
            "size": features.float_normalized(),
            "weight": features.float_discretized(num_bins=4),
            "word": features.string_categorical(num_oov_indices=1),
            "code": features.integer_categorical(num_oov_indices=1, output_mode="one_hot"),
        },
        crosses=[features.cross(("word", "code"), crossing_dim=8)],
        output_mode=output_mode,
    )


@pytest.mark.parametrize("mode", ["concat", "dict"])
def test_feature_space_is_adapted_in_one_pass_as_in_keras(make_examples, tmp_path, mode):
    done = Transform(make_examples({"train": COLUMNS}), function=lambda: space(mode)).execute(tmp_path / "out")
    assert done.metrics == {"adapted_layers": 4, "passes": 1}
    theirs = space(mode)
    theirs.preprocessors["weight"].bin_boundaries = (  # Keras's own are approximate; ours are exact
        np.quantile(COLUMNS["weight"], [0.25, 0.5, 0.75], method="inverted_cdf").tolist()
    )
    boundaries = theirs.preprocessors["weight"].bin_boundaries
    theirs.adapt(tf.data.Dataset.from_tensor_slices(COLUMNS).batch(64))
    theirs.preprocessors["weight"].bin_boundaries = boundaries
    rows = {name: tf.constant(values[:50, None]) for name, values in COLUMNS.items()}
    ours, expected = done.preprocessing.load()(rows), theirs(rows)
    expected = expected if mode == "dict" else {"features": expected}
    assert set(ours) == set(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(ours[name], values, rtol=1e-5, atol=1e-6)


def nested():
    inside = keras.Input((1,))
    scaled = keras.layers.Normalization(name="scaled")(inside)
    part = keras.Model(inside, scaled, name="part")
    sequence = keras.Sequential([keras.layers.Rescaling(2.0), keras.layers.Discretization(num_bins=3, name="bin")])
    size = keras.Input((1,), name="size")
    return keras.Model({"size": size}, {"scaled": part(size), "bin": sequence(part(size))})


def test_layers_of_nested_models_are_adapted_in_place(make_examples, tmp_path):
    done = Transform(make_examples({"train": COLUMNS}), function=nested).execute(tmp_path / "out")
    assert done.metrics == {"adapted_layers": 2, "passes": 2}
    outputs = done.preprocessing.load()({"size": tf.constant(COLUMNS["size"][:, None])})
    size = COLUMNS["size"].astype(np.float64)
    scaled = (size - size.mean()) / size.std()
    np.testing.assert_allclose(outputs["scaled"][:, 0], scaled, rtol=1e-4, atol=1e-5)
    bounds = np.quantile(2 * scaled, [1 / 3, 2 / 3], method="inverted_cdf")
    bins = outputs["bin"][:, 0].numpy()
    assert (bins != np.searchsorted(bounds, 2 * scaled, side="right")).mean() <= 2 / ROWS  # the boundaries themselves
