"""Exporter: join preprocessing and model into one SavedModel that takes raw features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kerasline.components.core.artifacts import Artifact, Examples, Model, ModelForms, Preprocessing, SavedModel
from kerasline.components.core.component import Component, Context, Input, Output, Parameters
from kerasline.components.core.errors import ParameterError, nearest
from kerasline.components.exporter.planned import PlannedSavedModel
from kerasline.components.exporter.settings import ExporterSettings, check_installed


class Exporter(Component):
    """Join preprocessing and model into one SavedModel.

    Its signatures are

    - `serving_default`: takes any number of rows of raw features by name, in the shapes of the preprocessing's inputs.
      A missing number is NaN, a missing text is "". It returns the model's outputs by name. If the classes have names
      and the only output has a score for each of them, it also returns `label`, the name of the class with the highest
      score.
    - `serve_tf_examples`: the same for serialised `tf.Example` protos, named `examples`.
    - `predict_preprocessed`: the same for preprocessed features.
    - `transform_features`: takes raw features and returns the preprocessed features.

    `kerasline.json` states under `row_dependence` whether an answer of `serving_default` depends on the other rows of
    its batch, and how. A server must not batch the requests of several clients for such a model.

    With the input `examples`, the warm-up requests contain real rows, and the metrics of each further form are compared
    with those of the model.

    Args:
        forms: list of str, further forms of the model, each a folder in the output `model_forms`. `"float16"`,
            `"bfloat16"`, `"int8_weights"` (int8 weights, float32 computation) and `"int8"` (int8 weights and
            activations) are SavedModels. `"litert"` and `"onnx"` take preprocessed features. Defaults to `[]`.
        max_quality_loss: dict of float, how much worse a form may be by metric, such as `{"accuracy": 0.01}`. A worse
            form is refused. Defaults to `{}`, no limit.
        split: str, split of `examples` to use. Defaults to `"test"`.
        op_libraries: list of str, packages whose operations the model uses, such as `"tensorflow_text"`. Whatever loads
            the SavedModel imports them first. Exporter detects those that were imported when it runs. Defaults to `[]`.

    Raises:
        ParameterError: a form needs a library that is not installed, or a metric is unknown.
        DataError: the examples do not fit the inputs of the preprocessing.

    Example:

    >>> import keras
    >>> def preprocessing():
    ...     x = keras.Input((1,), name="x")
    ...     return keras.Model({"x": x}, {"x": keras.layers.Rescaling(2.0)(x)})
    >>> def build_model(inputs, hp):
    ...     model = keras.Model(inputs, keras.layers.Dense(1, name="score")(inputs["x"]))
    ...     model.compile("sgd", "mse")
    ...     return model
    >>> data = kl.InMemoryExampleGen({"x": [1.0, 2.0], "y": [0.0, 1.0]}, splits={"train": 1}).execute(folder / "data")
    >>> prepared = kl.Transform(data.examples, function=preprocessing, label="y").execute(folder / "t").preprocessing
    >>> model = kl.ModelBuilder(prepared, function=build_model).execute(folder / "m").model
    >>> saved_model = kl.Exporter(prepared, model).execute(folder / "out").saved_model
    >>> saved_model.read_json("kerasline.json")["outputs"]
    ['score']
    """

    VERSION = "8"
    LIBRARIES = ("tensorflow", "keras")

    preprocessing: Input[Preprocessing]
    model: Input[Model]
    examples: Input[Examples] = None
    saved_model: Output[SavedModel]
    model_forms: Output[ModelForms]
    settings: Parameters[ExporterSettings]

    def check(self, inputs: Any) -> None:
        super().check(inputs)
        if self.settings.max_quality_loss and "examples" not in self.inputs:
            raise ParameterError(
                f"{self.name}.max_quality_loss: there are no examples to measure it on; connect the input `examples`"
            )
        if inputs.examples is not None and inputs.preprocessing is not None:
            from kerasline.components.data.model_inputs import check_feedable

            check_feedable(inputs.examples.schema(), inputs.preprocessing.served_inputs)
            self._check_quality_loss(inputs)

    def _check_quality_loss(self, inputs: Any) -> None:
        if not self.settings.max_quality_loss or inputs.model is None or not inputs.model.outputs:
            return
        from kerasline.components.evaluator.checks import metric_directions, planned_outputs
        from kerasline.components.evaluator.settings import EvaluatorSettings

        settings = EvaluatorSettings()
        outputs, losses = planned_outputs(settings, inputs.examples, inputs.preprocessing, inputs.model)
        known = metric_directions(settings, outputs, losses)
        for name in self.settings.max_quality_loss:
            where = f"{self.name}.max_quality_loss"
            if name not in known and name not in [f"{output.name}/{metric}" for output in outputs for metric in known]:
                raise ParameterError(f"{where}: no metric {name!r}; {nearest(name, known)}")
            if known.get(name, "up") is None:
                raise ParameterError(f"{where}: {name!r} has no better direction")

    def check_machine(self) -> None:
        check_installed(self.settings.forms, self.settings.op_libraries)

    def preview(self, inputs: Any) -> Mapping[str, Artifact]:
        if inputs.preprocessing is None or inputs.model is None:
            return {}
        return {"saved_model": PlannedSavedModel(inputs.preprocessing, inputs.model)}

    def run(self, inputs: Any, outputs: Any, context: Context) -> Mapping[str, Any]:
        from kerasline.components.exporter.export import Export

        return Export(inputs, outputs, self.settings, context).run()
