"""Seeds of models while other threads draw random numbers."""

import contextlib
import random
import threading

import keras
import numpy as np

from kerasline.components.models.seeding import seed_everything


@contextlib.contextmanager
def other_thread_draws():
    """A thread that draws from Python's generator all the time, as Beam does when it shuffles."""
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
        beside = [weights() for _ in range(5)]
    for found in beside:
        for one, other in zip(alone, found):
            np.testing.assert_array_equal(one, other)
    assert not np.array_equal(alone[0], weights(seed=8)[0])


def test_weights_equal_those_of_keras_set_random_seed():
    ours = weights(layers=2)
    keras.utils.set_random_seed(7)
    states = [random.randint(1, int(1e9)) for _ in range(2)]  # what Keras draws for the two kernels
    first = keras.initializers.GlorotUniform(seed=states[0])((4, 4))
    np.testing.assert_array_equal(ours[0], np.asarray(first))
