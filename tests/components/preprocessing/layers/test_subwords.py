"""Subwords and word pieces, against SentencePiece, TensorFlow Text's learner and Hugging Face's tokenizers."""

import io
import json
import random
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import kerasline as kl
from kerasline.components.core.errors import DataError, ParameterError
from tests.components.preprocessing.layers.round_trip import adapted, in_tf_data, round_trips

sentencepiece = pytest.importorskip("sentencepiece", reason="sentencepiece is not installed")
tensorflow_text = pytest.importorskip("tensorflow_text", reason="tensorflow-text is not installed")

STEMS = ["read", "writ", "paint", "sing", "walk", "talk", "jump", "cook", "clean", "open"]
ENDINGS = ["", "s", "ing", "er", "ers", "ed", "able"]
RANDOM = random.Random(0)
TEXTS = [
    " ".join(RANDOM.choice(STEMS) + RANDOM.choice(ENDINGS) for _ in range(RANDOM.randint(1, 8))) for _ in range(200)
]
ROWS = np.array(TEXTS, object)[:, None]


def trained_on_sentences(algorithm: str, top: int) -> sentencepiece.SentencePieceProcessor:
    written = io.BytesIO()
    ids = {"pad_id": 0, "unk_id": 1, "bos_id": 2, "eos_id": 3}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS),
        model_writer=written,
        model_type=algorithm,
        vocab_size=top,
        hard_vocab_limit=False,
        minloglevel=2,
        **ids,
    )
    return sentencepiece.SentencePieceProcessor(model_proto=written.getvalue())


@pytest.fixture(scope="module")
def subwords():
    return adapted(kl.layers.Subwords(top=60, length=12, begin=True, end=True), ROWS)


@pytest.fixture(scope="module")
def word_piece():
    return adapted(kl.layers.WordPiece(top=60, length=12, begin=True, end=True), ROWS)


def test_byte_pairs_of_counted_words_are_those_of_the_sentences():
    layer = adapted(kl.layers.Subwords(top=60, algorithm="bpe"), ROWS)
    expected = trained_on_sentences("bpe", 60)
    assert layer.vocabulary == [expected.id_to_piece(i) for i in range(expected.vocab_size())]
    found = layer(ROWS)
    for ids, text in zip(found.numpy().tolist(), TEXTS):
        assert [i for i in ids if i] == expected.encode(text)


def test_unigrams_of_counted_words_compress_as_well_as_those_of_the_sentences(subwords):
    expected = trained_on_sentences("unigram", 60)
    layer = kl.layers.Subwords(model=subwords.model)
    tokens = int((layer(ROWS) != 0).numpy().sum())
    assert tokens <= 1.05 * sum(map(len, expected.encode(TEXTS)))


def test_ids_are_those_of_the_sentencepiece_library(subwords):
    processor = sentencepiece.SentencePieceProcessor(model_proto=subwords.model)
    for text in [*TEXTS[:20], "", "Zürich 42", "read\u00a0reads"]:
        expected = [2, *processor.encode(text)[:10], 3]
        assert subwords(np.array([text])).numpy()[0].tolist() == expected + [0] * (12 - len(expected))
    assert subwords.vocabulary_size == processor.vocab_size()
    assert (subwords.pad_id, subwords.unknown_id, subwords.begin_id, subwords.end_id) == (0, 1, 2, 3)


def test_order_of_merging_does_not_change_the_vocabulary(subwords):
    other = adapted(kl.layers.Subwords(top=60), ROWS[::-1], parts=7)
    assert other.model == subwords.model


