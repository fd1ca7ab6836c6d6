"""A model behind its preprocessing: raw columns in, outputs out."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import keras
import tensorflow as tf

from kerasline.components.core.artifacts import Model, Preprocessing, part_of
from kerasline.components.core.error_places import describe_failure
from kerasline.components.core.errors import DataError
from kerasline.components.models.compile_config import outputs_by_name

Tensors = Mapping[str, tf.Tensor]
# TensorFlow's message for a label outside the range of classes.
_LABEL_OUT_OF_RANGE = re.compile(r"label value of (-?\d+) which is outside the valid range of (\[[^)]*\))")


@dataclass(frozen=True)
class PreprocessedModel:
    """A model behind its preprocessing.

    Attributes:
        preprocessing: Keras model from raw columns to features, and perhaps labels and weight, both by name.
        model: Keras model that takes features.
    """

    preprocessing: keras.Model
    model: keras.Model

    @classmethod
    def load(cls, model: Path, preprocessing: Path) -> PreprocessedModel:
        """Load both artifacts, given their folders. Nothing is shared with other calls."""
        return PreprocessedModel(Preprocessing(preprocessing).load(), Model(model).load())

    def only(self, names: Iterable[str]) -> Self:
        """Return the same with the part of the preprocessing that computes the named outputs."""
        return replace(self, preprocessing=part_of(self.preprocessing, names))

    @property
    def raw_specs(self) -> dict[str, tf.TensorSpec]:
        """Specs (rows, ...) of the raw columns, by name."""
        return specs_of(self.preprocessing.input)

    def prepare(self, raw: Tensors) -> dict[str, tf.Tensor]:
        """Return the outputs of the preprocessing for some rows."""
        return preprocess(self.preprocessing, raw)

    def predict(self, features: Tensors) -> dict[str, tf.Tensor]:
        """Return the outputs of the model by name. Features that it does not take are ignored."""
        taken = self.model.input
        used = {name: features[name] for name in taken} if isinstance(taken, dict) else dict(features)
        return outputs_by_name(self.model, self.model(used, training=False))

    def compiled(self, function: Callable[..., Any], *specs: Any) -> Callable[..., Any]:
        """Trace a function of the raw columns, and of tensors of further `specs`, once for any number of rows.

        AutoGraph is not used, as in Keras's own loops and exports. What TensorFlow cannot process becomes a DataError
        that names the layer and the columns.
        """
        traced = tf.function(function, input_signature=[self.raw_specs, *specs], autograph=False)

        def call(*arguments: Any) -> Any:
            try:
                return traced(*arguments)
            except tf.errors.InvalidArgumentError as error:
                if wrong := _LABEL_OUT_OF_RANGE.search(str(error)):
                    raise DataError(
                        f"a label is {wrong[1]}, where classes are those of {wrong[2]}; a label that training did not "
                        "see may be -1: leave such rows out, or give the label's lookup all classes"
                    ) from error
                raise DataError(describe_failure(error, self.preprocessing, self.model)) from error

        return call


def preprocess(preprocessing: keras.Model, raw: Tensors) -> dict[str, tf.Tensor]:
    """Return the outputs of a preprocessing, of the dtypes that it declares.

    A lookup of Keras that encodes one-hot returns int64, although its symbolic output is float32. Keras casts what it
    feeds to a model. Signatures, LiteRT and ONNX do not. Masks are dropped, as tf.data drops them in training.
    """
    received = preprocessing(dict(raw), training=False)
    return {name: tf.identity(tf.cast(received[name], tensor.dtype)) for name, tensor in preprocessing.output.items()}


def specs_of(tensors: Mapping[str, keras.KerasTensor]) -> dict[str, tf.TensorSpec]:
    """Return the specs (rows, ...) of symbolic tensors, by name."""
    return {name: tf.TensorSpec((None, *tensor.shape[1:]), tensor.dtype) for name, tensor in tensors.items()}
