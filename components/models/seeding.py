"""The seed of all randomness in building and training a model, unaffected by other threads."""

from __future__ import annotations

import random
import threading
from typing import Any

from kerasline.components.core.keras_compat import replace_seed_source, seed_keras_and_tensorflow, seed_source


def seed_everything(seed: int) -> None:
    """Seed the random number generators of Python, NumPy, TensorFlow and Keras, as `keras.utils.set_random_seed` does.

    Resources of other stages stay intact, see `seed_keras_and_tensorflow`. Keras draws the seeds of initializers and
    layers that have none from Python's generator. Stages in other threads also draw from it, as Beam does when it
    shuffles. Therefore, Keras gets a generator per thread, seeded here for the current thread.

    Args:
        seed: the seed.
    """
    import numpy as np

    random.seed(seed)
    np.random.seed(seed)
    seed_keras_and_tensorflow(seed)
    source = seed_source()
    if not isinstance(source, _ThreadLocalRandom):
        source = _ThreadLocalRandom()
        replace_seed_source(source)
    source.seed_thread(seed)


class _ThreadLocalRandom(threading.local):
    """Python's module `random`, or a generator of its own in each thread that called `seed_thread`."""

    def __init__(self) -> None:
        self._generator: Any = random

    def seed_thread(self, seed: int) -> None:
        self._generator = random.Random(seed)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._generator, name)
