import dataclasses
import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

import kerasline as kl
from kerasline import Explainer, ModelBuilder, Transform
from kerasline.components.core.errors import DataError, KeraslineError, ParameterError, UserCodeError
from kerasline.components.data.model_inputs import feed
from kerasline.components.data.training_input import dataset

ROWS = 500
RANDOM = np.random.default_rng(1)
SIZE = RANDOM.normal(5, 2, ROWS).astype("float32")
WORD = RANDOM.choice(["a", "b", "b", "c", "c", "c", "rare"], ROWS).tolist()
CODE = RANDOM.choice([3, 5, 5, 8, 8, 8], ROWS)
TEXT = RANDOM.choice(["the cat", "the dog", "a cat"], ROWS).tolist()
COLUMNS = {"size": SIZE, "word": WORD, "code": CODE, "text": TEXT, "target": RANDOM.integers(0, 3, ROWS)}


def preprocessing():
    raw = {
        "size": keras.Input((1,), name="size"),
        "word": keras.Input((1,), name="word", dtype="string"),
        "code": keras.Input((1,), name="code", dtype="int64"),
        "text": keras.Input((1,), name="text", dtype="string"),
    }
    return keras.Model(
        raw,
        {
            "size": keras.layers.Normalization(name="size_scaled")(raw["size"]),
            "size_bin": keras.layers.Discretization(num_bins=4, name="size_bin")(raw["size"]),
            "word": keras.layers.StringLookup(name="word_index")(raw["word"]),
            "code": keras.layers.IntegerLookup(name="code_index")(raw["code"]),
            "text": keras.layers.TextVectorization(output_sequence_length=3, name="tokens")(raw["text"]),
        },
    )


def chained():
    """Build a Discretization of a normalized size, whose adaptation needs the output of the normalization."""
    size = keras.Input((1,), name="size")
    scaled = keras.layers.Normalization(name="scaled")(size)
    return keras.Model({"size": size}, {"bin": keras.layers.Discretization(num_bins=4, name="bin")(scaled)})


def with_label():
    size, word = keras.Input((1,), name="size"), keras.Input((), name="word", dtype="string")
    outputs = {
        "size": keras.layers.Normalization()(size),
        "answer": keras.layers.StringLookup(num_oov_indices=0)(word),
    }
    return keras.Model({"size": size, "word": word}, outputs)


def test_states_agree_with_keras_adapt(make_examples, tmp_path):
    done = Transform(make_examples({"train": COLUMNS}), function=preprocessing).execute(tmp_path / "out")
    ours = done.preprocessing.load()
    assert done.metrics == {"adapted_layers": 5, "passes": 1}
    normal = keras.layers.Normalization()
    normal.adapt(SIZE[:, None])
    np.testing.assert_allclose(ours.get_layer("size_scaled").mean, normal.mean, rtol=1e-6)
    np.testing.assert_allclose(ours.get_layer("size_scaled").variance, normal.variance, rtol=1e-5)
    for name, layer, values in (
        ("word_index", keras.layers.StringLookup(), np.array(WORD)),
        ("code_index", keras.layers.IntegerLookup(), CODE),
        ("tokens", keras.layers.TextVectorization(), np.array(TEXT)),
    ):
        layer.adapt(values)
        assert ours.get_layer(name).get_vocabulary() == layer.get_vocabulary()
    expected = np.quantile(SIZE, [0.25, 0.5, 0.75], method="inverted_cdf")
    np.testing.assert_allclose(ours.get_layer("size_bin").bin_boundaries, expected, rtol=1e-6)


def test_vocabularies_are_readable_with_counts(make_examples, tmp_path):
    done = Transform(make_examples({"train": COLUMNS}), function=preprocessing).execute(tmp_path / "out")
    lines = (done.preprocessing.path / "state" / "word_index.txt").read_text().splitlines()
    assert dict(line.split("\t") for line in lines) == {w: str(WORD.count(w)) for w in set(WORD)}


