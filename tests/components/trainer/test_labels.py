"""Labels as people have them: texts, lists, none; and bad ones are refused before training, by row."""

import keras
import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

from kerasline import Evaluator, Exporter, ModelBuilder, Trainer, Transform
from kerasline.components.core.errors import DataError, KeraslineError, ParameterError
from kerasline.components.preprocessing.features import Number

RANDOM = np.random.default_rng(3)
ROWS = 40
A = RANDOM.normal(size=ROWS).astype("float32")
CLASS = RANDOM.integers(0, 3, ROWS)
SPECIES = np.array(["Adelie", "Chinstrap", "Gentoo"])[CLASS].tolist()
ONE_HOT = np.eye(3)[CLASS].tolist()
TAGS = RANDOM.integers(0, 2, (ROWS, 3))
SPARSE, CATEGORICAL, BINARY = "sparse_categorical_crossentropy", "categorical_crossentropy", "binary_crossentropy"


def preprocessing():
    a = keras.Input((1,), name="a")
    return keras.Model({"a": a}, {"f": keras.layers.Rescaling(1.0)(a)})


def dense(units, activation, loss):
    def build_model(inputs, hp):
        (feature,) = inputs.values()
        kernel = keras.initializers.Constant(np.linspace(-1, 1, units)[np.newaxis])
        outputs = keras.layers.Dense(units, activation, kernel_initializer=kernel, name="scores")(feature)
        model = keras.Model(inputs, outputs)
        model.compile(keras.optimizers.SGD(0.0), loss)
        return model

    return build_model


@pytest.fixture
def train(make_examples, tmp_path):
    """Train on columns: `train(build_model, y=..., **parameters)`. With a learning rate of 0, losses are known."""

    def train(build_model, *, label="y", features=None, weight=None, evaluation=None, **given):
        columns = {name: given.pop(name) for name in ("y", "w", "p", "q") if name in given}
        splits = {"train": {"a": A, **columns}, "eval": {"a": A, **columns, **(evaluation or {})}}
        examples = make_examples(splits, f"examples {len(list(tmp_path.iterdir()))}")
        folder = tmp_path / f"run {len(list(tmp_path.iterdir()))}"
        source = {"features": features} if features else {"function": preprocessing}
        transform = Transform(examples, label=label, sample_weight=weight, **source)
        prepared = transform.execute(folder / "prepared").preprocessing
        model = ModelBuilder(prepared, function=build_model).execute(folder / "model").model
        settings = {"epochs": 1, "batch_size": ROWS, "jit_compile": False, "tensorboard": False, **given}
        done = Trainer(examples, prepared, model, **settings).execute(folder / "trained")
        done.examples, done.prepared, done.folder = examples, prepared, folder
        return done

    return train


def softmax_losses():
    scores = A[:, np.newaxis].astype("float64") * np.linspace(-1, 1, 3)
    return np.log(np.exp(scores).sum(1)) - scores[np.arange(ROWS), CLASS]


def test_a_text_label_of_features_gives_classes_and_their_names(train):
    done = train(dense(3, "softmax", SPARSE), y=SPECIES, features={"a": Number(scale=None)})
    assert done.prepared.facts["class_names"] == ["Adelie", "Chinstrap", "Gentoo"]
    assert done.prepared.features == ["a"]
    np.testing.assert_allclose(done.metrics["loss"], softmax_losses().mean(), rtol=1e-5)
    evaluation = Evaluator(done.examples, done.prepared, done.trained_model, split="eval", replicates=0)
    scores = evaluation.execute(done.folder / "evaluated").evaluation.read_json("metrics.json")["outputs"]["scores"]
    assert scores["classes"] == ["Adelie", "Chinstrap", "Gentoo"]
    exported = Exporter(done.prepared, done.trained_model).execute(done.folder / "exported")
    assert exported.saved_model.read_json("kerasline.json")["class_names"] == ["Adelie", "Chinstrap", "Gentoo"]


def test_lists_of_texts_become_multi_hot_rows(train):
    names = np.array(["x", "y", "z"])
    done = train(
        dense(3, "sigmoid", BINARY), y=[names[row > 0].tolist() for row in TAGS], features={"a": Number(scale=None)}
    )
    scores = A[:, np.newaxis].astype("float64") * np.linspace(-1, 1, 3)
    expected = np.log1p(np.exp(scores)) - TAGS * scores
    np.testing.assert_allclose(done.metrics["loss"], expected.mean(), rtol=1e-5)
    assert done.prepared.facts["class_names"] == ["x", "y", "z"]


