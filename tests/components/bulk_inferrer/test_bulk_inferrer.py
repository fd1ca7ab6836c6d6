"""BulkInferrer predicts every row once, quarantines bad rows with their reasons, and resumes after a kill."""

import json
import signal
import time
from types import SimpleNamespace

import keras
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kerasline import BulkInferrer, Exporter, ModelBuilder, StatisticsGen, Transform
from kerasline.components.core.artifacts import Examples, Predictions, SavedModel
from kerasline.components.core.errors import DataError, KeraslineError, ParameterError
from kerasline.components.data.shards import ExamplesWriter

RANDOM = np.random.default_rng(3)
WORDS = ["ant", "bee", "cat"]


def rows(count, first=0):
    """Return rows that the model can predict. A third of the numbers is missing."""
    size = [None if i % 3 == 0 else float(v) for i, v in enumerate(RANDOM.normal(size=count))]
    return pa.RecordBatch.from_pydict(
        {
            "id": pa.array(range(first, first + count)),
            "size": pa.array(size, pa.float32()),
            "pair": pa.array(RANDOM.normal(size=(count, 2)).tolist(), pa.list_(pa.float32())),
            "small": pa.array(RANDOM.integers(0, 9, count)),
            "word": RANDOM.choice(WORDS, count).tolist(),
            "kind": ["even" if i % 2 else "odd" for i in range(count)],
        }
    )


def preprocessing():
    raw = {
        "size": keras.Input((1,), name="size"),
        "pair": keras.Input((2,), name="pair"),
        "small": keras.Input((1,), name="small", dtype="int32"),
        "word": keras.Input((), name="word", dtype="string"),
        "kind": keras.Input((), name="kind", dtype="string"),
    }
    strict = keras.layers.StringLookup(vocabulary=WORDS, num_oov_indices=0, output_mode="one_hot", name="strict")
    parts = [
        keras.ops.nan_to_num(raw["size"]),
        raw["pair"],
        keras.ops.cast(raw["small"], "float32"),
        strict(raw["word"]),
    ]
    return keras.Model(
        raw,
        {
            "x": keras.layers.Concatenate()(parts),
            "kind": keras.layers.StringLookup(num_oov_indices=0, name="kinds")(raw["kind"]),
        },
    )


def build_model(inputs, hp):
    model = keras.Model(inputs, keras.layers.Dense(2, activation="softmax", name="scores")(inputs["x"]))
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


def examples_of(folder, splits):
    """Write an Examples artifact with a shard for each batch of a split."""
    folder.mkdir(parents=True)
    with ExamplesWriter(Examples(folder), list(splits)) as writer:
        for split, batches in splits.items():
            for batch in batches:
                writer.write(split, batch)
                writer.end_shards()
    return Examples(folder)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bulk")
    examples = examples_of(folder / "examples", {"train": [rows(60)], "eval": [rows(10)]})
    prepared = Transform(examples, function=preprocessing, label="kind").execute(folder / "t").preprocessing
    model = ModelBuilder(prepared, function=build_model).execute(folder / "m").model
    exported = Exporter(prepared, model, examples, split="eval").execute(folder / "e").saved_model
    return SimpleNamespace(prepared=prepared, model=model, exported=exported)


def expected(served, batch):
    """Return Keras's predictions for a batch."""
    features = served.prepared.load_features()
    columns = {
        "size": np.array([[np.nan if v is None else v] for v in batch.column("size").to_pylist()], "float32"),
        "pair": np.array(batch.column("pair").to_pylist(), "float32"),
        "small": np.array(batch.column("small").to_pylist(), "int32")[:, None],
        "word": np.array(batch.column("word").to_pylist()),
    }
    made = features({name: keras.ops.convert_to_tensor(values) for name, values in columns.items()})
    return np.asarray(served.model.load()(made))