@pytest.mark.parametrize("kind", ["subwords", "word_piece"])
def test_decoding_returns_the_text_up_to_the_first_end(kind, request):
    layer = request.getfixturevalue(kind)
    ids = layer(ROWS, length=60)
    np.testing.assert_array_equal(layer.decode(ids).numpy().astype(str), TEXTS)
    after_end = tf.concat([ids, ids], axis=1)
    np.testing.assert_array_equal(kl.layers.TokensToText(layer)(after_end).numpy().astype(str), TEXTS)
    beams = tf.stack([ids[:3], ids[3:6]], axis=1)
    np.testing.assert_array_equal(layer.decode(beams).numpy().astype(str), np.reshape(TEXTS[:6], (2, 3)).T)
    beyond = tf.constant([[layer.vocabulary_size, -1, 0]])
    assert layer.decode(beyond).numpy().tolist() == [b""]


@pytest.mark.parametrize("kind", ["subwords", "word_piece"])
def test_one_vocabulary_serves_several_columns_in_every_format(kind, request, tmp_path):
    layer = request.getfixturevalue(kind)
    source, target = (keras.Input((1,), name=name, dtype="string") for name in ("source", "target"))
    ids = layer(target, length=9)
    outputs = {
        "source": layer(source, begin=False),
        "target_in": ids[:, :-1],
        "target_out": ids[:, 1:],
        "text": kl.layers.TokensToText(layer)(ids),
    }
    model = keras.Model({"source": source, "target": target}, outputs)
    assert (outputs["source"].shape, outputs["target_in"].shape) == ((None, 12), (None, 8))
    inputs = {"source": ROWS[:20], "target": ROWS[20:40]}
    in_tf_data(model, inputs)
    round_trips(model, inputs, tmp_path)
    found = model({name: tf.constant(value) for name, value in inputs.items()})
    assert not (found["source"].numpy() == 2).any() and (found["target_in"].numpy()[:, 0] == 2).all()
    np.testing.assert_array_equal(found["target_in"].numpy()[:, 1:], found["target_out"].numpy()[:, :-1])


def test_cut_text_keeps_its_end(subwords):
    ids = subwords(np.array([" ".join(TEXTS)]), length=5).numpy()[0]
    assert ids.tolist()[0] == 2 and ids.tolist()[-1] == 3 and (ids > 0).all()


def test_symbols_and_bytes_are_never_unknown():
    layer = kl.layers.Subwords(top=350, byte_fallback=True, symbols=["<en>", "<fr>"])
    layer.adapt(ROWS)
    ids = layer(np.array(["<fr> 水"])).numpy()[0].tolist()
    assert layer.vocabulary[4:6] == ["<en>", "<fr>"] and ids.count(5) == 1 and 1 not in ids
    assert layer.decode([ids]).numpy()[0].decode() == "<fr> 水"


def test_lower_ignores_case(subwords):
    layer = adapted(kl.layers.Subwords(top=60, lower=True), ROWS)
    np.testing.assert_array_equal(layer(np.array(["READER"])), layer(np.array(["reader"])))
    assert 1 in subwords(np.array(["READER"])).numpy()


def test_column_without_texts_knows_no_words():
    for layer in (kl.layers.Subwords(), kl.layers.WordPiece()):
        layer.adapt(np.array(["", ""], object))
        assert 1 in layer(np.array(["word"])).numpy()


def test_word_pieces_are_those_of_the_libraries(word_piece):
    from tensorflow_text.tools.wordpiece_vocab.bert_vocab_from_dataset import bert_vocab_from_dataset

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    texts = tf.data.Dataset.from_tensor_slices(TEXTS).batch(64)
    assert word_piece.vocabulary == bert_vocab_from_dataset(texts, 60, special, {"lower_case": True})
    tokenizers = pytest.importorskip("tokenizers", reason="tokenizers is not installed")
    other = tokenizers.BertWordPieceTokenizer({t: i for i, t in enumerate(word_piece.vocabulary)}, lowercase=True)
    for text in [*TEXTS[:50], "Réad, WALKING!", "un\u00adknown 水"]:
        expected = [2, *other.encode(text, add_special_tokens=False).ids[:10], 3]
        assert word_piece(np.array([text])).numpy()[0].tolist() == expected + [0] * (12 - len(expected))