def test_raw_lists_of_one_length_are_one_hot_labels(train):
    done = train(dense(3, "softmax", CATEGORICAL), y=ONE_HOT)
    np.testing.assert_allclose(done.metrics["loss"], softmax_losses().mean(), rtol=1e-5)


@pytest.mark.parametrize(("label", "parameters"), [("y", {"y": SPECIES}), ("w", {"w": [["x"]] * ROWS})])
def test_a_raw_text_label_fails_in_transform_with_the_fix(train, label, parameters):
    with pytest.raises(DataError, match=rf"Transform.label: column '{label}' is text.*kerasline.layers.ClassIndex"):
        train(dense(3, "softmax", SPARSE), label=label, **parameters)


def test_a_text_weight_fails_in_transform(train):
    with pytest.raises(DataError, match=r"Transform.sample_weight: column 'w' is text, expected numbers"):
        train(dense(3, "softmax", SPARSE), y=CLASS, w=["1"] * ROWS, weight="w")


def replaced(values, row, value):
    return [*values[:row], value, *values[row + 1 :]]


@pytest.mark.parametrize(
    ("build", "parameters", "message"),
    [
        ((3, SPARSE), {"y": replaced(CLASS.tolist(), 7, 3)}, "'y' of row 7 of split 'train': .* 0 to 2.* received 3"),
        ((3, SPARSE), {"y": replaced(CLASS.tolist(), 7, -1)}, "row 7 .* received -1; .*ignore_class=-1"),
        ((3, SPARSE), {"y": CLASS + 0.5}, "row 0 .* expected a class from 0 to 2.* received"),
        ((3, SPARSE), {"y": CLASS, "evaluation": {"y": CLASS + 1}}, "of split 'eval': .* received 3"),
        ((3, SPARSE), {"y": replaced(CLASS.tolist(), 5, None)}, "'y'.* is missing in row 5 of split 'train'"),
        ((1, BINARY), {"y": replaced([0.0, 1.0] * 20, 3, 2.0)}, "row 3 .* numbers from 0 to 1 .* received 2"),
        ((1, "hinge"), {"y": replaced([-1, 1] * 20, 3, 2)}, "row 3 .* expected -1 or 1, or 0 or 1, received 2"),
        ((1, "mse"), {"y": replaced(A.tolist(), 2, float("nan"))}, "row 2 .* expected a finite number, received nan"),
        ((3, SPARSE), {"y": CLASS, "w": replaced([1.0] * ROWS, 9, -2.0), "weight": "w"}, "weight 'w' of row 9 .* -2"),
        ((1, BINARY), {"y": [0.5] * ROWS, "class_weight": {"1": 2.0}}, "row 0 .* expected a class.* received 0.5"),
    ],
)
def test_bad_values_are_refused_by_row_before_training(train, build, parameters, message):
    with pytest.raises(DataError, match=message):
        train(dense(build[0], None, build[1]), **parameters)


def test_a_class_that_the_lookup_lacks_is_refused_with_its_text(train):
    unseen = {"y": replaced(SPECIES, 4, "Emperor")}
    with pytest.raises(DataError, match="row 4 of split 'eval': .* received -1 computed from column 'y': 'Emperor'"):
        train(dense(3, "softmax", SPARSE), y=SPECIES, features={"a": Number()}, evaluation=unseen)


def test_the_message_names_only_the_columns_of_the_label_that_fails(make_examples, tmp_path):
    from kerasline.components.data.label_columns import LabelReader
    from kerasline.components.trainer.label_values import read_labels

    texts = {name: keras.Input((), name=name, dtype="string") for name in ("p", "q")}
    lookups = {name: keras.layers.StringLookup(vocabulary=["x"], num_oov_indices=0) for name in texts}
    model = keras.Model(texts, {f"{name} index": lookups[name](text) for name, text in texts.items()})
    examples = make_examples({"train": {"p": ["x", "x"], "q": ["x", "strange"]}})
    with pytest.raises(
        DataError, match="the label of row 1 of split 'train' .* from column 'q': 'strange': the lookup"
    ):
        list(read_labels(LabelReader(model, {}), examples, "train"))


