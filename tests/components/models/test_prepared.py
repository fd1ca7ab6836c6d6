"""What `build_model` may learn of the preprocessing."""

import keras
import numpy as np
import pytest

import kerasline as kl
from kerasline.components.core.errors import UserCodeError
from kerasline.components.models.prepared import Prepared

COLUMNS = {
    "review": ["good film", "bad film", "a film"],
    "tags": [["x", "y"], ["y"], []],
    "shop": ["north", "south", "north"],
    "price": [1.0, 2.0, 3.0],
    "stars": ["five", "one", "five"],
}


def preprocessing():
    text, shop, stars = (keras.Input((1,), name=name, dtype="string") for name in ("review", "shop", "stars"))
    tags, price = keras.Input((None,), name="tags", dtype="string"), keras.Input((1,), name="price")
    words = keras.layers.TextVectorization(output_sequence_length=4, name="words")(text)
    outputs = {
        "ids": words[:, :3],
        "tag_ids": keras.layers.StringLookup(mask_token="")(tags),
        "shop": kl.layers.FrequencyLookup(hash_bins=2)(shop),
        "price": keras.layers.Normalization(name="normalization")(price),
        "stars": kl.layers.ClassIndex()(stars),
    }
    inputs = {"review": text, "tags": tags, "shop": shop, "price": price, "stars": stars}
    return keras.Model(inputs, outputs)


@pytest.fixture(scope="module")
def transformed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    examples = kl.InMemoryExampleGen(COLUMNS, splits={"train": 1}).execute(folder / "examples").examples
    return kl.Transform(examples, function=preprocessing, label="stars").execute(folder / "out").preprocessing


@pytest.mark.parametrize("name", ["ids", "review", "words"])
def test_vocabulary_of_a_feature_a_column_and_a_layer(transformed, name):
    prepared = Prepared(transformed.load(), transformed.facts["class_names"])
    assert prepared.vocabulary(name)[:3] == ["", "[UNK]", "film"]
    assert prepared.vocabulary_size(name) == 6
    assert prepared.special_ids(name) == {"padding": 0, "unknown": 1}


def test_ids_are_places_in_the_vocabulary(transformed):
    prepared, model = Prepared(transformed.load(), transformed.facts["class_names"]), transformed.load()
    raw = {name: np.array([[values[0]]]) for name, values in COLUMNS.items() if name != "tags"}
    outputs = model({**raw, "tags": np.array([["y"]])})
    for name, value in (("tag_ids", "y"), ("shop", "north"), ("stars", "five")):
        assert prepared.vocabulary(name)[int(np.ravel(outputs[name])[0])] == value
    assert prepared.vocabulary_size("shop") == 1 + 2 + 2


def test_classes_and_shapes(transformed):
    prepared = Prepared(transformed.load(), transformed.facts["class_names"])
    assert prepared.class_names == ["five", "one"]
    assert (prepared.shape("ids"), prepared.shape("tag_ids")) == ((3,), (None,))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda prepared: prepared.vocabulary("id"), "no layer 'id'; .*ids"),
        (lambda prepared: prepared.vocabulary("price"), "no layer with a vocabulary for 'price'"),
        (lambda prepared: prepared.vocabulary("normalization"), "a Normalization, has no vocabulary"),
        (lambda prepared: prepared.shape("idz"), "no output 'idz'"),
    ],
)
def test_what_does_not_exist_is_named(transformed, call, message):
    with pytest.raises(UserCodeError, match=message):
        call(Prepared(transformed.load(), transformed.facts["class_names"]))


def test_build_model_receives_it_if_it_takes_a_third_argument(transformed, tmp_path):
    def build_model(inputs, hp, prepared):
        x = keras.layers.Embedding(prepared.vocabulary_size("ids"), 2)(inputs["ids"])
        output = keras.layers.Dense(len(prepared.class_names))(keras.layers.Flatten()(x))
        model = keras.Model(inputs, output)
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        return model

    built = kl.ModelBuilder(transformed, function=build_model).execute(tmp_path / "built")
    assert built.metrics["parameters"] == 6 * 2 + (3 * 2 + 1) * 2

    def fails(inputs, hp, prepared):
        raise ValueError("no such thing")

    with pytest.raises(UserCodeError, match=r"fails\(\) raised ValueError: no such thing"):
        kl.ModelBuilder(transformed, function=fails).execute(tmp_path / "failed")