def test_every_row_is_predicted_in_order_with_kept_columns(served, tmp_path):
    batches = [rows(70), rows(5, 70), rows(130, 75)]
    examples = examples_of(tmp_path / "examples", {"a": batches[:2], "b": batches[2:]})
    done = BulkInferrer(served.exported, examples, keep=["id", "word"], batch_size=32).execute(tmp_path / "out")
    predictions = done.predictions
    assert done.metrics == {"rows": 205, "quarantined": 0} and predictions.splits == ("a", "b")
    assert [predictions.rows(split) for split in "ab"] == [75, 130]
    assert not (predictions.path / "quarantine.jsonl").exists()
    found = pa.concat_tables([predictions.read(split) for split in "ab"])
    assert found.column_names == ["id", "word", "scores", "label"]
    assert found["id"].to_pylist() == list(range(205))
    scores = np.concatenate([expected(served, batch) for batch in batches])
    np.testing.assert_allclose(found["scores"].combine_chunks().to_numpy_ndarray(), scores, atol=1e-6)
    names = served.prepared.facts["class_names"]
    assert found["label"].type == pa.string()
    assert found["label"].to_pylist() == [names[k] for k in scores.argmax(1)]
    assert [shard["path"] for shard in predictions.read_json("examples.json")["splits"]["a"]] == [
        "a/00000.parquet",
        "a/00001.parquet",
    ]


def test_one_split_and_an_empty_split(served, tmp_path):
    nothing = rows(0)
    examples = examples_of(tmp_path / "examples", {"a": [rows(9)], "b": [rows(7)], "c": []})
    only = BulkInferrer(served.exported, examples, split="b").execute(tmp_path / "b")
    assert only.metrics["rows"] == 7 and only.predictions.splits == ("b",)
    none = BulkInferrer(served.exported, examples, split="c").execute(tmp_path / "c")
    assert none.metrics["rows"] == 0 and none.predictions.rows("c") == 0
    (tmp_path / "examples" / "d").mkdir()
    pq.write_table(pa.Table.from_batches([nothing]), tmp_path / "examples" / "d" / "00000.parquet")
    examples.write_json("examples.json", {"splits": {"d": [{"path": "d/00000.parquet", "rows": 0}]}})
    empty = BulkInferrer(served.exported, examples, keep=["id"]).execute(tmp_path / "d").predictions
    assert empty.read("d").column_names == ["id", "scores", "label"]


def test_examples_may_contain_transposed_images(served, tmp_path):
    pixels = RANDOM.normal(size=(9, 3, 4)).transpose(0, 2, 1)
    batch = rows(9).append_column("image", pa.FixedShapeTensorArray.from_numpy_ndarray(pixels))
    examples = examples_of(tmp_path / "examples", {"a": [batch]})
    done = BulkInferrer(served.exported, examples, keep=["id"]).execute(tmp_path / "out")
    assert done.metrics["rows"] == 9 and done.predictions.read("a")["id"].to_pylist() == list(range(9))


def rows_with_mistakes():
    """200 rows, and which of them fail by what."""
    columns = rows(200).to_pydict()
    wrong = {
        3: "column 'pair': a list of 3 values, expected at most 2",
        50: "column 'small': 4294967296 is out of range for int32",
    }
    columns["pair"][3] = [1.0, 2.0, 3.0]
    columns["small"][50] = 2**32
    for place in (51, 52, 120, 199):
        columns["word"][place] = "unicorn"
        wrong[place] = "unicorn"
    columns["pair"][7] = [1.0]  # filled up: no failure
    return pa.RecordBatch.from_pydict(columns), wrong


