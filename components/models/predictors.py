"""Predictors take raw columns: a Keras model with its preprocessing, or a SavedModel.

A predictor holds paths only, so that it can be sent to Beam workers. Each process loads the models once.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pyarrow as pa
import tensorflow as tf

from kerasline.components.core.artifacts import Preprocessing, SavedModel
from kerasline.components.core.errors import ArtifactError, one_line
from kerasline.components.core.keras_compat import flatten_layers, mask_of, set_mask
from kerasline.components.data.arrow_arrays import as_arrow, as_texts
from kerasline.components.data.label_columns import without_padding
from kerasline.components.data.model_inputs import feed
from kerasline.components.models.compile_config import compiled_losses, output_names
from kerasline.components.models.outputs import label_by_output
from kerasline.components.models.preprocessed_model import PreprocessedModel
from kerasline.components.models.session import SavedModelSession
from kerasline.components.models.signatures import DEFAULT_SIGNATURE, Signature, read_definitions, signatures

MOST_ROWS, MOST_BYTES, ROWS_OF_ANY_SIZE = 4096, 64 << 20, 1024


@dataclass(frozen=True)
class KerasPredictor:
    """A Keras model with its preprocessing.

    Attributes:
        model: folder of the `Model` artifact.
        preprocessing: folder of the `Preprocessing` artifact.
        form: the model with other weights, such as quantised ones, which predicts instead. Not for Beam workers.
    """

    model: Path
    preprocessing: Path
    form: keras.Model | None = None

    def load(self) -> PreprocessedModel:
        """Return the model with the whole preprocessing, loaded once per process."""
        return _loaded(self)

    def __call__(
        self, raw: Mapping[str, Any], beside: Mapping[str, Any], prepared: tuple[str, ...] = ()
    ) -> dict[str, Any]:
        """Return predictions, labels and losses of some rows.

        Args:
            raw: arrays (rows, ...), inputs of the preprocessing by name.
            beside: arrays (rows, ...), labels and weight that are raw columns, by name.
            prepared: outputs of the preprocessing to return as well.

        Returns:
            dict of tensors: `weight` (rows, ...), NaN where it is padding, or None, and these, each a dict by output:
            `predictions`, `labels`, `losses` (rows,) with their `counts` (see `RowLosses`), `masks`, the masks of
            predictions that have one, and `counted`, the tokens that the loss counts where it leaves out some.
            `prepared` is by output of the preprocessing.

        Raises:
            DataError: a label is outside the range of classes, or an operation cannot process the rows.
        """
        forms = tuple((name, array.dtype.name, array.ndim) for name, array in beside.items())
        tensors = [{name: tf.constant(array) for name, array in given.items()} for given in (raw, beside)]
        return _keras_function(self, forms, prepared)(*tensors)

    def losses(self, output: str, label: Any, prediction: Any, *, weight: Any = None, mask: Any = None) -> Any:
        """Return the compiled loss of another model's predictions of an output, a float32 array (rows,).

        Args:
            weight: sample weights as the preprocessing gives them, or None.
            mask: bool array (rows, length), the mask of this model's prediction, or None.
        """
        loss, tensor = compiled_losses(self.load().model)[output], tf.constant(prediction)
        set_mask(tensor, mask)
        weight = None if weight is None else without_padding(tf.constant(weight))
        return loss.of_rows(tf.constant(label), tensor, weight).mean.numpy()


@dataclass(frozen=True)
class SavedModelPredictor:
    """A signature of a SavedModel. The default signature takes raw features by name.

    Raises:
        ArtifactError: at first use: the SavedModel or the signature does not exist.
    """

    path: Path
    signature: str = DEFAULT_SIGNATURE

    @property
    def inputs(self) -> dict[str, keras.KerasTensor]:
        """Symbolic tensors of the columns that are read, by name."""
        return _inputs(self)

    @property
    def outputs(self) -> list[str]:
        """Names of the outputs."""
        return list(self.output_shapes)

    @property
    def output_shapes(self) -> dict[str, tuple[int | None, ...] | None]:
        """Shape of each output by name; None for unknown rank."""
        return {name: spec.shape for name, spec in self._signature.outputs.items()}

    @property
    def answers(self) -> bool:
        """Whether an answering function computes the outputs, instead of the network alone."""
        return bool(SavedModel(self.path).manifest.get("answered_by"))

    @property
    def texts(self) -> list[str]:
        """Names of the outputs that are texts, not bytes."""
        return SavedModel(self.path).manifest.get("texts", [])

    def from_logits(self, output: str, default: bool) -> bool:
        """Return whether the scores of an output are logits, or `default` if the manifest does not record it."""
        return SavedModel(self.path).manifest.get("from_logits", {}).get(output, default)

    def __call__(self, raw: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Return the outputs, arrays (rows, ...) by name, for columns, arrays (rows, ...) by name."""
        signature = self._signature
        given = [raw[name] for name in signature.inputs]
        return dict(zip(signature.outputs, _session(self.path).call(signature, given)))

    def table(self, raw: pa.Table) -> pa.Table:
        """Return the outputs for some raw rows as columns, texts as strings."""
        outputs, texts = self(feed(raw, self.inputs)), self.texts
        return pa.table({n: as_texts(as_arrow(v)) if n in texts else as_arrow(v) for n, v in outputs.items()})

    @property
    def _signature(self) -> Signature:
        found = _signatures(self.path)
        if self.signature not in found:
            raise ArtifactError(
                f"{self.path}: no signature {self.signature}; it has {', '.join(sorted(found)) or 'none'}"
            )
        return found[self.signature]