def test_missing_values_do_not_count(make_examples, tmp_path):
    holes = {
        **COLUMNS,
        "size": [None if i % 5 == 0 else float(v) for i, v in enumerate(SIZE)],
        "word": [None if i % 5 == 0 else v for i, v in enumerate(WORD)],
    }
    done = Transform(make_examples({"train": holes}), function=preprocessing).execute(tmp_path / "out")
    known = [v for v in holes["size"] if v is not None]
    model = done.preprocessing.load()
    np.testing.assert_allclose(model.get_layer("size_scaled").mean, [[np.mean(known)]], rtol=1e-6)
    assert set(model.get_layer("word_index").get_vocabulary()) == {"[UNK]", *WORD}


def test_layer_is_adapted_on_the_output_of_its_predecessor(make_examples, tmp_path):
    done = Transform(make_examples({"train": COLUMNS}), function=chained).execute(tmp_path / "out")
    assert done.metrics["passes"] == 2
    scaled = (SIZE - SIZE.mean()) / SIZE.std()
    expected = np.quantile(scaled, [0.25, 0.5, 0.75], method="inverted_cdf")
    np.testing.assert_allclose(done.preprocessing.load().get_layer("bin").bin_boundaries, expected, atol=1e-5)


def test_serving_does_not_need_the_columns_of_the_label(make_examples, tmp_path):
    done = Transform(make_examples({"train": COLUMNS}), function=with_label, label="answer").execute(tmp_path / "out")
    features = done.preprocessing.load_features()
    assert list(features.input) == ["size"] and list(features.output) == ["size"]
    by_count = sorted(set(WORD), key=lambda word: (WORD.count(word), word), reverse=True)
    assert done.preprocessing.facts["class_names"] == by_count


def adapted(examples, tmp_path, layer, name="word", dtype="string", shape=(1,)):
    """Return the layer as Transform adapts it on one column."""

    def function():
        raw = keras.Input(shape, name=name, dtype=dtype)
        return keras.Model({name: raw}, {"out": layer(raw)})

    done = Transform(examples, function=function).execute(tmp_path / "out")
    return done.preprocessing.load().get_layer(layer.name)


OLD_KERAS = tuple(int(part) for part in keras.__version__.split(".")[:2]) < (3, 14)
needs_tf_idf = pytest.mark.skipif(OLD_KERAS, reason="Keras before 3.14 cannot load TF-IDF lookups")


def tf_idf(**options):
    return pytest.param({"output_mode": "tf_idf", **options}, marks=needs_tf_idf)


LOOKUPS = [
    {},
    {"max_tokens": 3},
    {"mask_token": ""},
    {"mask_token": "b", "num_oov_indices": 2},
    {"num_oov_indices": 0},
    tf_idf(),
    {"output_mode": "multi_hot", "max_tokens": 5},
]
TEXTS = ["the cat sat", "the, dog", "a cat", "the THE", "dog"]


@pytest.mark.parametrize("options", LOOKUPS)
def test_lookup_agrees_with_keras_on_ties_and_reserved_tokens(make_examples, tmp_path, options):
    words = ["a", "b", "[UNK]", "c", "b", "é", "z", "Z", "é", "aa"]
    ours = adapted(make_examples({"train": {"word": words}}), tmp_path, keras.layers.StringLookup(**options))
    keras_own = keras.layers.StringLookup(**options)
    keras_own.adapt(np.array(words)[:, None])
    assert ours.get_vocabulary() == keras_own.get_vocabulary()
    known = np.array([[word] for word in words if word != "[UNK]"])
    np.testing.assert_allclose(ours(known), keras_own(known), rtol=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {"ngrams": 2},
        {"split": "character"},
        {"split": None},
        {"ragged": True},
        {"max_tokens": 4},
        {"output_mode": "multi_hot"},
        {"output_mode": "count", "max_tokens": 4, "pad_to_max_tokens": True},
        tf_idf(),
        tf_idf(ngrams=2),
    ],
)
def test_text_vectorization_agrees_with_keras(make_examples, tmp_path, options):
    ours = adapted(make_examples({"train": {"word": TEXTS}}), tmp_path, keras.layers.TextVectorization(**options))
    keras_own = keras.layers.TextVectorization(**options)
    keras_own.adapt(np.array(TEXTS))
    assert ours.get_vocabulary() == keras_own.get_vocabulary()
    if "tf_idf" in options.values():
        np.testing.assert_allclose(ours(np.array(TEXTS)), keras_own(np.array(TEXTS)), rtol=1e-6)


