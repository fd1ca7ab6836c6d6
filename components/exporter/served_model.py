"""The exported model and its signatures."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from kerasline.components.core.artifacts import Preprocessing, TensorForm
from kerasline.components.core.errors import DataError
from kerasline.components.core.keras_compat import write_archive
from kerasline.components.exporter.input_names import restore_names, with_numbered_names
from kerasline.components.exporter.tf_examples import check_parsable, parse_examples
from kerasline.components.models.answer_stream import AnswerStream
from kerasline.components.models.answering import Answering, Function, answering_with, as_float32, shape_of
from kerasline.components.models.compile_config import compiled_losses, outputs_by_name
from kerasline.components.models.costs import AnswerCosts, answer_costs
from kerasline.components.models.outputs import labelled_output
from kerasline.components.models.preprocessed_model import PreprocessedModel, Tensors, specs_of
from kerasline.components.models.signatures import DEFAULT_SIGNATURE
from kerasline.components.models.tasks import Output

RAW = DEFAULT_SIGNATURE
EXAMPLES, PREPROCESSED, TRANSFORM = "serve_tf_examples", "predict_preprocessed", "transform_features"
LABEL = "label"

Specs = dict[str, tf.TensorSpec]
LOG = logging.getLogger("kerasline")


@dataclass(frozen=True)
class ServedModel(PreprocessedModel):
    """A model behind its preprocessing, as it is served.

    Attributes:
        class_names: class names of the label, or by label if there are several, or None.
        answering: the user's answering function, or None for the outputs of the model.
        others: the same model with further answering functions, by signature.
        streams: whether a server can send the answers while they are generated.
    """

    class_names: list[str] | dict[str, list[str] | None] | None
    answering: Answering | None = None
    others: Mapping[str, ServedModel] = field(default_factory=dict)
    streams: bool = False

    @classmethod
    def of(
        cls, preprocessing: Preprocessing, model: keras.Model, answers: Mapping[str, Function], streams: bool = False
    ) -> ServedModel:
        """Return a model that answers by functions, each of which takes only the raw columns that it depends on.

        Args:
            answers: the answering functions by signature; none for the outputs of the model.
            streams: whether the answers of `serving_default` can be streamed.
        """
        class_names = preprocessing.facts["class_names"]
        if not answers:
            return cls(preprocessing.load_features(), model, class_names)
        served = {}
        for signature, function in answers.items():
            answering = answering_with(function, model, preprocessing)
            served[signature] = cls(answering.served_features(), model, class_names, answering)
        return replace(served.pop(RAW), others=served, streams=streams)

    def with_model(self, model: keras.Model) -> ServedModel:
        """Return the same with another form of the model."""
        others = {name: one.with_model(model) for name, one in self.others.items()}
        answering = None if self.answering is None else replace(self.answering, model=model)
        return replace(self, model=model, answering=answering, others=others)

    @property
    def by_signature(self) -> dict[str, ServedModel]:
        """The model with each of its answering functions, by the signature that takes raw features."""
        return {RAW: self, **self.others}

    @functools.cached_property
    def outputs(self) -> dict[str, Any]:
        """Specs or symbolic tensors of the answers by name, without those that the served model adds."""
        if self.answering is not None:
            return dict(self.answering.outputs)
        return outputs_by_name(self.model, self.model.output)

    @functools.cached_property
    def stream(self) -> AnswerStream | None:
        """The answering function, split into steps, if its answers can be streamed."""
        if not self.streams or self.answering is None:
            return None
        return AnswerStream(self.answering, self.raw_specs, self.prepare)

    @functools.cached_property
    def costs(self) -> AnswerCosts | None:
        """The costs of an answer to one row, or None if they cannot be determined."""
        try:
            if self.answering is not None:
                return answer_costs(self.answering.compute, self.answering.features)
            return answer_costs(self.predict, self.preprocessed_specs)
        except Exception as error:  # of any kind: a function may not work for a fixed number of rows
            LOG.info("cannot determine the costs of an answer: %s", error)
            return None

    @property
    def answers(self) -> list[str]:
        """The names of the answers, and of those that the served model adds."""
        return [*self.outputs, *([LABEL] if self.labelled else [])]

    @functools.cached_property
    def labelled(self) -> Output | None:
        """The output whose class is named in `label`, or None."""
        if self.answering is not None:
            return None
        with tf.init_scope():  # Keras reads variables for the arguments of `compile`, which a graph cannot
            return labelled_output(self.class_names, self.outputs, compiled_losses(self.model))

    @property
    def preprocessed_specs(self) -> Specs:
        """The specs of the preprocessed features that the answers use."""
        used = self.model.input
        return specs_of(
            {
                name: tensor
                for name, tensor in self.preprocessing.output.items()
                if self.answering is not None or not isinstance(used, dict) or name in used
            }
        )

    @property
    def from_logits(self) -> dict[str, bool]:
        if self.answering is not None:
            return {}
        return {name: loss.from_logits for name, loss in compiled_losses(self.model).items()}

    def serve(self, raw: Tensors) -> dict[str, tf.Tensor]:
        return self.predict(self.prepare(raw))

    def serve_examples(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        return self.serve(parse_examples(examples, self.raw_specs))

    def predict(self, features: Tensors) -> dict[str, tf.Tensor]:
        if self.answering is not None:
            return self.answering(features)
        answers = {name: as_float32(tensor) for name, tensor in super().predict(features).items()}
        if self.labelled:
            answers[LABEL] = _class_name(self.labelled, answers[self.labelled.name])
        return answers


@dataclass(frozen=True)
class Written:
    """The signatures of a written SavedModel.

    Attributes:
        signatures: function and input specs by name, of those that clients call.
        left_out: reasons for missing signatures, by name.
        model: the Keras model in it, or None for files of other libraries.
    """

    signatures: Mapping[str, tuple[Callable[..., Any], Specs]]
    left_out: Mapping[str, str]
    model: keras.Model | None = None


def write_saved_model(serving: ServedModel, folder: Path) -> Written:
    """Write a SavedModel with all signatures that the model supports."""
    archive = keras.export.ExportArchive()
    archive.track(serving.model)
    for one in serving.by_signature.values():
        archive.track(one.preprocessing)
        if one.answering is not None and one.answering.takes_prepared:
            archive.track(one.answering.prepared.model)
    wanted: dict[str, tuple[Callable[..., Any], Specs]] = {
        RAW: (serving.serve, serving.raw_specs),
        PREPROCESSED: (serving.predict, serving.preprocessed_specs),
        TRANSFORM: (serving.prepare, serving.raw_specs),
        **{name: (one.serve, one.raw_specs) for name, one in serving.others.items()},
    }
    left_out = {}
    try:
        check_parsable(serving.raw_specs)
        wanted[EXAMPLES] = (serving.serve_examples, {"examples": tf.TensorSpec((None,), tf.string, "examples")})
    except DataError as error:
        left_out[EXAMPLES] = str(error)
    streaming = {} if serving.stream is None else serving.stream.signatures
    signatures = {}
    for name, (function, specs) in {**wanted, **streaming}.items():
        taken = specs["examples"] if name == EXAMPLES else with_numbered_names(specs)
        signatures[name] = (archive.add_endpoint(name, function, input_signature=[taken]), specs)
    write_archive(archive, str(folder))
    restore_names(folder, {name: specs for name, (_, specs) in signatures.items() if name != EXAMPLES})
    return Written({name: signatures[name] for name in wanted}, left_out, serving.model)


def describe_specs(tensors: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return dtype and shape of specs or symbolic tensors for JSON. None stands for any size."""
    return {
        name: TensorForm(tf.as_dtype(tensor.dtype).name, shape_of(tensor)).as_json() for name, tensor in tensors.items()
    }


def _class_name(output: Output, scores: tf.Tensor) -> tf.Tensor:
    if output.task == "binary":
        number = tf.cast(tf.reshape(scores, [-1]) > output.threshold, tf.int64)
    else:
        number = tf.argmax(scores, axis=-1)
    return tf.gather(tf.constant(output.classes), number)
