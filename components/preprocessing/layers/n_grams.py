"""A language model of n-grams, learned from ids."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasline.components.core.errors import DataError
from kerasline.components.preprocessing.layers.base import AdaptableLayer, check, is_whole

# Largest number of n-grams that could exist. All of them are counted in one array of this size.
MAX_N_GRAMS = 1 << 22


class NGramCounts:
    """Counts n-grams of ids, int64 (classes ** order,): that of the ids a, b, c is at ((a classes) + b) classes + c."""

    def __init__(self, classes: int, order: int) -> None:
        self._classes, self._order = classes, order
        self.counts = np.zeros(classes**order, np.int64)

    def add(self, *columns: np.ndarray) -> None:
        for ids in columns:
            ids = np.asarray(ids, np.int64)
            if ids.size and not 0 <= ids.min() <= ids.max() < self._classes:
                raise DataError(
                    f"NGrams: expected ids from 0 to {self._classes - 1}, received {ids.min()}, {ids.max()}"
                )
            padded = np.pad(ids, ((0, 0), (self._order - 1, 1)))
            windows = np.lib.stride_tricks.sliding_window_view(padded, self._order, axis=1)
            ends = np.where(ids != 0, np.arange(1, ids.shape[1] + 1), 0).max(axis=1, initial=0)
            is_text = np.arange(windows.shape[1]) <= ends[:, np.newaxis]
            numbers = windows[is_text] @ self._classes ** np.arange(self._order - 1, -1, -1)
            self.counts += np.bincount(numbers, minlength=len(self.counts))

    def merge(self, other: NGramCounts) -> None:
        self.counts += other.counts

    def readable(self) -> list[tuple[str, int]]:
        """Return the n-grams that occur, such as "3 1 2", with their counts, the most frequent first."""
        found = np.flatnonzero(self.counts)
        found = found[np.argsort(-self.counts[found], kind="stable")]
        n_grams = np.stack(np.unravel_index(found, (self._classes,) * self._order), axis=1)
        return list(zip([" ".join(map(str, one)) for one in n_grams.tolist()], self.counts[found].tolist()))


@keras.saving.register_keras_serializable("kerasline")
class NGrams(AdaptableLayer):
    """Returns ids unchanged, and learns how probable each is after the ids before it.

    `kl.decoding.ctc(language=layer)` uses it as language model. The last order - 1 ids h occurred c(h) times, c(h w)
    times followed by w, and by d(h) different ids. The probability of w after h is interpolated with that after h',
    which lacks the first of them, and so on to 1 / classes (Witten and Bell, IEEE Transactions on Information Theory
    37, 1991)::

        p(w | h) = (c(h w) + d(h) p(w | h')) / (c(h) + d(h))

    0 is padding: it stands before the first id, and follows the last one, so that it is also the end of a text.

    Args:
        classes: int. Number of ids, with 0.
        order: int. Number of ids of an n-gram. `classes ** order` is 2<sup>22</sup> at most, as of 45 characters and
            order 4. Defaults to 3.

    Inputs:
        Integers (rows, steps), padded with 0.

    Outputs:
        The same.

    Raises:
        ValueError: an argument or the inputs are invalid.

    Example:

    >>> layer = kl.layers.NGrams(3, order=2)
    >>> layer.adapt([[1, 2, 1, 2]])
    >>> print(np.exp(layer.log_probabilities([[1], [2]])).round(1))
    [[0.1 0.1 0.8]
     [0.4 0.4 0.2]]
    """

    def __init__(self, classes: int, order: int = 3, **options: Any) -> None:
        super().__init__(**options)
        self.autocast = False
        check("NGrams", is_whole(classes, 2), "classes", classes, "an integer from 2")
        check("NGrams", is_whole(order, 1), "order", order, "an integer from 1")
        n_grams = classes**order
        check("NGrams", n_grams <= MAX_N_GRAMS, "order", order, f"classes ** order up to {MAX_N_GRAMS}, not {n_grams}")
        self.classes, self.order = classes, order

    def build(self, input_shape: Any) -> None:
        self.table = self.add_weight(
            shape=(self.classes ** (self.order - 1), self.classes),
            initializer=keras.initializers.Constant(-np.log(self.classes)),
            dtype="float32",
            trainable=False,
            name="table",
        )

    def call(self, ids: Any) -> tf.Tensor:
        return tf.identity(ids)

    def compute_output_spec(self, ids: Any) -> keras.KerasTensor:
        is_ids = len(ids.shape) == 2 and "int" in ids.dtype
        check("NGrams", is_ids, "inputs", f"{ids.dtype} {tuple(ids.shape)}", "integers (rows, steps)")
        return keras.KerasTensor(ids.shape, ids.dtype)

    def log_probabilities(self, before: Any) -> tf.Tensor:
        """Return the logarithm of the probability of each id, float32 (rows, classes).

        Args:
            before: integers (rows, order - 1). The ids before it, 0 before the first one.
        """
        before = tf.cast(before, tf.int32)
        context = tf.zeros([tf.shape(before)[0]], tf.int32)
        for place in range(self.order - 1):
            context = self.next_context(context, before[:, place])
        return tf.gather(tf.convert_to_tensor(self.table), context)

    def next_context(self, context: tf.Tensor, ids: tf.Tensor) -> tf.Tensor:
        """Return the row of `table` after further ids. Row 0 is that of the beginning of a text."""
        return (context * self.classes + ids) % self.table.shape[0]

    def new_state(self) -> NGramCounts:
        return NGramCounts(self.classes, self.order)

    def set_state(self, state: NGramCounts) -> None:
        counts = [state.counts.reshape(-1, self.classes)]  # by order, the highest first; a row for each context
        for _ in range(self.order - 1):
            counts.append(counts[-1].reshape(self.classes, -1, self.classes).sum(axis=0))
        probabilities = np.full((1, self.classes), 1 / self.classes)
        for found in reversed(counts):
            lower = np.tile(probabilities, (len(found) // len(probabilities), 1))
            kinds, total = (found > 0).sum(axis=1, keepdims=True), found.sum(axis=1, keepdims=True)
            probabilities = np.where(total > 0, (found + kinds * lower) / np.maximum(total + kinds, 1), lower)
        self.table.assign(np.log(probabilities))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "classes": self.classes, "order": self.order}
