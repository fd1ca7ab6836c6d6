"""Seeds of models while other threads draw random numbers."""

import contextlib
import io
import random
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasline.components.models.seeding import seed_everything


@contextlib.contextmanager
def other_thread_draws():
    """Run a thread that constantly draws from Python's generator, as Beam does when it shuffles."""
    stop = threading.Event()

    def draw():
        while not stop.wait(1e-5):
            random.random()

    thread = threading.Thread(target=draw)
    thread.start()
    yield
    stop.set()
    thread.join()


def weights(seed=7, layers=40):
    seed_everything(seed)
    x = inputs = keras.Input((4,))
    for _ in range(layers):
        x = keras.layers.Dense(4)(x)
    return keras.Model(inputs, x).get_weights()


def test_weights_do_not_depend_on_other_threads():
    alone = weights()
    with other_thread_draws():
        concurrent = [weights() for _ in range(5)]
    for found in concurrent:
        for one, other in zip(alone, found):
            np.testing.assert_array_equal(one, other)
    assert not np.array_equal(alone[0], weights(seed=8)[0])


def test_weights_equal_those_of_keras_set_random_seed():
    ours = weights(layers=2)
    keras.utils.set_random_seed(7)
    states = [random.randint(1, int(1e9)) for _ in range(2)]  # what Keras draws for the two kernels
    first = keras.initializers.GlorotUniform(seed=states[0])((4, 4))
    np.testing.assert_array_equal(ours[0], np.asarray(first))


def test_tokenizers_of_another_stage_outlive_the_seeding_of_a_stage():
    text, sentencepiece = pytest.importorskip("tensorflow_text"), pytest.importorskip("sentencepiece")
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["the cat sat on the mat", "a dog ran"] * 20),
        model_writer=model,
        vocab_size=30,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    tokenizer = text.SentencepieceTokenizer(model.getvalue())
    before = tokenizer.tokenize(["a cat"]).to_list()
    stage = threading.Thread(target=seed_everything, args=[7])
    stage.start()
    stage.join()
    assert tokenizer.tokenize(["a cat"]).to_list() == before


def drawn(seed):
    """Return the numbers that `keras.random`, TensorFlow in a graph, NumPy and Python draw after seeding."""
    seed_everything(seed)
    draws = [keras.random.normal((2,)), tf.function(lambda: tf.random.normal((2,)))(), np.random.normal(size=2)]
    return [*np.concatenate([np.asarray(draw) for draw in draws]), random.random()]


def test_same_seed_draws_the_same_numbers_from_every_source():
    first = drawn(7)
    assert first == drawn(7) and not set(first) & set(drawn(8))
    keras.utils.set_random_seed(7)
    np.testing.assert_array_equal(first[2:4], np.asarray(tf.function(lambda: tf.random.normal((2,)))()))
