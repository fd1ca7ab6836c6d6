"""Rows batched by length: little padding, every row once, and an order that the seed decides."""

import gzip

import keras
import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

import kerasline as kl
from kerasline.components.core.errors import DataError
from kerasline.components.data.bucketing import Bucketing, length_batches, row_lengths
from kerasline.components.data.training_input import Chunks, dataset
from tests.conftest import SHARED_DATA

RANDOM = np.random.default_rng(0)
LENGTHS = RANDOM.integers(1, 30, 300)
TOKENS = [(1 + number % 7 + np.arange(length)).tolist() for number, length in enumerate(LENGTHS)]
BY_LENGTH = Bucketing(("tokens",), 120, "Trainer.tokens_a_batch")


def tokens():
    x = keras.Input((None,), name="tokens", dtype="int64")
    return keras.Model({"tokens": x}, {"tokens": keras.layers.Identity()(x), "count": kl.layers.Lengths()(x)})


@pytest.fixture
def prepared(make_examples, tmp_path):
    columns = {"tokens": TOKENS, "row": np.arange(300), "size": LENGTHS, "text": ["x" * n for n in LENGTHS]}
    examples = make_examples({"train": columns})
    return examples, kl.Transform(examples, function=tokens, label="row").execute(tmp_path / "out").preprocessing


def batches(prepared, tmp_path, **options):
    settings = {"batch_size": 16, "work_dir": tmp_path, "bucketing": BY_LENGTH, **options}
    return [(x["tokens"].numpy(), y.numpy()) for x, y in dataset(prepared[0], "train", prepared[1], **settings)]


def test_batches_keep_the_budget_and_have_every_row_once(prepared, tmp_path):
    found = batches(prepared, tmp_path, seed=3, epochs=2)
    an_epoch = len(found) // 2
    for values, rows in found:
        assert values.shape[1] == LENGTHS[rows].max() and values.size <= 120
        assert all(values[place, : LENGTHS[row]].tolist() == TOKENS[row] for place, row in enumerate(rows))
    first, second = ([rows.tolist() for _, rows in part] for part in (found[:an_epoch], found[an_epoch:]))
    assert sorted(sum(first, [])) == sorted(sum(second, [])) == list(range(300))
    assert first != second and {tuple(sorted(batch)) for batch in first} != {tuple(sorted(batch)) for batch in second}
    padded = sum(values.size for values, _ in found[:an_epoch])
    assert 1 - LENGTHS.sum() / padded < 0.1


def test_seed_decides_the_batches(prepared, tmp_path):
    one, same, other = (
        [rows.tolist() for _, rows in batches(prepared, tmp_path / str(place), seed=seed)]
        for place, seed in enumerate((5, 5, 6))
        if not (tmp_path / str(place)).mkdir()
    )
    assert one == same != other


def test_without_a_seed_rows_are_sorted_by_length(prepared, tmp_path):
    longest = [values.shape[1] for values, _ in batches(prepared, tmp_path)]
    assert all(one <= 1.08 * other for one, other in zip(longest, longest[1:]))


def test_without_a_budget_batches_have_equal_numbers_of_rows(prepared, tmp_path):
    found = batches(prepared, tmp_path, seed=1, bucketing=Bucketing(("tokens",)))
    sizes = sorted(len(rows) for _, rows in found)
    assert sizes == [300 % 16, *[16] * (300 // 16)]


@pytest.mark.parametrize("workers", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_workers_share_each_batch_and_any_step_can_be_reached(prepared, tmp_path, workers):
    options = {"batch_size": 16, "work_dir": tmp_path, "bucketing": BY_LENGTH, "seed": 3}
    alone = [rows.tolist() for _, rows in batches(prepared, tmp_path, seed=3, epochs=2)]
    taken = [Chunks(*prepared_args(prepared), **options, worker=worker, workers=workers) for worker in range(workers)]
    an_epoch, first = taken[0].an_epoch, 7
    assert len(alone) == 2 * an_epoch and taken[0].at_once == 1
    shares = [[y.numpy().tolist() for _, y in chunks.starting(0, first).take(an_epoch)] for chunks in taken]
    for step, parts in enumerate(zip(*shares), first):
        expected = alone[step]
        assert taken[0].rows_of(*divmod(step, an_epoch)) == len(expected)
        assert (sum(parts, []) == expected) or (len(expected) < workers and all(part == expected for part in parts))


def prepared_args(prepared):
    return prepared[0], "train", prepared[1]


@pytest.mark.parametrize("name", ["tokens", "count", "size", "text"])
def test_lengths_of_outputs_and_columns(prepared, tmp_path, name):
    assert row_lengths(*prepared_args(prepared), (name,), tmp_path)[:, 0].tolist() == LENGTHS.tolist()


def test_row_longer_than_a_batch_is_named(prepared, tmp_path):
    small = Bucketing(("size",), 20, "Trainer.tokens_a_batch")
    with pytest.raises(DataError, match=r"row \d+ of split 'train' has 29 steps, more than the 20 of a batch; raise T"):
        batches(prepared, tmp_path, bucketing=small)


def test_translations_of_two_lengths_are_batched_with_little_padding():
    path = SHARED_DATA / "mt" / "debian_en_fr.tsv.gz"
    if not path.exists():
        pytest.skip(f"the translations are not at {path}")
    rows = [line.rstrip("\n").split("\t") for line in gzip.open(path, "rt", encoding="utf-8")]
    lengths = np.array([[len(row[1].split()) + 1, len(row[2].split()) + 1] for row in rows])
    found = length_batches(lengths, 64, 2048)
    assert found.padding < 0.05
    at_random = RANDOM.permutation(len(lengths))[: len(lengths) // 64 * 64].reshape(-1, 64)
    padded = lengths[at_random].max(axis=1).sum() * 64
    assert 1 - lengths[at_random].sum() / padded > 0.5  # without buckets


def test_epochs_shuffle_within_buckets_alone():
    found = length_batches(np.repeat([[5], [50]], 40, axis=0), 10, None)
    places = tf.range(80, dtype=tf.int64)
    rows = found.rows(places, 1, tf.constant(0, tf.int64)).numpy()
    assert sorted(rows[:40]) == list(range(40)) and rows[:40].tolist() != list(range(40))


def test_nested_lists_are_gathered_and_batched(make_examples, tmp_path):
    def boxes():
        x = keras.Input((None, 4), name="boxes")
        return keras.Model({"boxes": x}, {"boxes": keras.layers.Identity()(x)})

    held = [[[float(number)] * 4] * (number % 5) for number in range(40)]
    column = pa.array(held, pa.list_(pa.list_(pa.float32(), 4)))
    examples = make_examples({"train": pa.RecordBatch.from_arrays([column, pa.array(range(40))], ["boxes", "row"])})
    prepared = kl.Transform(examples, function=boxes, label="row").execute(tmp_path / "out").preprocessing
    data = dataset(examples, "train", prepared, batch_size=8, work_dir=tmp_path, bucketing=Bucketing(("boxes",)))
    for features, row in data:
        for values, number in zip(features["boxes"].numpy(), row.numpy()):
            there = values[~np.isnan(values[:, 0])]
            assert there.tolist() == held[number]