@keras.saving.register_keras_serializable("test_transform")
def without_breaks(texts):
    return tf.strings.regex_replace(tf.strings.lower(texts), "<br />", " ")


@keras.saving.register_keras_serializable("test_transform")
def at_commas(texts):
    return tf.strings.split(texts, ",")


@pytest.mark.parametrize("options", [{"standardize": without_breaks}, {"split": at_commas}])
def test_text_vectorization_accepts_registered_functions(make_examples, tmp_path, options):
    texts = ["One<br />two", "one,THREE", "two, one"]
    options = {**options, "output_sequence_length": 4}
    ours = adapted(make_examples({"train": {"word": texts}}), tmp_path, keras.layers.TextVectorization(**options))
    keras_own = keras.layers.TextVectorization(**options)
    keras_own.adapt(np.array(texts))
    assert ours.get_vocabulary() == keras_own.get_vocabulary()
    np.testing.assert_array_equal(ours(np.array(texts)), keras_own(np.array(texts)))


@pytest.mark.skipif(not OLD_KERAS, reason="Keras from 3.14 on loads TF-IDF lookups")
def test_tf_idf_that_keras_could_not_load_is_refused(make_examples, tmp_path):
    with pytest.raises(UserCodeError, match="Keras 3.14 can"):
        adapted(make_examples({"train": {"word": TEXTS}}), tmp_path, keras.layers.StringLookup(output_mode="tf_idf"))


def test_layer_called_twice_is_adapted_on_both_inputs(make_examples, tmp_path):
    def function():
        raw = {name: keras.Input((1,), name=name) for name in ("left", "right")}
        layer = keras.layers.Normalization(name="both")
        return keras.Model(raw, {name: layer(tensor) for name, tensor in raw.items()})

    examples = make_examples({"train": {"left": [1.0, 2.0], "right": [5.0, 8.0]}})
    layer = Transform(examples, function=function).execute(tmp_path / "out").preprocessing.load().get_layer("both")
    np.testing.assert_allclose([layer.mean, layer.variance], [[[4.0]], [[7.5]]], rtol=1e-6)


def test_layer_adapted_by_the_user_is_unchanged(make_examples, tmp_path):
    layer = keras.layers.Normalization()
    layer.adapt(np.array([[10.0], [20.0]]))
    ours = adapted(make_examples({"train": COLUMNS}), tmp_path, layer, "size", "float32")
    np.testing.assert_allclose(ours.mean, [[15.0]])


@pytest.mark.parametrize("axis", [None, -1, (1, 2)])
def test_normalization_has_the_axes_of_keras(make_examples, tmp_path, axis):
    import pyarrow as pa

    pixels = RANDOM.integers(0, 256, (50, 3, 2), dtype="uint8")
    batch = pa.RecordBatch.from_arrays([pa.FixedShapeTensorArray.from_numpy_ndarray(pixels)], ["image"])
    layer = keras.layers.Normalization(axis=axis)
    ours = adapted(make_examples({"train": batch}), tmp_path, layer, "image", "uint8", (3, 2))
    keras_own = keras.layers.Normalization(axis=axis)
    keras_own.adapt(pixels.astype("float32"))
    np.testing.assert_allclose(ours.mean, keras_own.mean, rtol=1e-6)
    np.testing.assert_allclose(ours.variance, keras_own.variance, rtol=1e-5)


def test_bin_boundaries_are_the_same_in_every_run(make_examples, tmp_path):
    examples = make_examples({"train": {"size": np.random.default_rng(6).normal(size=200_000)}})
    first, second = (
        adapted(examples, tmp_path / part, keras.layers.Discretization(num_bins=9), "size", "float32").bin_boundaries
        for part in ("a", "b")
    )
    assert first == second and len(first) == 8


@keras.saving.register_keras_serializable("test_transform")
class Largest(keras.layers.Layer):
    """A layer with its own state: divides its input by the largest value of the data."""

    def build(self, shape):
        self.largest = self.add_weight(shape=(), initializer="zeros", trainable=False, name="largest")

    def call(self, values):
        return values / self.largest

    def new_state(self):
        return LargestSeen()

    def set_state(self, state):
        self.largest.assign(state.largest)