def test_labels_of_sound_are_read_few_rows_at_a_time():
    """The columns are texts, but what is computed of them is large."""
    from kerasline import layers
    from kerasline.components.data.label_columns import LabelReader

    content = keras.Input((1,), name="content", dtype="string")
    frames = layers.LogMel(8000)(layers.AudioDecoding(None, 8000)(content))
    assert LabelReader(keras.Model({"content": content}, {"frames": frames}), {}).rows_per_batch < 256
    number = keras.layers.StringLookup(vocabulary=["x"])(content)
    assert LabelReader(keras.Model({"content": content}, {"number": number}), {}).rows_per_batch == 65536


def test_an_ignored_class_is_accepted(train):
    loss = keras.losses.SparseCategoricalCrossentropy(ignore_class=-1)
    done = train(dense(3, "softmax", loss), y=replaced(CLASS.tolist(), 7, -1))
    assert np.isfinite(done.metrics["loss"])


def test_a_loss_that_does_not_fit_fails_in_model_builder(train):
    with pytest.raises(ParameterError, match="ModelBuilder: output 'scores' with label 'y': .* use sparse_categorical"):
        train(dense(3, "softmax", CATEGORICAL), y=CLASS)
    with pytest.raises(ParameterError, match="Trainer.loss: output 'scores' .* use sparse_categorical"):
        train(dense(3, "softmax", SPARSE), y=CLASS, loss=CATEGORICAL)


WEIGHTS = np.array([1.0, 5.0, 1.0])


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize(("label", "loss"), [(CLASS, SPARSE), (ONE_HOT, CATEGORICAL)])
def test_classes_without_a_weight_count_one(train, label, loss, jit_compile):
    settings = {"class_weight": {1: 5.0}, "jit_compile": jit_compile, "eval_split": None}
    done = train(dense(3, "softmax", loss), y=label, **settings)
    np.testing.assert_allclose(done.metrics["loss"], (WEIGHTS[CLASS] * softmax_losses()).mean(), rtol=1e-5)


@pytest.mark.parametrize(("label", "loss"), [(CLASS, SPARSE), (ONE_HOT, CATEGORICAL)])
def test_balanced_weights_are_those_of_scikit_learn(train, label, loss):
    done = train(dense(3, "softmax", loss), y=label, class_weight="balanced", eval_split=None)
    weights = compute_class_weight("balanced", classes=np.arange(3), y=CLASS)
    np.testing.assert_allclose(done.metrics["loss"], (weights[CLASS] * softmax_losses()).mean(), rtol=1e-5)


@pytest.mark.parametrize("negative", [-1, 0])
def test_margin_labels_have_class_weights(train, negative):
    label = np.where(CLASS > 0, 1, negative)
    done = train(dense(1, None, "hinge"), y=label, class_weight={"1": 3.0}, eval_split=None)
    losses = np.maximum(1 - np.where(CLASS > 0, 1, -1) * -A, 0)  # the kernel is -1
    np.testing.assert_allclose(done.metrics["loss"], (np.where(CLASS > 0, 3, 1) * losses).mean(), rtol=1e-5)


def test_a_multi_hot_row_has_the_mean_weight_of_its_classes(train):
    done = train(dense(3, "sigmoid", BINARY), y=TAGS.tolist(), class_weight={"1": 5.0}, eval_split=None)
    scores = A[:, np.newaxis].astype("float64") * np.linspace(-1, 1, 3)
    losses = (np.log1p(np.exp(scores)) - TAGS * scores).mean(1)
    weights = [WEIGHTS[row > 0].mean() if row.any() else 1 for row in TAGS]
    np.testing.assert_allclose(done.metrics["loss"], (weights * losses).mean(), rtol=1e-5)


def test_class_weights_multiply_sample_weights(train):
    weight = np.abs(A)
    done = train(dense(3, "softmax", SPARSE), y=CLASS, w=weight, weight="w", class_weight={"1": 5.0}, eval_split=None)
    np.testing.assert_allclose(done.metrics["loss"], (weight * WEIGHTS[CLASS] * softmax_losses()).mean(), rtol=1e-5)


def two_outputs(inputs, hp):
    outputs = {name: keras.layers.Dense(1)(inputs["f"]) for name in ("p", "q")}
    model = keras.Model(inputs, outputs)
    model.compile("sgd", {"p": "mse", "q": "mae"})
    return model


