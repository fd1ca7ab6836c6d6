"""From raw columns to what a model says of them: a Keras model with its preprocessing, or a SavedModel.

A predictor is a few paths, so that it travels; what it loads stays with the process that calls it.
"""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasline.components.core.artifacts import Model, Preprocessing, SavedModel
from kerasline.components.core.errors import ArtifactError, DataError, one_line
from kerasline.components.evaluator.compiled import compiled_losses, output_names
from kerasline.components.models.session import SavedModelSession
from kerasline.components.models.signatures import DEFAULT_SIGNATURE, Signature, read_definitions, signatures

MOST_ROWS, MOST_BYTES, ROWS_OF_ANY_SIZE = 4096, 64 << 20, 1024
# What TensorFlow says where a label is no class.
_NO_CLASS = re.compile(r"label value of (-?\d+) which is outside the valid range of (\[[^)]*\))")


@dataclass(frozen=True)
class KerasPredictor:
    """A Keras model behind its preprocessing."""

    model: Path
    preprocessing: Path

    def load(self) -> tuple[keras.Model, keras.Model]:
        """The preprocessing and the model, loaded once in a process."""
        return _models(self)

    def __call__(self, raw: Mapping[str, Any], beside: Mapping[str, Any]) -> dict[str, Any]:
        """Answers, and what is true.

        Args:
            raw: the preprocessing's inputs by name, arrays (rows, ...).
            beside: labels and weight that are raw columns, likewise.

        Returns:
            `predictions` by output, `labels` by output, `losses` (rows,) by output, and `weight`
            (rows, ...) or None; tensors.
        """
        forms = tuple((name, array.dtype.name, array.ndim) for name, array in beside.items())
        tensors = [{name: tf.constant(array) for name, array in given.items()} for given in (raw, beside)]
        try:
            return _keras_function(self, forms)(*tensors)
        except tf.errors.InvalidArgumentError as error:
            if wrong := _NO_CLASS.search(str(error)):
                raise DataError(
                    f"a label is {wrong[1]}, where classes are those of {wrong[2]}; a label that training did not "
                    "see may be -1: leave such rows out, or give the label's lookup all classes"
                ) from error
            raise

    def losses(self, output: str, label: Any, prediction: Any) -> Any:
        """The loss that an output was compiled with, of another model's answers: float32 (rows,), an array."""
        loss = compiled_losses(self.load()[1])[output]
        return loss.of_rows(tf.constant(label), tf.constant(prediction)).numpy()


@dataclass(frozen=True)
class SavedModelPredictor:
    """A SavedModel by one of its signatures; by default the one that takes raw features by name.

    Raises:
        ArtifactError: when first used: there is no such SavedModel, or no such signature in it.
    """

    path: Path
    signature: str = DEFAULT_SIGNATURE

    @property
    def inputs(self) -> dict[str, keras.KerasTensor]:
        """The columns that are read."""
        return _inputs(self)

    @property
    def outputs(self) -> list[str]:
        """The names of what it answers."""
        return list(self.output_shapes)

    @property
    def output_shapes(self) -> dict[str, tuple[int | None, ...] | None]:
        """The shape of what it answers, by name; None where even the rank may be any."""
        return {name: spec.shape for name, spec in self._signature.outputs.items()}

    def from_logits(self, output: str, default: bool) -> bool:
        """Whether an output's scores are logits; the default where the model does not say."""
        manifest = self.path / SavedModel.MANIFEST
        told = json.loads(manifest.read_text(encoding="utf-8")) if manifest.exists() else {}
        return told.get("from_logits", {}).get(output, default)

    def __call__(self, raw: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """The answers by output of columns by name, arrays (rows, ...)."""
        signature = self._signature
        given = [raw[name] for name in signature.inputs]
        return dict(zip(signature.outputs, _session(self.path).call(signature, given)))

    @property
    def _signature(self) -> Signature:
        found = _signatures(self.path)
        if self.signature not in found:
            raise ArtifactError(
                f"{self.path}: no signature {self.signature}; it has {', '.join(sorted(found)) or 'none'}"
            )
        return found[self.signature]


def rows_at_once(*models: keras.Model) -> int:
    """As many rows, up to 4,096, as leave all that the models' layers give within 64 MB; 1,024 where that is not told."""
    layers = [layer for model in models for layer in model._flatten_layers(include_self=False)]
    try:
        shapes = [tensor.shape[1:] for layer in layers for tensor in tf.nest.flatten(layer.output)]
        bytes_a_row = 4 * sum(map(math.prod, shapes))
    except (AttributeError, TypeError, ValueError):  # a layer within another, or a dimension of any size
        return ROWS_OF_ANY_SIZE
    return max(1, min(MOST_ROWS, MOST_BYTES // max(bytes_a_row, 1)))


@functools.lru_cache(maxsize=2)
def _models(predictor: KerasPredictor) -> tuple[keras.Model, keras.Model]:
    return Preprocessing(predictor.preprocessing).load(), Model(predictor.model).load()


@functools.lru_cache(maxsize=2)
def _keras_function(
    predictor: KerasPredictor, beside_forms: tuple[tuple[str, str, int], ...]
) -> Callable[..., dict[str, Any]]:
    preprocessing, model = predictor.load()
    artifact = Preprocessing(predictor.preprocessing)
    label_names, weight_name = artifact.labels, artifact.facts["sample_weight"]
    names, losses = output_names(model), compiled_losses(model)
    # With the shapes told, it is traced once, whatever the number of rows.
    raw_specs = {name: tf.TensorSpec(t.shape, t.dtype) for name, t in preprocessing.input.items()}
    beside_specs = {
        name: tf.TensorSpec((None,) * rank, "string" if dtype == "object" else dtype)
        for name, dtype, rank in beside_forms
    }

    @tf.function(input_signature=[raw_specs, beside_specs], autograph=False)
    def answer(raw: Mapping[str, tf.Tensor], beside: Mapping[str, tf.Tensor]) -> dict[str, Any]:
        made = dict(preprocessing(dict(raw), training=False))

        def taken(name: str) -> tf.Tensor:
            return made.pop(name) if name in made else beside[name]

        labels = {name: taken(name) for name in label_names}
        weight = taken(weight_name) if weight_name else None
        if len(labels) == 1:  # one label for however many outputs
            labels = dict.fromkeys(names, *labels.values())
        predictions = dict(zip(names, tf.nest.flatten(model(made, training=False))))
        return {
            "predictions": predictions,
            "labels": {name: labels[name] for name in names if name in labels},
            "losses": {n: loss.of_rows(labels[n], predictions[n]) for n, loss in losses.items() if n in labels},
            "weight": weight,
        }

    return answer


@functools.lru_cache(maxsize=4)
def _signatures(path: Path) -> Mapping[str, Signature]:
    return signatures(read_definitions(path))


@functools.lru_cache(maxsize=4)
def _session(path: Path) -> SavedModelSession:
    try:
        return SavedModelSession(path)
    except (OSError, ValueError, RuntimeError) as error:
        raise ArtifactError(f"{path}: no SavedModel that can be loaded: {one_line(error)}") from error


@functools.lru_cache(maxsize=4)
def _inputs(predictor: SavedModelPredictor) -> dict[str, keras.KerasTensor]:
    return {name: keras.KerasTensor(spec.shape, spec.dtype_name) for name, spec in predictor._signature.inputs.items()}