def test_vocabulary_of_bert_has_its_own_special_ids():
    vocabulary = ["[PAD]", "[unused0]", "[UNK]", "read", "##er", "[CLS]", "[SEP]"]
    layer = kl.layers.WordPiece(vocabulary=vocabulary, begin=True, end=True, length=6)
    assert layer(np.array(["reader x"])).numpy().tolist() == [[5, 3, 4, 2, 6, 0]]


NEW_PROCESS = """
import json, sys
import numpy as np
import kerasline as kl
model = kl.Preprocessing(sys.argv[1]).load()
ids = model({"text": np.array([["reading readers"]], object)})["text"]
layer = model.get_layer("text_subwords")
print(json.dumps([ids.numpy().tolist(), layer.decode(ids).numpy()[0].decode(), layer.vocabulary_size]))
"""


@pytest.fixture(params=["subword", "word_piece"])
def prepared(request, make_examples, tmp_path):
    examples = make_examples({"train": {"text": [*TEXTS, None]}})
    text = kl.features.Text(encode=request.param, top=60, length=20, begin=True, end=True)
    return kl.Transform(examples, features={"text": text}).execute(tmp_path / "t").preprocessing


def test_transform_learns_what_adapt_learns(prepared, request):
    layer = prepared.load().get_layer("text_subwords")
    kind = {"Subwords": "subwords", "WordPiece": "word_piece"}[type(layer).__name__]
    assert layer.vocabulary == request.getfixturevalue(kind).vocabulary
    state = (prepared.path / "state" / "text_subwords.txt").read_text(encoding="utf-8").splitlines()
    assert [line.split("\t")[0] for line in state] == layer.vocabulary


@pytest.mark.slow
def test_new_process_reads_the_vocabulary(prepared):
    layer = prepared.load().get_layer("text_subwords")
    command = [sys.executable, "-c", NEW_PROCESS, str(prepared.path)]
    ids, text, size = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert (text, size) == ("reading readers", layer.vocabulary_size)
    np.testing.assert_array_equal(ids, layer(np.array(["reading readers"])))


def test_too_small_vocabulary_is_one_line_of_transform(make_examples, tmp_path):
    features = {"text": kl.features.Text(encode="subword", top=9)}
    transform = kl.Transform(make_examples({"train": {"text": TEXTS}}), features=features)
    with pytest.raises(DataError, match=r"Subwords 'text_subwords': top=9 is too small, .* \d+ different characters"):
        transform.execute(tmp_path / "t")


def test_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_text", None)
    with pytest.raises(ParameterError, match=r"WordPiece needs tensorflow-text.*pip install 'kerasline\[language\]'"):
        kl.layers.WordPiece(vocabulary=["[PAD]", "[UNK]", "[CLS]", "[SEP]"])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: kl.layers.Subwords(top=0), "Subwords: invalid top: expected an integer from 1, received 0"),
        (lambda: kl.layers.Subwords(length=0), "invalid length"),
        (lambda: kl.layers.Subwords(algorithm="words"), "invalid algorithm"),
        (lambda: kl.layers.Subwords(coverage=2), "invalid coverage"),
        (lambda: kl.layers.Subwords(model=b"not a model"), "invalid model: expected a SentencePiece model"),
        (lambda: kl.layers.WordPiece(vocabulary=["a"]), "invalid vocabulary"),
        (lambda: kl.layers.Subwords()(np.array(["a"])), "has no vocabulary yet; adapt it"),
        (lambda: kl.layers.Subwords()(keras.Input((1,))), "invalid inputs: expected texts"),
        (lambda: kl.layers.Subwords()(keras.Input((2,), dtype="string")), r"expected shape \(rows,\) or \(rows, 1\)"),
        (lambda: kl.layers.TokensToText(keras.layers.Dense(1)), "invalid tokenizer"),
    ],
)
def test_invalid_argument_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
