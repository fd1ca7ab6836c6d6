"""Target encoding against scikit-learn, and out-of-fold in training so that it does not leak."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import sklearn.preprocessing
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from kerasline import Transform
from kerasline.components.core.errors import ParameterError
from kerasline.components.data.training_input import Chunks, dataset
from kerasline.components.preprocessing.features import TargetEncoded
from kerasline.components.preprocessing.layers import TargetEncoding
from kerasline.components.preprocessing.layers.target_encoding import TargetMoments
from kerasline.components.preprocessing.training_mode import fold_of
from tests.components.preprocessing.layers.round_trip import in_tf_data, round_trips

RANDOM = np.random.default_rng(3)
ROWS = 400
CATEGORY = RANDOM.choice(["a", "b", "b", "é", "rare"], ROWS)
BINARY = (RANDOM.random(ROWS) < np.where(CATEGORY == "a", 0.8, 0.3)).astype("int64")
LABELS = {"binary": BINARY, "continuous": RANDOM.normal(1000, 3, ROWS), "multiclass": RANDOM.integers(0, 3, ROWS)}
FOLDS = fold_of(np.arange(ROWS), 5).numpy()


def target_type(kind):
    return "multiclass" if kind == "multiclass" else "numeric"


def theirs(kind, smooth, category=CATEGORY, label=None):
    encoder = sklearn.preprocessing.TargetEncoder(smooth=smooth, target_type=kind)
    return encoder.fit(category[:, None], LABELS[kind] if label is None else label)


def in_training(layer, category=CATEGORY):
    return layer(category, positions=np.arange(len(category))).numpy()


@pytest.mark.parametrize("smooth", ["auto", 0.0, 7.5])
@pytest.mark.parametrize("kind", LABELS)
def test_encodings_agree_with_scikit_learn(kind, smooth):
    layer = TargetEncoding(smooth, target_type=target_type(kind))
    layer.adapt(CATEGORY, label=LABELS[kind])
    rows = np.array([*CATEGORY, "unseen"])
    np.testing.assert_allclose(layer(rows), theirs(kind, smooth).transform(rows[:, None]), rtol=1e-5)


@pytest.mark.parametrize("smooth", ["auto", 2.0])
@pytest.mark.parametrize("kind", LABELS)
def test_rows_in_training_are_encoded_by_the_other_folds(kind, smooth):
    layer = TargetEncoding(smooth, target_type=target_type(kind))
    layer.adapt(CATEGORY, label=LABELS[kind])
    ours = in_training(layer)
    for fold in range(5):
        inside = FOLDS == fold
        encoder = theirs(kind, smooth, CATEGORY[~inside], LABELS[kind][~inside])
        np.testing.assert_allclose(ours[inside], encoder.transform(CATEGORY[inside][:, None]), rtol=1e-5)


def test_own_label_does_not_change_the_encoding_in_training():
    category, label = CATEGORY[:40], LABELS["continuous"][:40]
    before, after = TargetEncoding(), TargetEncoding()
    before.adapt(category, label=label)
    for row in range(40):
        changed = label.copy()
        changed[row] = 1e6
        after.adapt(category, label=changed)
        assert in_training(before, category)[row] == in_training(after, category)[row]
        assert before(category[row : row + 1]) != after(category[row : row + 1])


def test_random_categories_are_not_correlated_with_the_label_in_training():
    category, label = RANDOM.integers(0, 2000, 8000), RANDOM.integers(0, 2, 8000)
    layer = TargetEncoding()
    layer.adapt(category, label=label)
    leak = np.corrcoef(layer(category)[:, 0], label)[0, 1]
    honest = np.corrcoef(in_training(layer, category)[:, 0], label)[0, 1]
    assert leak > 0.3 and abs(honest) < 0.05


@settings(max_examples=30)
@given(st.data(), st.booleans())
def test_merging_in_any_order_equals_one_pass(data, per_class):
    rows = data.draw(
        st.lists(
            st.tuples(st.sampled_from([b"a", b"b", b"", b"\xff"]), st.sampled_from([0.0, 1.0, 2.5, -7.0, np.nan])),
            min_size=1,
            max_size=40,
        )
    )
    values, label = np.array([row[0] for row in rows], object), np.array([row[1] for row in rows])
    positions = np.arange(len(rows))
    whole = TargetMoments(3, per_class, may_be_missing=True)
    whole.add(values, label=label, positions=positions)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(rows)), max_size=4)))
    merged = TargetMoments(3, per_class, may_be_missing=True)
    for places in data.draw(st.permutations(np.split(positions, cuts))):
        part = TargetMoments(3, per_class, may_be_missing=True)
        part.add(values[places], label=label[places], positions=places)
        merged.merge(part)
    for smooth in ("auto", 1.0):
        (names, expected, _), (found_names, found, _) = whole.encodings(smooth), merged.encodings(smooth)
        assert names == found_names
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)
    assert merged.readable().keys() == whole.readable().keys()


def test_unseen_and_missing_categories_get_the_overall_mean():
    layer = TargetEncoding()
    layer.adapt(np.array([3, 3, -1, 4]), label=[1.0, 0.0, 1.0, 1.0])
    np.testing.assert_allclose(layer(np.array([-1, 99]))[:, 0], [0.75, 0.75])


def test_rows_without_a_label_are_ignored():
    known, holes = TargetEncoding(0.0), TargetEncoding(0.0)
    known.adapt(["a", "b"], label=[1.0, 3.0])
    holes.adapt(["a", "b", "a", "c"], label=[1.0, 3.0, np.nan, np.nan])
    assert holes.vocabulary == known.vocabulary
    np.testing.assert_array_equal(holes(np.array(["a", "b", "c"])), known(np.array(["a", "b", "c"])))


def test_string_classes_have_a_column_each():
    layer = TargetEncoding(0.0, target_type="multiclass")
    layer.adapt(["a", "a", "b", "b"], label=["x", "y", "z", "z"])
    assert layer.classes == ["x", "y", "z"]
    assert layer(np.array(["a", "b"])).numpy().tolist() == [[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]]


def test_layers_are_saved_and_exported(tmp_path):
    layer = TargetEncoding(target_type="multiclass")
    layer.adapt(CATEGORY[:, None], label=LABELS["multiclass"])
    raw = keras.Input((1,), name="category", dtype="string")
    model = keras.Model({"category": raw}, {"x": layer(raw)})
    rows = {"category": np.array([["a"], ["é"], ["new"], [""]])}
    round_trips(model, rows, tmp_path)
    in_tf_data(model, rows)
    loaded = keras.saving.load_model(tmp_path / "model.keras").layers[-1]
    np.testing.assert_array_equal(in_training(loaded), in_training(layer))
    assert loaded.classes == [0, 1, 2]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TargetEncoding(smooth=-1), "invalid smooth: expected 'auto' or a number from 0, received -1"),
        (lambda: TargetEncoding(folds=1), "invalid folds: expected an integer from 2, received 1"),
        (lambda: TargetEncoding(target_type="mean"), "invalid target_type: .* received 'mean'"),
        (lambda: TargetEncoding(vocabulary=["a"], encodings=[[[1.0]]]), "invalid encodings: .* received"),
        (lambda: TargetEncoding()(np.array(["a"])), "has no encodings yet"),
        (lambda: TargetEncoding()(keras.Input((1,))), "invalid inputs: expected texts or integers, received"),
    ],
)
def test_invalid_arguments_raise(make, message):
    with pytest.raises(ValueError, match=message):
        make()


COLUMNS = {"company": CATEGORY.tolist(), "tip": BINARY, "amount": LABELS["continuous"]}


def with_function():
    company = keras.Input((1,), name="company", dtype="string")
    amount = keras.Input((1,), name="amount")
    label = keras.ops.cast(keras.layers.Normalization(name="scaled")(amount) > 0, "int64")
    outputs = {"company": TargetEncoding(name="encoded")(company), "label": label}
    return keras.Model({"company": company, "amount": amount}, outputs)


def run(examples, folder, **options):
    options = {"features": {"company": TargetEncoded()}, "label": "tip", **options}
    return Transform(examples, **options).execute(folder).preprocessing


def by_row(data):
    """Return the encodings and labels of batches, in the order of the rows."""
    rows = [(features["company"].numpy()[:, 0], label.numpy().reshape(-1)) for features, label in data]
    return np.concatenate([x for x, _ in rows]), np.concatenate([y for _, y in rows])


def test_computed_label_is_adapted_before_the_layer_that_needs_it(make_examples, tmp_path):
    prepared = run(
        make_examples({"train": COLUMNS}), tmp_path / "out", features=None, function=with_function, label="label"
    )
    label = (COLUMNS["amount"] > COLUMNS["amount"].mean()).astype(int)
    raw = {"company": tf.constant(CATEGORY[:, None])}
    features = prepared.load_features()
    assert list(features.input) == ["company"]
    np.testing.assert_allclose(
        features(raw)["company"], theirs("binary", "auto", label=label).transform(CATEGORY[:, None]), rtol=1e-5
    )


@pytest.mark.parametrize("materialize", [False, True])
def test_training_uses_out_of_fold_encodings_and_evaluation_all_rows(make_examples, tmp_path, materialize):
    examples = make_examples({"train": COLUMNS, "eval": COLUMNS})
    prepared = run(examples, tmp_path / "out", materialize=materialize)
    layer = prepared.load().layers[-1]
    options = {"batch_size": 64, "work_dir": tmp_path}
    for split in ("train", "eval"):
        evaluated, _ = by_row(dataset(examples, split, prepared, **options))
        np.testing.assert_array_equal(evaluated, layer(CATEGORY)[:, 0])
        chunks = Chunks(examples, split, prepared, **options, seed=1, shuffle=False)
        trained, label = by_row(chunks.starting(0, 0).take(-(-chunks.an_epoch // chunks.at_once)))
        expected = in_training(layer)[:, 0] if split == "train" else layer(CATEGORY)[:, 0]
        np.testing.assert_array_equal(trained, expected)
        np.testing.assert_array_equal(label, BINARY)
    shuffled, label = by_row(dataset(examples, "train", prepared, **options, seed=1))
    assert sorted(zip(shuffled, label)) == sorted(zip(in_training(layer)[:, 0], BINARY))


def test_several_shards_and_a_second_run_give_the_same_folds(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    from kerasline import ParquetExampleGen

    for span in range(3):
        rows = slice(span * 100, span * 100 + 100)
        table = pa.table({name: np.asarray(values)[rows] for name, values in COLUMNS.items()})
        pq.write_table(table, tmp_path / f"span-{span}.parquet")
    generate = ParquetExampleGen(f"{tmp_path}/span-{{SPAN}}.parquet", span="0:2", splits={"train": 1})
    examples = generate.execute(tmp_path / "examples").examples
    transform = Transform(examples, features={"company": TargetEncoded(0.0)}, label="tip")
    first, second = (transform.execute(tmp_path / name, cache_dir=tmp_path / "cache") for name in ("a", "b"))
    layers = [done.preprocessing.load().layers[-1] for done in (first, second)]
    np.testing.assert_array_equal(layers[0].encodings, layers[1].encodings)
    assert second.metrics["remembered"] == "3 of 3 parts"
    table = pa.Table.from_batches(examples.batches("train")).to_pydict()
    positions = np.concatenate([np.arange(examples_rows) for examples_rows in [100] * 3])
    fold, category, label = fold_of(positions, 5).numpy(), np.array(table["company"]), np.array(table["tip"])
    batches = dataset(examples, "train", first.preprocessing, batch_size=300, work_dir=tmp_path, seed=1, epochs=1)
    found, labels = by_row(batches)
    expected = [
        label[(category == c) & (fold != f)].mean()
        if ((category == c) & (fold != f)).any()
        else label[fold != f].mean()
        for c, f in zip(category, fold)
    ]
    np.testing.assert_allclose(sorted(zip(found, labels)), sorted(zip(expected, label)), rtol=1e-6)


def test_saved_file_opens_in_a_fresh_process(make_examples, tmp_path):
    prepared = run(make_examples({"train": COLUMNS}), tmp_path / "out")
    code = (
        "import sys, keras, numpy as np, kerasline.layers\n"
        "model = keras.saving.load_model(sys.argv[1])\n"
        "print(float(model({'company': np.array([['a']])})['company'][0, 0]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(prepared.path / prepared.FILE)], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) == float(prepared.load()({"company": tf.constant([["a"]])})["company"][0, 0])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"label": None},
            ParameterError,
            r"Transform.label: layer 'company_target' \(TargetEncoding\) needs the label .*; pass Transform\(label=",
        ),
        (
            {"label": ["tip", "amount"]},
            ParameterError,
            r"takes one label, received tip, amount; name one: .*label='tip'",
        ),
        (
            {"features": {"company": TargetEncoded(label="fare")}},
            ParameterError,
            "takes label 'fare', which is not among tip",
        ),
        ({"label": "company"}, ParameterError, "'company' is computed from layer 'company_target'"),
        (
            {"features": {"x": TargetEncoded(column="company")}, "label": "company"},
            ParameterError,
            "label 'company' has . classes; pass target_type='multiclass'",
        ),
    ],
)
def test_unusable_label_is_reported(make_examples, tmp_path, options, error, message):
    with pytest.raises(error, match=message):
        run(make_examples({"train": COLUMNS}), tmp_path / "out", **options)


def test_label_is_chosen_from_several(make_examples, tmp_path):
    features = {"company": TargetEncoded(label="amount")}
    prepared = run(make_examples({"train": COLUMNS}), tmp_path / "out", features=features, label=["tip", "amount"])
    expected = theirs("continuous", "auto").transform(CATEGORY[:, None])
    np.testing.assert_allclose(prepared.load().layers[-1](CATEGORY), expected, rtol=1e-5)


def test_minus_one_is_a_category_where_nothing_is_missing():
    layer = TargetEncoding(smooth=0.0, may_be_missing=False)
    layer.adapt(np.array([3, 3, -1, 4]), label=[1.0, 0.0, 1.0, 1.0])
    assert layer(np.array([-1, 3])).numpy().tolist() == [[1.0], [0.5]]