class LargestSeen:
    largest = 0.0

    def add(self, values):
        self.largest = max(self.largest, float(values.max()))

    def merge(self, other):
        self.largest = max(self.largest, other.largest)

    def readable(self):
        return {"largest": self.largest}


def test_custom_layer_is_adapted(make_examples, tmp_path):
    ours = adapted(make_examples({"train": COLUMNS}), tmp_path, Largest(), "size", "float32")
    np.testing.assert_allclose(ours.largest, SIZE.max())


def raises():
    raise RuntimeError("no luck")


def wants_more():
    size = keras.Input((1,), name="sise")
    return keras.Model({"sise": size}, {"x": keras.layers.Rescaling(1.0)(size)})


@keras.saving.register_keras_serializable("test_transform")
class Hiding(keras.layers.Layer):
    def __init__(self, **options):
        super().__init__(**options)
        self.inside = keras.layers.Normalization(name="scaled")

    def call(self, values):
        return self.inside(values)


def hides():
    size = keras.Input((1,), name="size")
    return keras.Model({"size": size}, {"x": Hiding(name="part")(size)})


@pytest.mark.parametrize(
    ("function", "label", "error", "message"),
    [
        (raises, None, UserCodeError, r"raises\(\) raised RuntimeError: no luck \(.*test_transform.py, line \d+\)"),
        (
            lambda: 3,
            None,
            UserCodeError,
            "must return a functional keras.Model .* or a keras.utils.FeatureSpace; it returned int",
        ),
        (wants_more, None, DataError, r"no column 'sise', an input of wants_more\(\); did you mean 'size'\?"),
        (hides, None, UserCodeError, r"hides\(\): layer 'scaled' must be adapted but lies inside layer 'part'"),
        (chained, "targte", DataError, "'targte' is neither an output .* did you mean 'target'"),
    ],
)
def test_errors_in_user_code_are_one_line(make_examples, tmp_path, function, label, error, message):
    with pytest.raises(error, match=message):
        Transform(make_examples({"train": COLUMNS}), function=function, label=label).execute(tmp_path / "out")


@pytest.fixture
def prepared(make_examples, tmp_path):
    examples = make_examples({"train": {**COLUMNS, "target": np.arange(ROWS)}})
    return examples, Transform(examples, function=chained, label="target").execute(tmp_path / "out").preprocessing


def order_of(prepared, tmp_path, **options):
    data = dataset(prepared[0], "train", prepared[1], batch_size=64, work_dir=tmp_path, **options)
    return [label.numpy().tolist() for _, label in data]


def test_every_epoch_has_every_row_once_in_a_new_order(prepared, tmp_path):
    batches = order_of(prepared, tmp_path, seed=7, epochs=2)
    assert [len(b) for b in batches] == ([64] * 7 + [52]) * 2
    first, second = sum(batches[:8], []), sum(batches[8:], [])
    assert sorted(first) == sorted(second) == list(range(ROWS)) and first != second


def test_seed_determines_the_order(prepared, tmp_path):
    same = [order_of(prepared, tmp_path, seed=7), order_of(prepared, tmp_path, seed=7)]
    assert same[0] == same[1] != order_of(prepared, tmp_path, seed=8)
    assert sum(order_of(prepared, tmp_path), []) == list(range(ROWS))
    assert order_of(prepared, tmp_path, seed=7, epochs=2)[8:] == order_of(prepared, tmp_path, seed=7, first_epoch=1)


EDGES = {
    "one row": {"size": [2.5], "word": ["a"], "code": [3], "text": ["the cat"]},
    "constant": {"size": [2.5] * 9, "word": ["a"] * 9, "code": [3] * 9, "text": ["the cat"] * 9},
    "nulls": {"size": [None, 2.5], "word": [None, "a"], "code": [None, 3], "text": [None, "the cat"]},
    "nothing but nulls": {"size": [None] * 3, "word": [None] * 3, "code": [None] * 3, "text": ["the cat"] * 3},
    "not finite": {
        "size": [float("inf"), -float("inf"), float("nan"), 1.0],
        "word": ["", "a", "a", ""],
        "code": [-1, 3, 3, 4],
        "text": ["", "a", "...", "\x00 b"],
    },
    "no UTF-8": {"size": [1.0, 2.0], "word": [b"\xff\xfe", b"a"], "code": [1, 2], "text": [b"\xff cat", b"dog"]},
}


