"""Keras metrics by slice and with intervals. Their variables are sums, so they can be added.

Every metric of Keras keeps sums (a mean's total and count, an AUC's counts at thresholds, a confusion
matrix); they are added over batches, whichever worker had them. The interval is the delete-a-group
jackknife of `estimates.jackknifed`.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasline.components.core.errors import UserCodeError, one_line
from kerasline.components.core.keras_compat import set_mask
from kerasline.components.metrics.estimates import JACKKNIFE_GROUPS, Estimate, jackknife_groups, jackknifed

_NONE = np.array([np.nan])


@dataclass(frozen=True)
class KerasMetric:
    """A Keras metric, identified by its configuration.

    Attributes:
        name: the name of the metric.
        config: of `keras.metrics.serialize`, as JSON.
    """

    name: str
    config: str

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> KerasMetric:
        return cls(keras.metrics.deserialize(dict(config)).name, json.dumps(config))


def distinct(metrics: Iterable[KerasMetric]) -> tuple[KerasMetric, ...]:
    """Return each metric once. Different metrics of the same name are numbered as in Keras: `auc`, `auc_1`."""
    found: dict[str, KerasMetric] = {}
    for metric in metrics:
        names = itertools.chain([metric.name], (f"{metric.name}_{number}" for number in itertools.count(1)))
        name = next(n for n in names if n not in found or found[n].config == metric.config)
        found[name] = replace(metric, name=name)
    return tuple(found.values())


class KerasStates:
    """The variables of a metric, summed by group of rows and jackknife group."""

    def __init__(self, metric: KerasMetric) -> None:
        self._metric = metric
        # float64 (JACKKNIFE_GROUPS, 1 + numbers), by group: how many rows there are, and their sums
        self._sums: dict[int, np.ndarray] = {}
        # A row by argument of the update, from which some metrics derive the shapes of their variables.
        self._example: dict[str, np.ndarray] = {}

    def add(
        self,
        label: np.ndarray,
        prediction: np.ndarray,
        weight: np.ndarray | None,
        mask: np.ndarray | None,
        numbers: np.ndarray,
        groups: Sequence[np.ndarray],
    ) -> None:
        """Add rows.

        Args:
            label, prediction: labels and outputs of the model, (rows, ...).
            weight: (rows,), (rows, 1) or (rows, length), or None.
            mask: bool (rows, length), the mask of the prediction, or None.
            numbers: int64 (rows,), a unique number of each row.
            groups: for each slicing, the group of each row, int64 (rows,); -1 for none.
        """
        if label.ndim == prediction.ndim - 1 and prediction.shape[-1] == 1:
            label = label[..., np.newaxis]
        rows = {"y_true": label, "y_pred": prediction}
        if weight is not None:  # Keras multiplies the weights by the mask, which needs an axis of length 1
            one_each = weight.size == len(weight)
            rows["sample_weight"] = weight.reshape(len(weight), *[1] * (mask is not None)) if one_each else weight
        self._example = self._example or {name: array[:1] for name, array in rows.items() if name != "sample_weight"}
        if mask is not None:
            rows["mask"] = mask
        chance = jackknife_groups(numbers)
        for group in groups:
            inside = np.flatnonzero(group >= 0)
            cells = group[inside] * JACKKNIFE_GROUPS + chance[inside]
            order = np.argsort(cells, kind="stable")
            found, starts = np.unique(cells[order], return_index=True)
            if not len(inside):
                continue
            ordered = {name: array[inside[order]] for name, array in rows.items()}
            counts = np.diff(starts, append=len(inside))
            for cell, count, sums in zip(found.tolist(), counts, self._functions.sums(ordered, starts)):
                place, part = divmod(cell, JACKKNIFE_GROUPS)
                if place not in self._sums:
                    self._sums[place] = np.zeros((JACKKNIFE_GROUPS, 1 + len(sums)))
                self._sums[place][part] += np.append(count, sums)

    def merge(self, other: KerasStates) -> None:
        self._example = self._example or other._example
        for group, sums in other._sums.items():
            self._sums[group] = self._sums[group] + sums if group in self._sums else sums

    def estimates(self, groups: int) -> list[Estimate]:
        """Return the metric of each group from 0 to `groups` - 1, NaN for a group without rows."""
        results = self._results()
        return [jackknifed(results.get(group, _NONE)) for group in range(groups)]

    def changes(self, others: KerasStates, groups: int) -> list[Estimate]:
        """Return the metric minus that of other predictions for the same rows."""
        ours, theirs = self._results(), others._results()
        return [jackknifed(ours.get(group, _NONE) - theirs.get(group, _NONE)) for group in range(groups)]

    def _results(self) -> dict[int, np.ndarray]:
        """Return, by group, the metric and its value without each non-empty jackknife group, float64 (1 + n,)."""
        totals: list[np.ndarray] = []
        parts: dict[int, slice] = {}
        for group, sums in self._sums.items():
            filled = np.flatnonzero(sums[:, 0])
            total = sums.sum(axis=0)
            parts[group] = slice(len(totals), len(totals) + 1 + len(filled))
            totals += [total, *(total - sums[one] for one in filled)]
        results = self._functions.results(np.array(totals)[:, 1:]) if totals else np.empty(0)
        return {group: results[part] for group, part in parts.items()}

    @property
    def _functions(self) -> _Functions:
        functions = _functions(self._metric)
        functions.build(self._example)
        return functions


@functools.lru_cache(maxsize=32)
def _functions(metric: KerasMetric) -> _Functions:
    return _Functions(metric)


class _Functions:
    """The update and the result of a metric, each one TensorFlow call for any number of groups."""

    def __init__(self, metric: KerasMetric) -> None:
        self._name = metric.name
        self._metric = keras.metrics.deserialize(json.loads(metric.config))
        self._built = self._is_traced = False

    def build(self, example: Mapping[str, np.ndarray]) -> None:
        if not self._built:
            with self._user_errors():
                self._metric.update_state(**{name: tf.constant(array) for name, array in example.items()})
            self._metric.reset_state()
            self._zero = [tf.constant(variable.numpy()) for variable in self._metric.variables]
            self._built = True

    def sums(self, rows: Mapping[str, np.ndarray], starts: np.ndarray) -> np.ndarray:
        """Return the variables after each run of rows, float64 (runs, numbers).

        Args:
            rows: the arguments of the update by name, (rows, ...), and `mask`, that of the prediction, if it has one.
            starts: of the runs, int64 (runs,).
        """
        spans = np.stack([starts, np.append(starts[1:], len(rows["y_true"]))], 1)
        with self._user_errors():
            tensors = {name: tf.constant(array) for name, array in rows.items()}, tf.constant(spans)
            if not self._is_traced:  # Trace once for any number of rows.
                self._sums.get_concrete_function(*tf.nest.map_structure(_of_any_length, tensors))
                self._is_traced = True
            return self._sums(*tensors).numpy()

    def results(self, sums: np.ndarray) -> np.ndarray:
        """Return the metric of each state, float64 (states,). A result of several numbers is averaged."""
        return self._results(tf.constant(sums)).numpy()

    @functools.cached_property
    def _sums(self) -> Any:
        @tf.function(reduce_retracing=True, autograph=False)
        def sums(rows: dict[str, tf.Tensor], spans: tf.Tensor) -> tf.Tensor:
            def of_span(span: tf.Tensor) -> tf.Tensor:
                part = {name: array[span[0] : span[1]] for name, array in rows.items()}
                set_mask(part["y_pred"], part.pop("mask", None))
                variables = self._metric.stateless_update_state(self._zero, **part)
                return tf.concat([tf.reshape(tf.cast(v, tf.float64), [-1]) for v in variables], 0)

            return tf.map_fn(of_span, spans, fn_output_signature=tf.float64)

        return sums

    @functools.cached_property
    def _results(self) -> Any:
        sizes = [math.prod(zero.shape) for zero in self._zero]

        @tf.function(reduce_retracing=True, autograph=False)
        def results(states: tf.Tensor) -> tf.Tensor:
            def of_state(state: tf.Tensor) -> tf.Tensor:
                parts = tf.split(state, sizes)
                variables = [tf.cast(tf.reshape(p, z.shape), z.dtype) for p, z in zip(parts, self._zero)]
                return tf.reduce_mean(tf.cast(self._metric.stateless_result(variables), tf.float64))

            return tf.map_fn(of_state, states, fn_output_signature=tf.float64)

        return results

    @contextlib.contextmanager
    def _user_errors(self) -> Iterator[None]:
        try:
            yield
        except (ValueError, TypeError, tf.errors.InvalidArgumentError) as error:
            raise UserCodeError(f"metric {self._name!r} cannot be computed: {one_line(error, 200)}") from error


def _of_any_length(tensor: tf.Tensor) -> tf.TensorSpec:
    return tf.TensorSpec([None, *tensor.shape[1:]], tensor.dtype)
