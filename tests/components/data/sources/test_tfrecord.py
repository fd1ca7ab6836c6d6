"""The decoder of tf.Example against TensorFlow's own encoder and parser."""

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from kerasline.components.core.errors import DataError
from kerasline.components.data.quarantine import Quarantine
from kerasline.components.data.sources.source import SchemaChanged
from kerasline.components.data.sources.tf_example import decode
from kerasline.components.data.sources.tfrecord import TfRecordSource
from tests.conftest import SHARED_DATA

FEATURES = {
    "size": (st.floats(width=32, allow_nan=False), lambda v: tf.train.Feature(float_list=tf.train.FloatList(value=v))),
    "id": (st.integers(-(2**63), 2**63 - 1), lambda v: tf.train.Feature(int64_list=tf.train.Int64List(value=v))),
    "größe": (st.binary(max_size=6), lambda v: tf.train.Feature(bytes_list=tf.train.BytesList(value=v))),
}
ROWS = st.lists(
    st.fixed_dictionaries({}, optional={k: st.lists(v, max_size=4) for k, (v, _) in FEATURES.items()}), max_size=8
)


def encode(row):
    features = {name: FEATURES[name][1](values) for name, values in row.items()}
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def decoded(messages):
    data = np.frombuffer(b"".join(messages), np.uint8)
    ends = np.cumsum([len(m) for m in messages], dtype=np.int64) if messages else np.empty(0, np.int64)
    starts = ends - np.array([len(m) for m in messages], np.int64)
    batch, bad = decode(data, starts, ends)
    return batch, np.isin(np.arange(len(messages)), list(bad), invert=True)


def as_list(value):
    values = [] if value is None else value if isinstance(value, list) else [value]
    return [v.encode() if isinstance(v, str) else v for v in values]


@settings(max_examples=200)
@given(ROWS)
def test_every_value_is_decoded(rows):
    batch, good = decoded([encode(row) for row in rows])
    assert good.all() and batch.num_rows == len(rows)
    for name in FEATURES:
        column = batch.column(name).to_pylist() if name in batch.schema.names else [None] * len(rows)
        assert [as_list(value) for value in column] == [row.get(name, []) for row in rows]


SEQUENCES = st.lists(
    st.fixed_dictionaries(
        {},
        optional={k: st.lists(st.lists(v, max_size=2), max_size=3) for k, (v, _) in FEATURES.items()},
    ),
    max_size=6,
)


@settings(max_examples=200)
@given(SEQUENCES)
def test_every_step_of_a_sequence_is_decoded(rows):
    messages = []
    for number, row in enumerate(rows):
        lists = {
            name: tf.train.FeatureList(feature=[FEATURES[name][1](values) for values in steps])
            for name, steps in row.items()
        }
        context = tf.train.Features(feature={"number": FEATURES["id"][1]([number])})
        example = tf.train.SequenceExample(context=context, feature_lists=tf.train.FeatureLists(feature_list=lists))
        messages.append(example.SerializeToString())
    batch, good = decoded(messages)
    assert good.all()
    if rows:
        assert batch.column("number").to_pylist() == list(range(len(rows)))
    for name in FEATURES:
        column = batch.column(name).to_pylist() if name in batch.schema.names else [None] * len(rows)
        steps = [None if value is None else [as_list(step) for step in value] for value in column]
        assert steps == [row.get(name) for row in rows]


def test_feature_list_with_the_name_of_a_feature_is_an_error(tmp_path):
    feature = FEATURES["id"][1]([1])
    example = tf.train.SequenceExample(
        context=tf.train.Features(feature={"a": feature}),
        feature_lists=tf.train.FeatureLists(feature_list={"a": tf.train.FeatureList(feature=[feature])}),
    )
    with tf.io.TFRecordWriter(str(tmp_path / "a.tfrecord")) as writer:
        writer.write(example.SerializeToString())
    with pytest.raises(DataError, match="a.tfrecord, .*'a' is also the name of a feature list"):
        list(TfRecordSource(Quarantine()).batches([tmp_path / "a.tfrecord"]))


def test_unpacked_numbers_and_repeated_fields_follow_protobuf():
    """A message encoded by hand: unpacked numbers, and a repeated key, whose last value counts."""
    unpacked = b"\x1a\x04\x08\x07\x08\x08"  # Int64List { 7, 8 } with a tag for each

    def entry(key, feature):
        body = b"\x0a" + bytes([len(key)]) + key + b"\x12" + bytes([len(feature)]) + feature
        return b"\x0a" + bytes([len(body)]) + body

    features = entry(b"a", b"\x1a\x02\x08\x01") + entry(b"a", unpacked)
    message = b"\x0a" + bytes([len(features)]) + features
    assert list(tf.train.Example.FromString(message).features.feature["a"].int64_list.value) == [7, 8]
    batch, good = decoded([message])
    assert good.all() and batch.column("a").to_pylist() == [[7, 8]]


@settings(max_examples=300)
@given(st.lists(st.binary(max_size=40), min_size=1, max_size=4))
def test_malformed_messages_are_refused_row_by_row(noise):
    whole = encode({"id": [5], "größe": [b"x"]})
    messages = [part for one in noise for part in (one, whole)]
    batch, good = decoded(messages)
    assert good[1::2].all()
    assert batch.column("id").to_pylist()[1::2] == [5] * len(noise)


def read(*files, quarantine=None):
    source = TfRecordSource(quarantine or Quarantine())
    for _ in range(2):
        try:
            return source, pa.Table.from_batches(source.batches(files))
        except SchemaChanged:
            continue


def test_compressed_and_plain_files_are_one_table(tmp_path):
    with tf.io.TFRecordWriter(str(tmp_path / "a")) as writer:
        writer.write(encode({"id": [1], "size": [1.5]}))
    with tf.io.TFRecordWriter(str(tmp_path / "b.gz"), tf.io.TFRecordOptions("GZIP")) as writer:
        writer.write(encode({"id": [2, 3]}))
    source, table = read(tmp_path / "a", tmp_path / "b.gz")
    assert table.to_pydict() == {"id": [[1], [2, 3]], "size": [1.5, None]}
    assert source.rows_read == 2


@pytest.mark.parametrize("name", ["mnist.tfrecord", "cifar10_test.tfrecord", "next_page.tfrecord.gz"])
def test_tfx_files_match_tensorflow(name):
    path = SHARED_DATA / "tfx" / name
    if not path.exists():
        pytest.skip(f"the TFX sample {name} is not at {path}")
    _, table = read(path)
    compression = "GZIP" if name.endswith("gz") else ""
    records = list(tf.data.TFRecordDataset(str(path), compression).as_numpy_iterator())
    assert table.num_rows == len(records)
    for row in (0, len(records) // 2, len(records) - 1):
        truth = tf.train.Example.FromString(records[row]).features.feature
        for feature in table.column_names:
            field = truth[feature].WhichOneof("kind")
            values = list(getattr(truth[feature], field).value) if field else []
            assert as_list(table[feature][row].as_py()) == values


def test_feature_of_two_kinds_is_named(tmp_path):
    path = tmp_path / "a.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(encode({"size": [0.5]}))
        writer.write(encode({"size": [1.5]}))
        whole = tf.train.Feature(int64_list=tf.train.Int64List(value=[1]))
        writer.write(tf.train.Example(features=tf.train.Features(feature={"size": whole})).SerializeToString())
    with pytest.raises(DataError, match="a.tfrecord, byte .*: feature 'size' is int64, but float in other records"):
        list(TfRecordSource(Quarantine(None)).batches([path]))