@pytest.mark.parametrize("name", EDGES)
def test_edge_case_rows_are_adapted_and_fed(make_examples, tmp_path, name):
    import pyarrow as pa

    kinds = {"size": pa.float64(), "code": pa.int64()}
    batch = pa.RecordBatch.from_pydict({n: pa.array(v, kinds.get(n)) for n, v in EDGES[name].items()})
    if name == "nothing but nulls":
        batch = batch.set_column(1, "word", pa.array([None] * 3, pa.string()))
    done = Transform(make_examples({"train": batch}), function=preprocessing).execute(tmp_path / "out")
    model = done.preprocessing.load()
    outputs = model({n: tf.convert_to_tensor(v) for n, v in feed(batch, model.input).items()})
    known = np.isfinite(np.array([np.nan if v is None else v for v in EDGES[name]["size"]]))
    assert np.isfinite(outputs["size"][:, 0].numpy()[known]).all()
    unseen = model(
        {
            "size": tf.constant([[9.0]]),
            "word": tf.constant([["new"]]),
            "code": tf.constant([[99]], tf.int64),
            "text": tf.constant([["new"]]),
        }
    )
    assert unseen["word"].numpy() == 0 and unseen["code"].numpy() == 0 and unseen["text"].numpy()[0, 0] == 1


def test_split_without_rows_is_reported(make_examples, tmp_path):
    examples = make_examples({"train": {"size": [1.0]}, "eval": {"size": []}})
    with pytest.raises(DataError, match="Transform.split: 'eval' has no rows to adapt layers on"):
        Transform(examples, function=chained, split="eval").execute(tmp_path / "out")


@keras.saving.register_keras_serializable("test_transform")
class Parsed(keras.layers.Layer):
    def call(self, texts):
        return tf.strings.to_number(texts)


def test_failing_operations_are_named_with_their_layer_and_column(make_examples, tmp_path):
    """In adaptation, and in Explainer."""
    rows = {"fare": ["1.5", "2.5", "3.5"], "tip": [0.0, 1.0, 0.0]}
    examples = make_examples({"train": rows, "test": {**rows, "fare": ["1", "free", "3"]}})

    def preprocessing():
        fare = keras.Input((1,), name="fare", dtype="string")
        scaled = keras.layers.Normalization()(Parsed(name="parsed")(fare))
        return keras.Model({"fare": fare}, {"fare": scaled})

    def build_model(inputs, hp):
        model = keras.Model(inputs, keras.layers.Dense(1)(inputs["fare"]))
        model.compile("sgd", "mse")
        return model

    message = r"layer 'parsed' \(column 'fare'\): .*could not correctly convert string: free"
    with pytest.raises(DataError, match=message):
        Transform(examples, function=preprocessing, label="tip", split="test").execute(tmp_path / "t")
    prepared = Transform(examples, function=preprocessing, label="tip").execute(tmp_path / "p").preprocessing
    model = ModelBuilder(prepared, function=build_model).execute(tmp_path / "m").model
    with pytest.raises(DataError, match=message):
        Explainer(examples, prepared, model, split="test").execute(tmp_path / "x")


WEIGHTED = {
    "word": ["a"] * 5 + ["b"] * 3 + ["c"] * 2,
    "size": [float(number) for number in range(10)],
    "weight": [1.0] * 5 + [1.0] * 3 + [10.0] * 2,
    "answer": ["no"] * 2 + ["yes"] * 3 + ["no"] * 3 + ["yes"] * 2,
}


