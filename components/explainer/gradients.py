"""Integrated gradients: the contribution of each number of a model's input to a score.

Sundararajan, Taly and Yan, "Axiomatic attribution for deep networks", 2017: (x - x') times the mean gradient
of the score along the straight line from a baseline x' to x, so that all attributions of a row sum to the
difference of its scores. The mean is taken by Gauss-Legendre quadrature.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasline.components.core.artifacts import needed_inputs
from kerasline.components.core.errors import ParameterError, nearest
from kerasline.components.core.keras_compat import flatten_layers
from kerasline.components.data.display import is_image
from kerasline.components.explainer.raw_images import RawImages
from kerasline.components.explainer.settings import Baseline
from kerasline.components.explainer.subject import Raw, Subject

Tensors = dict[str, tf.Tensor]
Replacement = Callable[[str, tf.Tensor, tf.Tensor], tf.Tensor]
MOST_PLACES = 1000


@dataclass(frozen=True)
class Attributions:
    """The attributions of a batch of rows.

    Attributes:
        values: float32 (rows, ...) by feature; for an embedding, summed over its last axis.
        points: the inputs that scores are attributed to, float32 (rows, ...) by feature.
        missing: sum of the attributions of each row minus the difference of its scores, float32 (rows,).
    """

    values: dict[str, np.ndarray]
    points: dict[str, np.ndarray]
    missing: np.ndarray


class IntegratedGradients:
    """Attributes the score of the predicted class, or the only score, to the differentiable inputs of the model.

    These are its float inputs, the outputs of its Embedding layers under the names of the layers and, instead of an
    input that is computed from a single raw image without being one, such as flattened pixels, that image.

    Args:
        steps: number of points of the quadrature.
        baseline: "zeros", "mean" (see `set_means`), or numbers by feature, which are broadcast as in NumPy. Other
            features have zeros.
        first: some rows, by which is found what can be differentiated.

    Raises:
        ParameterError: the baseline names a feature that is no differentiable input.
    """

    def __init__(self, subject: Subject, *, steps: int, baseline: Baseline, first: Raw) -> None:
        self._subject = subject
        self._raw_images = RawImages(subject.features, first)
        used, outputs = subject.model.input, subject.features.output
        self._inputs = [
            name
            for name, tensor in outputs.items()
            if name not in self._raw_images.derived
            and "float" in str(tensor.dtype)
            and (not isinstance(used, dict) or name in used)
        ]
        self._embeddings = Embeddings(subject.model)
        self._quadrature = _gauss_legendre(steps)
        self._baseline = {} if isinstance(baseline, str) else self._checked(baseline)
        self._entering = tf.function(self._points_of, input_signature=[subject.signature], autograph=False)
        self._integrated = tf.function(self._integrate, input_signature=[subject.signature], autograph=False)

    @property
    def features(self) -> list[str]:
        """The names of the differentiable inputs. If empty, there are no gradients."""
        return [*self._raw_images.columns, *self._inputs, *self._embeddings.names]

    def set_means(self, parts: Iterable[tuple[Raw, np.ndarray]]) -> None:
        """Set the baseline to the mean of these rows, also over axes of variable length and embedded positions.

        Args:
            parts: batches of model inputs with the weights of their rows.
        """
        sums: dict[str, Any] = {}
        total = 0.0
        for raw, weight in parts:
            total += weight.sum()
            for name, point in self._entering(raw).items():
                values = self._over_places(name, point.numpy().astype(np.float64))
                sums[name] = sums.get(name, 0) + np.tensordot(weight, values, 1)
        self._baseline = {name: (value / total).astype(np.float32) for name, value in sums.items()}

    def attribute(self, raw: Raw) -> Attributions:
        """Compute the attributions of a batch of rows, in one TensorFlow call."""
        values, points, missing = self._integrated(raw)
        arrays = {name: value.numpy() for name, value in values.items()}
        for name in set(arrays) - {*self._raw_images.columns, *self._inputs}:
            arrays[name] = arrays[name].sum(-1)
        return Attributions(arrays, {name: point.numpy() for name, point in points.items()}, missing.numpy())

    def image_of(self, column: str) -> str | None:
        """Return the feature whose attributions form an image of a raw column: itself or one computed from it."""
        if column in self._raw_images.columns:
            return column
        for name in self._inputs:
            tensor = self._subject.features.output[name]
            if is_image(tensor.shape) and column in needed_inputs(self._subject.features.input, {name: tensor}):
                return name
        return None

    def tokens_of(self, raw: Raw) -> dict[str, str]:
        """Return the feature whose ids each call of an Embedding layer receives, by the name of its attributions."""
        if not self._embeddings.names:
            return {}
        features, received = self._subject.prepare(raw), dict[str, tf.Tensor]()

        def receive(name: str, ids: tf.Tensor, vectors: tf.Tensor) -> tf.Tensor:
            received[name] = ids
            return vectors

        with self._embeddings.replacing(receive):
            self._subject.predict(features)
        steps = {name: values for name, values in features.items() if values.shape.rank == 2 and values.shape[1] != 1}
        return {
            name: feature
            for name, ids in received.items()
            for feature, values in steps.items()
            if np.array_equal(ids, values)
        }

    def _checked(self, baseline: Mapping[str, Any]) -> dict[str, np.ndarray]:
        for name in baseline:
            if name not in self.features:
                raise ParameterError(
                    f"Explainer.baseline: no differentiable input {name!r} in the model; {nearest(name, self.features)}"
                )
        return {name: np.asarray(value, np.float32) for name, value in baseline.items()}

    def _over_places(self, name: str, values: np.ndarray) -> np.ndarray:
        """Average over the axes of variable length."""
        if name not in self._raw_images.columns and name not in self._inputs:
            return values.mean(axis=tuple(range(1, values.ndim - 1)))
        form = self._subject.features.output.get(name, self._subject.features.input.get(name))
        return values.mean(axis=tuple(axis for axis, size in enumerate(form.shape) if axis and size is None))

    def _points_of(self, raw: Raw) -> Tensors:
        return self._points(raw, self._subject.prepare(raw))

    def _points(self, raw: Raw, features: Tensors) -> Tensors:
        """Return the differentiable inputs, each float32 (rows, ...)."""
        found = {name: raw[name] for name in self._raw_images.columns}
        found |= {name: features[name] for name in self._inputs}
        if self._embeddings.names:
            with self._embeddings.replacing(lambda name, _, vectors: found.setdefault(name, vectors)):
                self._subject.predict(features)
        return {name: tf.cast(value, tf.float32) for name, value in found.items()}

    def _integrate(self, raw: Raw) -> tuple[Tensors, Tensors, tf.Tensor]:
        """Return attributions, the inputs they refer to, and the error of their sums."""
        features = self._subject.prepare(raw)
        points = self._points(raw, features)
        starts = {name: self._start(name, point) for name, point in points.items()}
        scores = self._scores(raw, features, points)
        target = tf.argmax(scores, axis=1)
        places, weights = self._quadrature

        def body(number: tf.Tensor, sums: Tensors) -> tuple[tf.Tensor, Tensors]:
            at = {name: starts[name] + places[number] * (points[name] - starts[name]) for name in points}
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(at)
                chosen = tf.gather(self._scores(raw, features, at), target, batch_dims=1)
            slopes = tape.gradient(chosen, at, unconnected_gradients=tf.UnconnectedGradients.ZERO)
            # A gradient may lack the static shape: that of a concatenation of more than 16 tensors does.
            shaped = {name: tf.ensure_shape(slopes[name], point.shape) for name, point in points.items()}
            return number + 1, {name: sums[name] + weights[number] * shaped[name] for name in points}

        zeros = {name: tf.zeros_like(point) for name, point in points.items()}
        _, slopes = tf.while_loop(
            lambda number, _: number < len(places),
            body,
            (0, zeros),
            parallel_iterations=1,
            shape_invariants=(tf.TensorShape([]), {name: point.shape for name, point in points.items()}),
        )
        values = {name: (points[name] - starts[name]) * slopes[name] for name in points}
        differences = scores - self._scores(raw, features, starts)
        rows = tf.shape(scores)[0]
        sums = [tf.reduce_sum(tf.reshape(value, [rows, -1]), axis=1) for value in values.values()]
        return values, points, tf.add_n(sums) - tf.gather(differences, target, batch_dims=1)

    def _start(self, name: str, point: tf.Tensor) -> tf.Tensor:
        start = self._baseline.get(name)
        return tf.zeros_like(point) if start is None else tf.broadcast_to(tf.constant(start), tf.shape(point))

    def _scores(self, raw: Raw, features: Mapping[str, tf.Tensor], points: Tensors) -> tf.Tensor:
        """Compute the scores with these values of the differentiable inputs."""
        features = {**features, **self._raw_images.features({**raw, **points})}
        features |= {name: tf.cast(points[name], features[name].dtype) for name in self._inputs}
        with self._embeddings.replacing(lambda name, _, vectors: tf.cast(points[name], vectors.dtype)):
            return self._subject.explained.by_unit(self._subject.predict(features))


class MeanAttributions:
    """Weighted mean over rows of the absolute attributions of each feature."""

    def __init__(self) -> None:
        self._sums: dict[str, np.ndarray] = {}
        self._weight = 0.0
        self.completeness_error = 0.0

    def add(self, found: Attributions, weight: np.ndarray) -> None:
        """Add the attributions of a batch."""
        self._weight += float(weight.sum())
        self.completeness_error = max(self.completeness_error, float(np.abs(found.missing).max(initial=0)))
        for name, values in found.values.items():
            # Sum per row over all axes but the last. A scalar feature has one place.
            by_place = np.abs(values).reshape(len(values), -1, values.shape[-1] if values.ndim > 1 else 1).sum(1)
            more, known = weight @ by_place, self._sums.get(name, np.zeros(0))
            size = max(len(more), len(known))
            self._sums[name] = np.pad(known, (0, size - len(known))) + np.pad(more, (0, size - len(more)))

    def as_json(self) -> list[dict[str, Any]]:
        """Return, per feature, `mean_absolute` and its parts along the last axis, `places`."""
        means = {name: values / self._weight for name, values in self._sums.items()}
        ranked = sorted(means.items(), key=lambda item: (-item[1].sum(), item[0]))
        return [
            {"feature": name, "mean_absolute": float(values.sum()), "places": values[:MOST_PLACES].tolist()}
            for name, values in ranked
        ]


def _gauss_legendre(steps: int) -> Sequence[tf.Tensor]:
    """Return points in (0, 1) and weights, float32 (steps,), exact for polynomials up to degree 2 steps - 1."""
    places, weights = np.polynomial.legendre.leggauss(steps)
    return tf.constant((places + 1) / 2, tf.float32), tf.constant(weights / 2, tf.float32)


class Embeddings:
    """The Embedding layers of a model, whose outputs can be read or replaced. Their masks are not changed.

    Attributes:
        names: the names of the layers.
    """

    def __init__(self, model: keras.Model) -> None:
        self._layers = [layer for layer in flatten_layers(model) if isinstance(layer, keras.layers.Embedding)]
        self.names = [layer.name for layer in self._layers]

    @contextlib.contextmanager
    def replacing(self, through: Replacement) -> Iterator[None]:
        """Replace the outputs of the layers by those of a function `(name, ids, vectors)`, within the context.

        The ids are the inputs of the layer, the vectors its outputs. The name is that of the layer. The second call of
        a layer has the suffix " 2", and so on.
        """
        called: Counter[str] = Counter()
        for layer in self._layers:
            layer.call = _replaced(layer, through, called)
        try:
            yield
        finally:
            for layer in self._layers:
                del layer.call  # Restore the method of the class.


def _replaced(layer: keras.layers.Layer, through: Replacement, called: Counter[str]) -> Callable[..., Any]:
    original = layer.call

    def call(inputs: Any, *arguments: Any, **named: Any) -> Any:
        output = original(inputs, *arguments, **named)
        if named.get("reverse"):  # KerasHub's reversible embeddings, which map vectors to logits
            return output
        called[layer.name] += 1
        count = called[layer.name]
        return through(layer.name if count == 1 else f"{layer.name} {count}", inputs, output)

    return call
