"""The seed of all that is random in building and training a model, whatever other stages do meanwhile."""

from __future__ import annotations

import random
import threading
from typing import Any


def seed_everything(seed: int) -> None:
    """Seeds Python's, NumPy's, TensorFlow's and Keras's randomness.

    Initializers and layers that name no seed take one from Python's generator (`keras.src.random.seed_generator`),
    from which stages in other threads draw too, as Beam does when it shuffles. So for them this thread has a
    generator of its own from here on, seeded alike.
    """
    import keras

    keras.utils.set_random_seed(seed)
    _of_threads().seed(seed)


class _GeneratorOfThreads(threading.local):
    """Python's module `random` as Keras uses it; in a thread that was seeded, a generator of its own."""

    def __init__(self) -> None:
        self._generator: Any = random

    def seed(self, seed: int) -> None:
        self._generator = random.Random(seed)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._generator, name)


def _of_threads() -> _GeneratorOfThreads:
    from keras.src.random import seed_generator

    if not isinstance(seed_generator.python_random, _GeneratorOfThreads):
        seed_generator.python_random = _GeneratorOfThreads()
    return seed_generator.python_random