def test_rows_that_fail_are_quarantined_with_reasons(served, tmp_path):
    batch, wrong = rows_with_mistakes()
    examples = examples_of(tmp_path / "examples", {"a": [rows(20), batch]})
    done = BulkInferrer(served.exported, examples, keep=["id"], batch_size=64).execute(tmp_path / "out")
    assert done.metrics == {"rows": 214, "quarantined": 6}
    found = done.predictions.read("a")
    good = [i for i in range(200) if i not in wrong]
    assert found["id"].to_pylist() == [*range(20), *good]
    clean = batch.take(pa.array([i for i in good if i != 7]))
    scores = found["scores"].combine_chunks().to_numpy_ndarray()
    np.testing.assert_allclose(np.delete(scores[20:], good.index(7), axis=0), expected(served, clean), atol=1e-6)
    lines = [json.loads(line) for line in (done.predictions.path / "quarantine.jsonl").read_text().splitlines()]
    assert [line["source"] for line in lines] == [f"a/00001.parquet, row {place}" for place in sorted(wrong)]
    for line, place in zip(lines, sorted(wrong)):
        assert wrong[place] in line["reason"] and "\n" not in line["reason"]
        assert line["row"]["id"] == place and line["row"]["word"] == batch.column("word")[place].as_py()
    assert done.predictions.read_json("examples.json")["rows_read"] == 220


def test_bad_row_fails_the_run_if_refused(served, tmp_path):
    batch, _ = rows_with_mistakes()
    examples = examples_of(tmp_path / "examples", {"a": [batch]})
    message = "a/00000.parquet: row 3: column 'pair': a list of 3 values.*BulkInferrer.bad_rows"
    with pytest.raises(DataError, match=message):
        BulkInferrer(served.exported, examples, bad_rows="refuse").execute(tmp_path / "out")


def test_column_of_the_wrong_type_is_an_error(served, tmp_path):
    batch = rows(10).to_pydict()
    wrong = pa.RecordBatch.from_pydict({**batch, "size": ["big"] * 10})
    with pytest.raises(DataError, match="column 'size' of type string cannot be fed"):
        BulkInferrer(served.exported, examples_of(tmp_path / "a", {"a": [wrong]})).execute(tmp_path / "out")
    del batch["word"]
    missing = examples_of(tmp_path / "b", {"a": [pa.RecordBatch.from_pydict(batch)]})
    with pytest.raises(DataError, match="the data has no column 'word'"):
        BulkInferrer(served.exported, missing).execute(tmp_path / "out2")


