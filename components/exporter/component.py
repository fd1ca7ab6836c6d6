"""Exporter: a SavedModel that takes raw features, preprocessing inside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from kerasline.components.core.artifacts import Examples, Model, ModelForms, Preprocessing, SavedModel
from kerasline.components.core.component import Component, Context, Input, Output, Parameter
from kerasline.components.core.errors import ParameterError


class Exporter(Component):
    """Joins preprocessing and model into one SavedModel.

    Its signature `serving_default` takes the raw features by name, any number of rows, in the
    form of the preprocessing's inputs: a missing number is NaN, a missing text "". It gives
    the model's outputs by name, and, where the classes have names and there is one output with a
    score for each, `label`: the name of the class of the highest score. `serve_tf_examples` takes
    the same as serialised `tf.Example`s, `examples`; `predict_preprocessed` what the preprocessing
    gives; `transform_features` takes raw features and gives what the preprocessing makes of them.

    With the input `examples`, held-out rows, the requests that warm up a server are real ones, and each
    further form has its metrics beside the model's own.

    Parameters:
        forms: further forms of the model, each in a folder of its name in the output `model_forms`. `float16` and
            `bfloat16`, `int8_weights` (whole numbers are stored, all else is float32) and `int8` (activations
            too) are SavedModels like the first. `litert` and `onnx` take the preprocessed features.
        max_quality_loss: by how much a form may be worse, by metric, such as `{"accuracy": 0.01}`; one that
            is worse by more is refused.
        split: of the examples.

    Raises:
        ParameterError: a form needs a library that is not there; or a metric is not known.
        DataError: the examples cannot be fed to the preprocessing.
    """

    VERSION = "3"
    LIBRARIES = ("tensorflow", "keras")

    preprocessing: Input[Preprocessing]
    model: Input[Model]
    examples: Input[Examples] = None
    saved_model: Output[SavedModel]
    model_forms: Output[ModelForms]
    forms: Parameter[list[Literal["float16", "bfloat16", "int8_weights", "int8", "litert", "onnx"]]] = []
    max_quality_loss: Parameter[dict[str, float]] = {}
    split: Parameter[str] = "test"

    def run(self, inputs: Any, outputs: Any, context: Context) -> Mapping[str, Any]:
        from types import SimpleNamespace

        from kerasline.components.exporter.forms import check_installed
        from kerasline.components.exporter.writing import Exporting

        if self.max_quality_loss and inputs.examples is None:
            raise ParameterError(
                f"{self.name}.max_quality_loss: there are no examples to measure it on; give `examples`"
            )
        check_installed(self.forms)
        return Exporting(inputs, outputs, SimpleNamespace(**self.parameters), context).run()
