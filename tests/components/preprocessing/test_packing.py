"""Documents packed for training: no token is lost, attention stays within a document, served rows are not packed."""

import keras
import numpy as np
import pyarrow.parquet as pq
import pytest

import kerasline as kl
from kerasline.components.core.artifacts import Examples
from kerasline.components.core.errors import ParameterError
from kerasline.components.data.training_input import dataset
from kerasline.components.preprocessing.layers import SegmentMask
from kerasline.components.preprocessing.packing import Packer, Packing

RANDOM = np.random.default_rng(0)
DOCUMENTS = [RANDOM.integers(1, 50, length).tolist() for length in RANDOM.integers(1, 14, 90)]


def padded(rows):
    longest = max(map(len, rows))
    return np.array([[*row, *[0] * (longest - len(row))] for row in rows], "int32").reshape(len(rows), longest)


@pytest.mark.parametrize("separator", [None, 99])
@pytest.mark.parametrize("batches", [1, 4])
def test_rows_hold_all_documents_one_after_the_other(separator, batches):
    packer = Packer(Packing(length=16, separator=separator), ["next"])
    parts = []
    for rows in np.array_split(np.arange(len(DOCUMENTS)), batches):
        tokens = padded([DOCUMENTS[row] for row in rows])
        parts.append(packer.add({"tokens": tokens, "next": tokens * 2}))
    parts.append(packer.rest())
    packed = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    ending = [] if separator is None else [separator]
    stream = sum(([*document, *ending] for document in DOCUMENTS), [])
    assert packed["tokens"].shape[1] == 16 and len(packed["tokens"]) == -(-len(stream) // 16)
    counted = packed["segment_ids"] > 0
    assert packed["tokens"][counted].tolist() == stream and not packed["tokens"][~counted].any()
    labels = [0 if token == separator else 2 * token for token in stream]
    assert packed["next"][counted].tolist() == labels
    document = np.repeat(np.arange(len(DOCUMENTS)), [len(one) + len(ending) for one in DOCUMENTS])
    for row in range(len(stream) // 16):
        of_row = document[row * 16 : row * 16 + 16]
        assert packed["segment_ids"][row].tolist() == (np.unique(of_row, return_inverse=True)[1] + 1).tolist()
        assert packed["positions"][row].tolist() == [
            place - list(of_row).index(one) for place, one in enumerate(of_row)
        ]


def preprocessing():
    tokens = keras.Input((None,), name="tokens", dtype="int64")
    ids = keras.ops.maximum(tokens, 0)
    return keras.Model({"tokens": tokens}, {"ids": ids[:, :-1], "next": ids[:, 1:]})


def build_model(inputs, hp):
    mask = SegmentMask()(inputs["segment_ids"])
    x = keras.layers.Embedding(50, 8)(inputs["ids"]) + keras.layers.Embedding(16, 8)(inputs["positions"])
    x = x + keras.layers.MultiHeadAttention(2, 4)(x, x, attention_mask=mask)
    model = keras.Model(inputs, keras.layers.Dense(50, name="next")(x))
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=0))
    return model


@pytest.fixture(scope="module")
def transformed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("packed")
    documents = [document for document in DOCUMENTS if len(document) > 1]
    generator = kl.InMemoryExampleGen({"tokens": documents}, splits={"train": 3, "eval": 1})
    examples = generator.execute(folder / "examples").examples
    transform = kl.Transform(examples, function=preprocessing, label="next", pack={"length": 16})
    return examples, transform.execute(folder / "out")


def test_training_reads_packed_rows_of_one_length(transformed, tmp_path):
    examples, done = transformed
    stored = Examples(done.preprocessing.path / "materialized")
    rows = sum(len(pq.read_table(shard)) for split in stored.splits for shard in stored.shards(split))
    assert done.metrics["packed_rows"] == rows
    batches = list(dataset(examples, "train", done.preprocessing, batch_size=4, work_dir=tmp_path, seed=1))
    assert all(tensor.shape[1:] == (16,) for features, label in batches for tensor in (*features.values(), label))
    assert set(batches[0][0]) == {"ids", "segment_ids", "positions"}
    documents = [row.as_py() for batch in examples.batches("train") for row in batch.column("tokens")]
    packed = np.concatenate([features["ids"].numpy()[features["segment_ids"].numpy() > 0] for features, _ in batches])
    assert sorted(packed) == sorted(sum((document[:-1] for document in documents), []))
    targets = np.concatenate([label.numpy()[label.numpy() > 0] for _, label in batches])
    assert sorted(targets) == sorted(sum((document[1:] for document in documents), []))


def test_loss_of_packed_rows_is_that_of_the_documents_alone(transformed, tmp_path):
    """Documents that lie in one packed row have the same loss as rows of their own."""
    examples, done = transformed
    built = kl.ModelBuilder(done.preprocessing, function=build_model).execute(tmp_path / "built").model
    model, prepared = built.load(), done.preprocessing.load()
    ((raw),) = [np.array([[5, 6, 7, 8, 0, 0], [9, 8, 7, 6, 5, 4]])]
    alone = dict(prepared({"tokens": np.where(raw == 0, -1, raw)}))
    packer = Packer(Packing(length=16), ["next"])
    packer.add({name: np.asarray(values) for name, values in alone.items()})
    packed = packer.rest()
    expected = model.evaluate({n: alone[n] for n in model.input}, alone["next"], verbose=0)
    found = model.evaluate({n: packed[n] for n in model.input}, packed["next"], verbose=0)
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
def test_packed_model_is_trained_evaluated_and_served_without_packing(transformed, tmp_path):
    examples, done = transformed
    built = kl.ModelBuilder(done.preprocessing, function=build_model).execute(tmp_path / "built").model
    trained = kl.Trainer(examples, done.preprocessing, built, epochs=2, batch_size=4).execute(tmp_path / "trained")
    assert trained.metrics["val_loss"] > 0
    evaluator = kl.Evaluator(examples, done.preprocessing, trained.trained_model, split="eval", padding=0)
    evaluator.execute(tmp_path / "evaluated")
    exported = kl.Exporter(done.preprocessing, trained.trained_model, examples, split="eval").execute(
        tmp_path / "exported"
    )
    answers = kl.BulkInferrer(exported.saved_model, examples, split="eval").execute(tmp_path / "answers")
    assert answers.metrics["rows"] == examples.rows("eval")
    with pytest.raises(ParameterError, match="Trainer.bucket_by: Transform.pack gives all rows one length"):
        kl.Trainer(examples, done.preprocessing, built, bucket_by="tokens").execute(tmp_path / "refused")


def test_only_rows_of_any_length_can_be_packed(make_examples, tmp_path):
    def fixed():
        tokens = keras.Input((3,), name="tokens", dtype="int64")
        return keras.Model({"tokens": tokens}, {"ids": keras.layers.Identity()(tokens)})

    examples = make_examples({"train": {"tokens": [[1, 2, 3]], "y": [1]}})
    for label, message in ((None, r"output 'ids' has shape \(3,\), expected \(None,\)"), ("y", "'y' is a column")):
        with pytest.raises(ParameterError, match=f"Transform.pack: {message}"):
            kl.Transform(examples, function=fixed, label=label, pack={"length": 4}).execute(tmp_path / str(label))