def save_odd(folder):
    """x (None,) to `wide`, as many ones a row as the batch's largest x says; or to one number for all rows."""
    import tensorflow as tf

    class Odd(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
        def wide(self, x):
            return {"wide": tf.ones([tf.size(x), tf.cast(tf.reduce_max(x), tf.int32)])}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
        def single(self, x):
            return {"sum": tf.reduce_sum(x)}

    for name in ("wide", "single"):
        tf.saved_model.save(Odd(), str(folder / name), signatures={"serving_default": getattr(Odd(), name)})
    return folder


def test_outputs_of_varying_width_are_lists_and_scalars_are_refused(tmp_path):
    models = save_odd(tmp_path)
    batch = pa.RecordBatch.from_pydict({"x": pa.array([1.0, 2.0, 3.0, 5.0], pa.float32())})
    examples = examples_of(tmp_path / "examples", {"a": [batch]})
    wide = BulkInferrer(SavedModel(models / "wide"), examples, batch_size=2).execute(tmp_path / "out").predictions
    assert wide.read("a")["wide"].to_pylist() == [[1.0] * 2] * 2 + [[1.0] * 5] * 2
    with pytest.raises(KeraslineError, match="the output 'sum' is a single value for 4 rows; expected"):
        BulkInferrer(SavedModel(models / "single"), examples).execute(tmp_path / "refused")


def test_kept_columns_must_exist_and_have_unique_names(served, tmp_path):
    batch = pa.RecordBatch.from_pydict({**rows(10).to_pydict(), "label": ["mine"] * 10})
    examples = examples_of(tmp_path / "examples", {"a": [batch]})
    with pytest.raises(ParameterError, match="BulkInferrer.keep: the data has no column 'idd'; did you mean 'id'"):
        BulkInferrer(served.exported, examples, keep=["idd"]).execute(tmp_path / "1")
    with pytest.raises(ParameterError, match="'label' is also an output of the model; set BulkInferrer.prefix"):
        BulkInferrer(served.exported, examples, keep=["label"]).execute(tmp_path / "2")
    done = BulkInferrer(served.exported, examples, keep=["label"], prefix="said_").execute(tmp_path / "3")
    assert done.predictions.read("a").column_names == ["label", "said_scores", "said_label"]


def test_predictions_are_examples_for_other_stages(served, tmp_path):
    examples = examples_of(tmp_path / "examples", {"a": [rows(30)]})
    predictions = BulkInferrer(served.exported, examples, keep=["id"]).execute(tmp_path / "out").predictions
    statistics = StatisticsGen(predictions).execute(tmp_path / "statistics").statistics.proto()
    (data,) = statistics.datasets
    assert data.num_examples == 30 and {feature.path.step[0] for feature in data.features} >= {"id", "label"}


PIPELINE = """
from kerasline import BulkInferrer
from kerasline.components.core.artifacts import Examples, SavedModel
from kerasline.pipeline.dag import Pipeline

def pipeline(settings):
    return Pipeline("bulk", [BulkInferrer(SavedModel({model!r}), Examples({examples!r}), keep=["id"], batch_size=16)])
"""


@pytest.fixture
def many_shards(served, tmp_path):
    """Twenty shards, one of them with a bad row, and a pipeline that answers them."""
    batches = [rows(5_000, 5_000 * i) for i in range(20)]
    columns = batches[4].to_pydict()
    columns["pair"][5] = [1.0, 2.0, 3.0]
    batches[4] = pa.RecordBatch.from_pydict(columns)
    examples = examples_of(tmp_path / "examples", {"a": batches})
    file = tmp_path / "bulk.py"
    file.write_text(PIPELINE.format(model=str(served.exported.path), examples=str(examples.path)))
    return file


def predictions_of(summary):
    return Predictions(summary["nodes"][0]["outputs"]["predictions"])


@pytest.mark.slow
def test_killed_run_keeps_finished_shards(many_shards, tmp_path, cli):
    whole = cli("run", many_shards, "--root", tmp_path / "whole", "--json", tmp_path / "whole.json")
    assert whole.returncode == 0, whole.stderr
    root = tmp_path / "root"
    process = cli("run", many_shards, "--root", root, wait=False)
    deadline = time.monotonic() + 120
    while len(list(root.glob("state/*/shards/a/*.json"))) < 6 and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    done = {path: path.stat().st_mtime_ns for path in root.glob("state/*/shards/a/*.parquet")}
    assert 6 <= len(done) < 20 and not list(root.glob("artifacts/bulk/BulkInferrer/*"))
    again = cli("run", many_shards, "--root", root, "--json", tmp_path / "again.json")
    assert again.returncode == 0, again.stderr
    metrics = again.summary["nodes"][0]["metrics"]
    assert 6 <= metrics["resumed_shards"] <= len(done)
    assert (metrics["rows"], metrics["quarantined"]) == (99_999, 1)
    ours, theirs = predictions_of(again.summary), predictions_of(whole.summary)
    assert ours.read("a").equals(theirs.read("a"))
    assert (ours.path / "quarantine.jsonl").read_text() == (theirs.path / "quarantine.jsonl").read_text()
    assert not list(root.glob("state/*"))


@pytest.mark.slow
def test_worker_processes_give_the_same_predictions(many_shards, tmp_path, cli):
    found = []
    two = ["--", "--direct_num_workers=2", "--direct_running_mode=multi_processing"]
    for name, options in (("one", []), ("two", two)):
        done = cli("run", many_shards, "--root", tmp_path / name, "--json", tmp_path / f"{name}.json", *options)
        assert done.returncode == 0, done.stderr
        found.append(predictions_of(done.summary).read("a"))
    assert found[0].equals(found[1])
