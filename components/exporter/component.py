"""Exporter: join preprocessing and model into one SavedModel that takes raw features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from kerasline.components.core.artifacts import Artifact, Examples, Model, ModelForms, Preprocessing, SavedModel
from kerasline.components.core.component import Component, Context, Input, Output, Parameters
from kerasline.components.core.errors import ParameterError, nearest
from kerasline.components.exporter.planned import PlannedSavedModel
from kerasline.components.exporter.settings import ExporterSettings, check_installed, check_signatures
from kerasline.components.models.signatures import DEFAULT_SIGNATURE

if TYPE_CHECKING:
    from kerasline.components.models.answering import PlannedAnswers


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

    With `answer`, the first three signatures return its answers, and only the raw columns that these depend on are
    inputs: what only training takes, such as the target sentence, is not required from clients.

    `kerasline.json` states under `row_dependence` whether an answer of `serving_default` depends on the other rows of
    its batch, and how. A server must not batch the requests of several clients for such a model.

    With the input `examples`, the warm-up requests contain real rows, and the metrics of each further form are compared
    with those of the model.

    Args:
        answer: `answer(model, features)`, what the served model returns if it differs from the model's outputs: a dict
            of tensors (rows, ...) by name, computed with TensorFlow or Keras from the trained model and a dict of
            preprocessed features. A third parameter receives the `Prepared` preprocessing, for vocabularies and layers
            that turn ids back into texts. Loops are written with `kl.generate`, `tf.while_loop`,
            `keras.ops.while_loop` or `tf.function`. Or a dict of such functions by signature, of which
            `serving_default` is required. Defaults to None, the model's outputs. See docs/ANSWERS.md.
        stream: bool, let `serve` send the text that `answer` generates with one call of `kl.generate`, without beams,
            while it is generated. See docs/SERVING.md. Defaults to `False`.
        forms: list of str, further forms of the model, each a folder in the output `model_forms`. `"float16"`,
            `"bfloat16"`, `"int8_weights"` and `"int4_weights"` (weights of 8 or 4 bits, float32 computation) and
            `"int8"` (int8 weights and activations) are SavedModels. `"litert"` and `"onnx"` take preprocessed features.
            Defaults to `[]`.
        max_quality_loss: dict of float, how much worse a form may be by metric, such as `{"accuracy": 0.01}`. A worse
            form is refused. `"loss"` is the compiled loss, with `answer` too. Defaults to `{}`, no limit.
        task, reference, detection_columns, box_format: how the answers of forms are judged, as Evaluator's parameters
            of these names. Without `answer`, the outputs of the model are judged by its label.
        split: str, split of `examples` to use. Defaults to `"test"`.
        op_libraries: list of str, packages whose operations the model uses, such as `"tensorflow_text"`. Whatever loads
            the SavedModel imports them first. Exporter detects those that were imported when it runs. Defaults to `[]`.
        measure_seconds: float, seconds for measuring the latency of each form. A call that takes longer is measured
            once. Defaults to 5.

    Raises:
        ParameterError: a form needs a library that is not installed, or a metric is unknown.
        DataError: the examples do not fit the inputs of the preprocessing.
        UserCodeError: `answer` raised, or did not return a tensor with an entry per row for each answer.

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

    VERSION = "13"
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
        if self.settings.stream and self.settings.answer is None:
            raise ParameterError(f"{self.name}.stream: expected an `answer` that generates a text, received none")
        if isinstance(self.settings.answer, dict):
            check_signatures(self.settings.answer)
        if inputs.preprocessing is None:
            return
        planned = self._planned_answers(inputs)
        if inputs.examples is not None:
            from kerasline.components.data.model_inputs import check_feedable

            served = inputs.preprocessing.served_inputs
            if self.settings.answer is not None:
                served = {name: form for one in planned.values() for name, form in one.inputs.items()}
            check_feedable(inputs.examples.schema(), served)
            self._check_judging(inputs)

    def _planned_answers(self, inputs: Any) -> dict[str, PlannedAnswers]:
        """Return what the answering functions read and return, by signature, if the model exists, trained or not."""
        model = inputs.model
        if self.settings.answer is None or model is None or not (model.path / Model.FILE).exists():
            return {}
        from kerasline.components.models.answering import functions_by_signature, plan_answers

        functions = functions_by_signature(self.settings.answer)
        if self.settings.stream:
            from kerasline.components.models.answer_stream import check_stream

            check_stream(functions[DEFAULT_SIGNATURE], inputs.preprocessing, model)
        return {name: plan_answers(one, inputs.preprocessing, model) for name, one in functions.items()}

    def _check_judging(self, inputs: Any) -> None:
        settings, saved_model = self.settings.judging, self._planned_saved_model(inputs)
        judges = self.settings.max_quality_loss or settings.task or settings.reference
        if not judges or saved_model is None or not inputs.model.outputs:
            return
        from kerasline.components.evaluator.checks import metric_directions, planned_outputs
        from kerasline.components.models.judged_answers import judged_answers_of, served_answers

        loss: dict[str, str | None] = {}
        if self.settings.answer is not None:  # the forms are judged by their answers, and by the loss of the training
            loss = dict.fromkeys(["loss"] if inputs.model.summary["losses"] else [], "down")
            outputs: tuple[Any, ...] = ()
            losses: dict[str, Any] = {}
            if settings.task or settings.reference or not loss.keys() >= self.settings.max_quality_loss.keys():
                schema, answers = inputs.examples.schema(), served_answers(saved_model)
                outputs = judged_answers_of(self.name, answers, schema, inputs.preprocessing, settings)
        else:
            outputs, losses = planned_outputs(settings, inputs.examples, inputs.preprocessing, inputs.model)
        known = metric_directions(settings, outputs, losses) | loss
        for name in self.settings.max_quality_loss:
            where = f"{self.name}.max_quality_loss"
            if name not in known and name not in [f"{output.name}/{metric}" for output in outputs for metric in known]:
                raise ParameterError(f"{where}: no metric {name!r}; {nearest(name, known)}")
            if known.get(name, "up") is None:
                raise ParameterError(f"{where}: {name!r} has no better direction")

    def check_machine(self) -> None:
        check_installed(self.settings.forms, self.settings.op_libraries)

    def preview(self, inputs: Any) -> Mapping[str, Artifact]:
        saved_model = self._planned_saved_model(inputs)
        return {} if saved_model is None else {"saved_model": saved_model}

    def _planned_saved_model(self, inputs: Any) -> PlannedSavedModel | None:
        if inputs.preprocessing is None or inputs.model is None:
            return None
        answers = self._planned_answers(inputs).get(DEFAULT_SIGNATURE)
        if self.settings.answer is not None and answers is None:
            return None
        return PlannedSavedModel(inputs.preprocessing, inputs.model, answers)

    def run(self, inputs: Any, outputs: Any, context: Context) -> Mapping[str, Any]:
        from kerasline.components.exporter.export import Export

        return Export(inputs, outputs, self.settings, context).run()
