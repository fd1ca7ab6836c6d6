"""Categories as the mean of the label: the layer that is adapted on the label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import keras
import numpy as np
import pyarrow as pa
import tensorflow as tf

from kerasline.components.preprocessing.layers.base import (
    AdaptableLayer,
    as_arrow_texts,
    as_texts,
    check,
    check_category_dtype,
    is_utf8,
    is_whole,
    known_labels,
)
from kerasline.components.preprocessing.training_mode import current_positions, fold_of


@keras.saving.register_keras_serializable("kerasline")
class TargetEncoding(AdaptableLayer):
    """Encodes each category by the mean of the label, shrunk towards the overall mean.

    The formulas are those of scikit-learn's `TargetEncoder` (Micci-Barreca, "A preprocessing scheme for
    high-cardinality categorical attributes in classification and prediction problems", SIGKDD Explorations 2001). With
    n rows of a category, their mean m and (population) variance v, and the overall mean M and variance V::

        smooth="auto":    weight * m + (1 - weight) * M,    weight = V n / (V n + v)
        a number:         (n m + smooth M) / (n + smooth)

    An unseen category, and a missing one ("" or -1), is encoded by M.

    The encoding of a row in training must not contain the row's own label, or the model would learn to read the label
    off it. Adaptation therefore splits the rows into folds, and keeps one table of encodings without each fold next to
    the table of all rows. In training, each row that was adapted on is encoded without its own fold. Evaluation and
    serving use the table of all rows. A row's fold is a hash of its position in the data. Rows without a label do not
    take part.

    Args:
        smooth: `"auto"`, or a number from 0. The larger, the closer are small categories to the overall mean. Defaults
            to `"auto"`.
        folds: int, at least 2. Number of folds. Defaults to 5.
        target_type: `"numeric"` averages the label, so that a label of 0 and 1 gives the share of 1 and a regression's
            label its mean. `"multiclass"` gives a column for each class of an integer or text label: the share of
            that class. Defaults to `"numeric"`.
        label: str. The label to encode by if Transform learns several.
        vocabulary: list of str. The known categories. Pass it with `encodings` to create an adapted layer.
        encodings: array-like (categories + 1, folds + 1, columns). The first row is for unknown categories. On the
            second axis, index 0 is the table of all rows, and index i + 1 the table without fold i.
        classes: list of str or numbers. The class of each column, if `target_type` is `"multiclass"`.
        may_be_missing: bool. Whether -1 in integers means a missing value. If `False`, it is an ordinary integer.
            Defaults to `True`.

    Inputs:
        Texts or integers of shape (rows,) or (rows, 1).

    Outputs:
        float32 of shape (rows, columns): one column, or one for each class in ascending order.

    Raises:
        ValueError: an argument or the inputs are invalid, or the layer is called before it is adapted.

    Example:

    >>> layer = kl.layers.TargetEncoding(smooth=0.0)
    >>> company, tipped = ["a", "a", "a", "a", "b", "b"], [1, 1, 1, 0, 0, 0]
    >>> layer.adapt(company, label=tipped)
    >>> layer(np.array(["a", "b", "never seen"])).numpy().tolist()
    [[0.75], [0.0], [0.5]]

    In training, a row is encoded by the rows of the other folds. The fourth row, whose label is 0, is encoded by the
    labels 1 of the others. The first two rows share a fold:

    >>> print(layer(np.array(company), positions=np.arange(6)).numpy()[:4, 0].round(3))
    [0.5   0.5   0.667 1.   ]
    """

    def __init__(
        self,
        smooth: Literal["auto"] | float = "auto",
        folds: int = 5,
        target_type: Literal["numeric", "multiclass"] = "numeric",
        label: str | None = None,
        vocabulary: Sequence[str] | None = None,
        encodings: Any = None,
        classes: Sequence[Any] | None = None,
        may_be_missing: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(**{"dtype": "float32", **options})  # whatever the global policy, as `NumericLayer`
        self.supports_jit = False  # XLA has no texts
        number = isinstance(smooth, (int, float)) and not isinstance(smooth, bool) and 0 <= smooth < np.inf
        self._check(number or smooth == "auto", "smooth", smooth, "'auto' or a number from 0")
        self._check(is_whole(folds, 2), "folds", folds, "an integer from 2")
        types = ("numeric", "multiclass")
        self._check(target_type in types, "target_type", target_type, " or ".join(map(repr, types)))
        self.smooth, self.folds, self.target_type, self.label = smooth, folds, target_type, label
        self.may_be_missing = bool(may_be_missing)
        self._values: np.ndarray | None = None  # of str; Keras would track each value of a list
        self._encodings: np.ndarray | None = None
        self._classes: np.ndarray | None = None
        if vocabulary is not None or encodings is not None:
            table = np.asarray([] if encodings is None else encodings, np.float64)
            expected = (len(vocabulary or []) + 1, folds + 1)
            fits = table.ndim == 3 and table.shape[:2] == expected
            self._check(fits, "encodings", table.shape, f"an array of shape {expected} and columns, as of vocabulary")
            self._set(vocabulary or [], table, None if classes is None else np.asarray(classes))

    @property
    def vocabulary(self) -> list[str] | None:
        """The known categories, by descending number of rows. None before the layer is adapted."""
        return None if self._values is None else self._values.tolist()

    @property
    def encodings(self) -> np.ndarray | None:
        """The tables, see the argument. None before the layer is adapted."""
        return self._encodings

    @property
    def classes(self) -> list[Any] | None:
        """The class of each column. None if the label is numeric, or before the layer is adapted."""
        return None if self._classes is None else self._classes.tolist()

    def build(self, input_shape: Any) -> None:
        shape = tuple(input_shape)
        self._check(len(shape) > 0 and shape[1:] in ((), (1,)), "inputs", shape, "shape (rows,) or (rows, 1)")

    def call(self, values: Any, positions: Any = None) -> tf.Tensor:
        """Encode categories.

        Args:
            values: texts or integers (rows,) or (rows, 1).
            positions: int64 (rows,). Encode each row without the fold of its position in the adapted data. Defaults to
                the positions that training declares, see `kerasline.components.preprocessing.training_mode`.
        """
        if self._encodings is None:
            raise ValueError(f"TargetEncoding {self.name!r} has no encodings yet; adapt it, or pass it encodings")
        texts = as_texts(tf.convert_to_tensor(values), "TargetEncoding", self.may_be_missing)
        places = self._table.lookup(tf.reshape(texts, [-1]))
        positions = current_positions() if positions is None else positions
        if positions is None:
            encoded = tf.gather(tf.constant(self._encodings[:, 0], self.compute_dtype), places)
        else:
            cells = tf.stack([places, 1 + fold_of(positions, self.folds)], axis=1)
            encoded = tf.gather_nd(tf.constant(self._encodings, self.compute_dtype), cells)
        return tf.ensure_shape(encoded, [texts.shape[0], self._encodings.shape[2]])

    def compute_output_spec(self, values: Any, positions: Any = None) -> keras.KerasTensor:
        check_category_dtype("TargetEncoding", values.dtype)
        columns = 1 if self.target_type == "numeric" else None
        columns = columns if self._encodings is None else self._encodings.shape[2]
        return keras.KerasTensor((values.shape[0], columns), self.compute_dtype)

    def new_state(self) -> TargetMoments | None:
        return self._empty_state() if self._encodings is None else None

    def _empty_state(self) -> TargetMoments:
        return TargetMoments(self.folds, self.target_type == "multiclass", self.may_be_missing)

    def set_state(self, state: TargetMoments) -> None:
        self._set(*state.encodings(self.smooth))

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "smooth": self.smooth,
            "folds": self.folds,
            "target_type": self.target_type,
            "label": self.label,
            "vocabulary": self.vocabulary,
            "encodings": None if self._encodings is None else self._encodings.tolist(),
            "classes": self.classes,
            "may_be_missing": self.may_be_missing,
        }

    def _set(self, vocabulary: Sequence[str], encodings: np.ndarray, classes: np.ndarray | None) -> None:
        self._values = np.array([*vocabulary, None], object)[:-1]  # of objects, whatever the texts are
        self._encodings, self._classes = encodings, classes
        with tf.init_scope():
            # TensorFlow refuses an empty table. "" is missing, so it has the place of unknown categories.
            keys = tf.constant([*self._values, ""])
            places = tf.constant([*range(1, len(self._values) + 1), 0], tf.int64)
            self._table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(keys, places), 0)

    def _check(self, holds: bool, name: str, received: Any, expected: str) -> None:
        check("TargetEncoding", holds, name, received, expected)


class TargetMoments:
    """Number of rows, sum and squared deviations of the label, for each category and fold.

    Sums are exact for integer labels. Squared deviations are merged by Chan, Golub and LeVeque (1979), in float64. For
    classes, the sums count rows, one column for each class, and the deviations follow from them.

    Args:
        folds: number of folds.
        per_class: whether the label is a class.
        may_be_missing: whether -1 is a missing integer.
    """

    TAKES_LABEL = True

    def __init__(self, folds: int, per_class: bool, may_be_missing: bool) -> None:
        self._folds, self._per_class, self._may_be_missing = folds, per_class, may_be_missing
        self._categories = pa.array([], pa.large_binary())
        self._classes = np.array([], np.int64) if per_class else np.zeros(1, np.int64)
        self._counts = np.zeros((0, folds))
        self._sums = np.zeros((0, folds, len(self._classes)))
        self._deviations = np.zeros((0, folds, 1))

    def add(self, values: np.ndarray, *, label: np.ndarray, positions: np.ndarray) -> None:
        label, known = known_labels("TargetEncoding", label, may_be_text=self._per_class)
        if not known.any():
            return
        fold = fold_of(tf.constant(positions[known], tf.int64), self._folds).numpy()
        texts = as_arrow_texts(np.asarray(values).reshape(-1), self._may_be_missing)
        texts = texts.filter(pa.array(known)).dictionary_encode()
        categories = texts.dictionary
        cell, cells = texts.indices.to_numpy() * self._folds + fold, len(categories) * self._folds
        counts, shape = np.bincount(cell, minlength=cells), (len(categories), self._folds, -1)
        sums: np.ndarray
        if self._per_class:
            classes, number = np.unique(label, return_inverse=True)
            sums = np.bincount(cell * len(classes) + number.reshape(-1), minlength=cells * len(classes))
            deviations: np.ndarray = np.zeros(cells)
        else:
            classes, label = self._classes, label.astype(np.float64)
            sums = np.bincount(cell, label, cells)
            means = sums / np.maximum(counts, 1)
            deviations = np.bincount(cell, np.square(label - means[cell]), cells)
        self._combine(categories, classes, counts.reshape(shape[:2]), sums.reshape(shape), deviations.reshape(shape))

    def merge(self, other: TargetMoments) -> None:
        self._combine(other._categories, other._classes, other._counts, other._sums, other._deviations)

    def encodings(self, smooth: Literal["auto"] | float) -> tuple[list[str], np.ndarray, np.ndarray | None]:
        """Return the categories, their encodings as `TargetEncoding` takes them, and the classes."""
        ordered = self._ordered()
        tables = []
        for left_out in (None, *range(self._folds)):
            kept = [fold for fold in range(self._folds) if fold != left_out]
            counts, sums, deviations = self._counts[:, kept], self._sums[:, kept], self._squares()[:, kept]
            n, total, squares = _joined(counts, sums, deviations)
            (all_n,), (all_total,), (all_squares,) = _joined(n[None], total[None], squares[None])
            mean, variance = all_total / max(all_n, 1), all_squares / max(all_n, 1)
            n, total, squares = n[ordered, None], total[ordered], squares[ordered]
            with np.errstate(invalid="ignore", divide="ignore"):
                if smooth == "auto":
                    weight = variance * n / (variance * n + squares / n)
                    encoded = weight * (total / n) + (1 - weight) * mean
                else:
                    encoded = (total + smooth * mean) / (n + smooth)
            # As in scikit-learn: the mean for a category without rows, and for a label without variance.
            tables.append(np.concatenate([mean[None], np.where(np.isnan(encoded), mean, encoded)]))
        categories = [self._categories[place].as_py().decode() for place in ordered]
        return categories, np.stack(tables, axis=1), self._classes if self._per_class else None

    def readable(self) -> dict[str, Any]:
        """Return the number of rows and the mean of the label, or the share of each class, for each category."""
        ordered, sums, counts = self._ordered(), self._sums.sum(axis=1), self._counts.sum(axis=1)
        found = {}
        for place in ordered:
            means = (sums[place] / counts[place]).tolist()
            label = dict(zip(map(str, self._classes.tolist()), means)) if self._per_class else means[0]
            found[self._categories[place].as_py().decode()] = {"count": int(counts[place]), "label": label}
        return found

    def _combine(
        self, categories: pa.Array, classes: np.ndarray, counts: np.ndarray, sums: np.ndarray, deviations: np.ndarray
    ) -> None:
        found = pa.concat_arrays([self._categories, categories.cast(pa.large_binary())]).dictionary_encode()
        place, size = found.indices.to_numpy()[len(self._categories) :], len(found.dictionary)
        joint = np.union1d(self._classes, classes) if len(self._classes) else classes
        our_counts, our_deviations = _grown(self._counts, size), _grown(self._deviations, size)
        our_sums, sums = _in_columns(_grown(self._sums, size), self._classes, joint), _in_columns(sums, classes, joint)

        def groups(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
            """Return ours and theirs for each cell, (cells, 2, ...)."""
            return np.stack([one.reshape(-1, *one.shape[2:]) for one in (ours[place], theirs)], axis=1)

        if not self._per_class:
            pairs = groups(our_counts, counts), groups(our_sums, sums), groups(our_deviations, deviations)
            our_deviations[place] = _joined(*pairs)[2].reshape(deviations.shape)
        our_counts[place] += counts
        our_sums[place] += sums
        self._categories, self._classes = found.dictionary, joint
        self._counts, self._sums, self._deviations = our_counts, our_sums, our_deviations

    def _squares(self) -> np.ndarray:
        """Return the squared deviations, (categories, folds, columns)."""
        if not self._per_class:
            return self._deviations
        return self._sums * (1 - self._sums / np.maximum(self._counts, 1)[..., None])

    def _ordered(self) -> list[int]:
        """Return the places of the categories that are not missing and are UTF-8, by descending count, then text."""
        raw, counts = self._categories.to_pylist(), self._counts.sum(axis=1)
        kept = [place for place, text in enumerate(raw) if text and is_utf8(text)]
        return sorted(kept, key=lambda place: (counts[place], raw[place]), reverse=True)


def _joined(counts: np.ndarray, sums: np.ndarray, deviations: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Join groups along the second axis: counts (n, groups), sums and squared deviations (n, groups, columns)."""
    n, total = counts.sum(axis=1), sums.sum(axis=1)
    means = sums / np.maximum(counts, 1)[..., None]
    joint = (total / np.maximum(n, 1)[:, None])[:, None]
    return n, total, (deviations + counts[..., None] * np.square(means - joint)).sum(axis=1)


def _grown(values: np.ndarray, size: int) -> np.ndarray:
    return np.concatenate([values, np.zeros((size - len(values), *values.shape[1:]))])


def _in_columns(values: np.ndarray, classes: np.ndarray, joint: np.ndarray) -> np.ndarray:
    """Return values (..., classes) with a column for each class of `joint`, 0 for classes they lack."""
    if len(classes) == len(joint):
        return values.astype(np.float64)
    spread = np.zeros((*values.shape[:-1], len(joint)))
    spread[..., np.searchsorted(joint, classes)] = values
    return spread