def rows_at_once(*models: keras.Model) -> int:
    """Return how many rows, up to 4,096, keep the outputs of all layers within 64 MB; 1,024 if sizes are unknown."""
    layers = [layer for model in models for layer in flatten_layers(model)]
    try:
        shapes = [tensor.shape[1:] for layer in layers for tensor in tf.nest.flatten(layer.output)]
        bytes_a_row = 4 * sum(map(math.prod, shapes))
    except (AttributeError, TypeError, ValueError):  # a nested layer, or an unknown dimension
        return ROWS_OF_ANY_SIZE
    return max(1, min(MOST_ROWS, MOST_BYTES // max(bytes_a_row, 1)))


@functools.lru_cache(maxsize=2)
def _loaded(predictor: KerasPredictor) -> PreprocessedModel:
    if predictor.form is not None:
        return replace(replace(predictor, form=None).load(), model=predictor.form)
    return PreprocessedModel.load(predictor.model, predictor.preprocessing)


@functools.lru_cache(maxsize=2)
def _keras_function(
    predictor: KerasPredictor, beside_forms: tuple[tuple[str, str, int], ...], also: tuple[str, ...]
) -> Callable[..., dict[str, Any]]:
    whole = predictor.load()
    artifact = Preprocessing(predictor.preprocessing)
    features, weight_name = artifact.features, artifact.facts["sample_weight"]
    label_of = label_by_output(output_names(whole.model), artifact)
    losses = compiled_losses(replace(predictor, form=None).load().model)  # forms are not compiled
    beside_specs = {
        name: tf.TensorSpec((None,) * rank, "string" if dtype == "object" else dtype)
        for name, dtype, rank in beside_forms
    }

    def predict(raw: Mapping[str, tf.Tensor], beside: Mapping[str, tf.Tensor]) -> dict[str, Any]:
        prepared = whole.prepare(raw)
        found = {**beside, **prepared}
        labels = {output: found[label] for output, label in label_of.items()}
        weight = found[weight_name] if weight_name else None
        predictions = whole.predict({name: prepared[name] for name in features})
        counted_weight = None if weight is None else without_padding(weight)
        rows = {n: loss.of_rows(labels[n], predictions[n], counted_weight) for n, loss in losses.items() if n in labels}
        return {
            "predictions": predictions,
            "labels": labels,
            "losses": {name: found.mean for name, found in rows.items()},
            "counts": {name: found.count for name, found in rows.items()},
            "masks": {name: mask_of(one) for name, one in predictions.items() if mask_of(one) is not None},
            "counted": {name: found.mask for name, found in rows.items() if found.mask is not None},
            "weight": weight,
            "prepared": {name: prepared[name] for name in also},
        }

    return whole.compiled(predict, beside_specs)


@functools.lru_cache(maxsize=4)
def _signatures(path: Path) -> Mapping[str, Signature]:
    return signatures(read_definitions(path))


@functools.lru_cache(maxsize=4)
def _session(path: Path) -> SavedModelSession:
    try:
        return SavedModelSession(path)
    except (OSError, ValueError, RuntimeError) as error:
        raise ArtifactError(f"{path}: this SavedModel cannot be loaded: {one_line(error)}") from error


@functools.lru_cache(maxsize=4)
def _inputs(predictor: SavedModelPredictor) -> dict[str, keras.KerasTensor]:
    return {name: keras.KerasTensor(spec.shape, spec.dtype_name) for name, spec in predictor._signature.inputs.items()}