def test_weights_and_the_label_decide_vocabularies_and_buckets(make_examples, tmp_path):
    features = {
        "word": kl.features.Category(sample_weight="weight"),
        "telling": kl.features.Category(column="word", order="mutual_information"),
        "size": kl.features.Buckets(2, sample_weight="weight"),
    }
    examples = make_examples({"train": WEIGHTED})
    done = Transform(examples, features=features, label="answer").execute(tmp_path / "out")
    model = done.preprocessing.load()
    by_name = {layer.name: layer for layer in model.layers}
    assert by_name["word_index"].vocabulary == ["c", "a", "b"]
    assert by_name["telling_index"].vocabulary == ["b", "c", "a"]
    word, size = np.array([["a"], ["c"]]), np.array([[7.0], [8.0]])
    out = model({"word": word, "size": size, "answer": np.array([["yes"], ["no"]])})
    assert out["size"].numpy().tolist() == [[1], [2]]
    assert "weight" not in done.preprocessing.facts["served_inputs"]


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        ("wieght", "has sample_weight='wieght', which is neither an output .* did you mean 'weight'"),
        ("word", "column 'word': expected weights that are numbers"),
    ],
)
def test_wrong_weight_column_is_refused(make_examples, tmp_path, weight, message):
    features = {"size": kl.features.Buckets(2, sample_weight=weight)}
    with pytest.raises(KeraslineError, match=message):
        Transform(make_examples({"train": WEIGHTED}), features=features).execute(tmp_path / "out")


def test_negative_weight_is_refused(make_examples, tmp_path):
    columns = {**WEIGHTED, "weight": [-1.0] * 10}
    features = {"size": kl.features.Buckets(2, sample_weight="weight")}
    with pytest.raises(DataError, match="column 'weight': expected finite weights from 0, received -1.0"):
        Transform(make_examples({"train": columns}), features=features).execute(tmp_path / "out")


@pytest.mark.parametrize(
    ("feature", "expected"),
    [
        (kl.features.Hashed(10, may_be_missing=False), False),
        (kl.features.Hashed(10), True),
        (kl.features.Cross(["rating", "code"], 10, may_be_missing=False), False),
        (kl.features.TargetEncoded(may_be_missing=False, smooth=0), False),
        (kl.features.Category(may_be_missing=False), False),
    ],
)
def test_minus_one_is_missing_unless_declared_otherwise(make_examples, tmp_path, feature, expected):
    examples = make_examples({"train": {"rating": [-1, -1, 1, 2], "code": [1, 1, 2, 2], "y": [1.0, 1.0, 0.0, 0.0]}})
    if not isinstance(feature, kl.features.Cross):
        feature = dataclasses.replace(feature, column="rating")
    done = Transform(examples, features={"out": feature}, label="y").execute(tmp_path / "out")
    model = done.preprocessing.load()
    found = model({name: np.array([[-1]]) for name in model.input})["out"].numpy()[0, 0]
    assert (found == 0) == expected


@pytest.mark.parametrize(
    ("column", "found"), [([3, None, 1, 2], "missing values"), ([[1], [1, 2], [3], [4]], "lists of varying length")]
)
@pytest.mark.parametrize("feature", [kl.features.Category, functools.partial(kl.features.Hashed, 10)])
def test_missing_integers_are_refused_where_nothing_may_be_missing(make_examples, tmp_path, column, found, feature):
    examples = make_examples({"train": {"rating": column}})
    with pytest.raises(DataError, match=f"column 'rating' has {found}, which would be filled with -1, an ordinary"):
        Transform(examples, features={"rating": feature(may_be_missing=False)}).execute(tmp_path / "out")
    assert Transform(examples, features={"rating": feature()}).execute(tmp_path / "missing").metrics


def test_earlier_preprocessing_is_used_with_its_state(make_examples, tmp_path):
    def function():
        word = keras.Input((1,), name="word", dtype="string")
        return keras.Model({"word": word}, {"id": keras.layers.StringLookup()(word)})

    examples = make_examples({"train": {"word": ["a", "b", "b"]}, "later": {"word": ["c", "b", "a"]}})
    first = Transform(examples, function=function).execute(tmp_path / "first")
    second = Transform(examples, initial=first.preprocessing, split="later").execute(tmp_path / "second")
    assert second.metrics["adapted_layers"] == 0
    assert second.preprocessing.load()({"word": np.array([["b"], ["c"]])})["id"].numpy().tolist() == [[1], [0]]
    assert second.preprocessing.facts["state"] == first.preprocessing.facts["state"]
    with pytest.raises(ParameterError, match="expected one of `function`, `features` and an `initial`"):
        Transform(examples, initial=first.preprocessing, function=function).execute(tmp_path / "third")