def test_labels_that_are_no_outputs_are_refused(train):
    with pytest.raises(ParameterError, match="label 'w' needs an output of its name, which does not exist"):
        train(two_outputs, label=["p", "q", "w"], p=A, q=A, w=A)
    with pytest.raises(ParameterError, match="output 'q' has a loss but no label of its name; labels: p, w"):
        train(two_outputs, label=["p", "w"], p=A, w=A)


def test_one_label_trains_all_outputs_with_a_loss(train):
    done = train(two_outputs, y=A)
    assert {"p_loss", "q_loss"} <= set(done.metrics) or np.isfinite(done.metrics["loss"])


def evaluated(done):
    evaluator = Evaluator(done.examples, done.prepared, done.trained_model, split="eval", replicates=0)
    return evaluator.execute(done.folder / "evaluated").metrics


@pytest.mark.parametrize("label", [None, "a"])
def test_features_can_be_the_target(train, label):
    done = train(dense(1, None, "mse"), label=label, features={"a": Number(scale=None)})
    expected = np.mean((-A - A) ** 2)  # the kernel is -1
    np.testing.assert_allclose(done.metrics["loss"], expected, rtol=1e-5)
    np.testing.assert_allclose(done.metrics["val_loss"], expected, rtol=1e-5)
    np.testing.assert_allclose(evaluated(done)["loss"], expected, rtol=1e-5)
    exported = Exporter(done.prepared, done.trained_model).execute(done.folder / "exported")
    assert list(exported.saved_model.read_json("kerasline.json")["inputs"]) == ["a"]


def test_without_a_label_an_output_needs_a_feature_of_its_name(train):
    with pytest.raises(ParameterError, match="output 'p' has a loss, but Transform.label is None and no feature has"):
        train(two_outputs, label=None)


@keras.saving.register_keras_serializable("tests")
class Denoiser(keras.Model):
    """Predicts its input and has a training step of its own."""

    def train_step(self, data):
        return {"loss": keras.ops.mean((self(data) - data["f"]) ** 2)}

    test_step = train_step


@keras.saving.register_keras_serializable("tests")
class OnlyTrains(keras.Model):
    train_step = Denoiser.train_step


def custom(model_class):
    def build_model(inputs, hp):
        kernel = keras.initializers.Constant(-1.0)
        model = model_class(inputs, keras.layers.Dense(1, kernel_initializer=kernel)(inputs["f"]))
        model.compile("sgd", "mse")
        return model

    return build_model


def test_a_custom_train_step_without_a_label_receives_the_features(train):
    done = train(custom(Denoiser), label=None)
    np.testing.assert_allclose(done.metrics["loss"], np.mean((-A - A) ** 2), rtol=1e-5)
    with pytest.raises(KeraslineError, match="overrides train_step but not test_step"):
        train(custom(OnlyTrains), label=None)


def bare(inputs, hp):
    model = keras.Model(inputs["f"], keras.layers.Dense(1, kernel_initializer="ones")(inputs["f"]))
    model.compile(keras.optimizers.SGD(0.0), "mse")
    return model


def test_a_model_may_take_one_bare_tensor(train):
    done = train(bare, y=A * 2)
    np.testing.assert_allclose(done.metrics["loss"], np.mean(A**2), rtol=1e-5)
    np.testing.assert_allclose(evaluated(done)["loss"], np.mean(A**2), rtol=1e-5)


@pytest.mark.parametrize("kind", [dict, list])
def test_a_model_may_take_some_of_the_features(train, kind):
    def build_model(inputs, hp):
        taken = {"last": inputs["last"]} if kind is dict else [inputs["last"]]
        model = keras.Model(taken, keras.layers.Dense(1, kernel_initializer="ones")(inputs["last"]))
        model.compile(keras.optimizers.SGD(0.0), "mse")
        return model

    features = {"first": Number(column="p", scale=None), "last": Number(column="a", scale=None)}
    done = train(build_model, features=features, y=A * 2, p=A + 9)
    np.testing.assert_allclose(done.metrics["loss"], np.mean(A**2), rtol=1e-5)
    np.testing.assert_allclose(done.metrics["val_loss"], np.mean(A**2), rtol=1e-5)
    np.testing.assert_allclose(evaluated(done)["loss"], np.mean(A**2), rtol=1e-5)
