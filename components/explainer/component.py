"""Explainer: explains a model's predictions on held-out rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kerasline.components.core.artifacts import Examples, Explanation, Model, Preprocessing, SavedModel
from kerasline.components.core.component import Component, Context, Input, Output, Parameters
from kerasline.components.explainer.settings import ExplainerSettings


class Explainer(Component):
    """Explains a trained model on held-out rows.

    Writes permutation importances of the raw columns, partial dependence on the most important ones, integrated
    gradients of the model's inputs, and the rows with the largest loss. docs/EXPLAINING.md describes how to read
    them.

    Args:
        examples: the data.
        preprocessing: the output of Transform.
        model: the output of Trainer.
        saved_model: the output of Exporter. The worst rows then show its answers too. Optional.
        split: name of the held-out split. Defaults to `"test"`.
        most_rows: maximum number of rows to sample from the split. The search for the worst rows reads the whole
            split. Defaults to 2000.
        seed: seed of the sample and of the permutations. Defaults to 0.
        repeats: number of permutations of each column. Defaults to 5.
        metric: the metric by which importance is measured: `"accuracy"`, the name of a Keras loss function, or a
            function `(label, prediction)` of two NumPy arrays that returns one number per row. Defaults to the
            compiled loss.
        direction: `"minimize"` or `"maximize"` the metric. Derived from the metric's name by default.
        output: name of the output to explain, for a model with several. Defaults to the first one with a label.
        features: columns to compute partial dependence for. Defaults to the six most important.
        classes: classes whose scores partial dependence includes, by name or number. Defaults to the three
            predicted most often.
        points: maximum number of values of each column at which partial dependence is computed. Defaults to 20.
        integrated_gradients: `"auto"` omits them if no input of the model is differentiable; `"on"` raises an error
            in that case; `"off"` always omits them. Defaults to `"auto"`.
        steps: number of quadrature points between the baseline and the input. Defaults to 64.
        baseline: the baseline of integrated gradients: `"zeros"`, `"mean"`, or a dict from input name to numbers.
            Defaults to `"zeros"`.
        worst: number of worst rows to write. Defaults to 20.

    Raises:
        ParameterError: the metric, output, column, class or baseline does not exist.
        DataError: the split has no label or no rows.
        ArtifactError: the split does not exist.
        UserCodeError: the metric raised, or did not return one number per row.

    Example:

    >>> import keras
    >>> def preprocessing():
    ...     x = keras.Input((1,), name="x")
    ...     return keras.Model({"x": x}, {"x": keras.layers.Rescaling(1.0)(x)})
    >>> def build_model(inputs, hp):
    ...     model = keras.Model(inputs, keras.layers.Dense(1, kernel_initializer="ones", name="score")(inputs["x"]))
    ...     model.compile("sgd", "mse")
    ...     return model
    >>> rows = {"x": [1.0, 2.0, 3.0], "y": [1.0, 2.0, 3.0]}
    >>> data = kl.InMemoryExampleGen(rows, splits={"test": 1}).execute(folder / "data")
    >>> transform = kl.Transform(data.examples, function=preprocessing, label="y", split="test")
    >>> prepared = transform.execute(folder / "t").preprocessing
    >>> model = kl.ModelBuilder(prepared, function=build_model).execute(folder / "m").model
    >>> done = kl.Explainer(data.examples, prepared, model).execute(folder / "e")
    >>> (done.explanation.path / "explanation.json").exists()
    True
    """

    LIBRARIES = ("tensorflow", "keras")
    VERSION = "3"

    examples: Input[Examples]
    preprocessing: Input[Preprocessing]
    model: Input[Model]
    saved_model: Input[SavedModel] = None
    explanation: Output[Explanation]
    settings: Parameters[ExplainerSettings]

    def check(self, inputs: Any) -> None:
        super().check(inputs)
        if inputs.preprocessing is not None:
            from kerasline.components.explainer.checks import check_settings

            check_settings(self.settings, inputs.preprocessing, inputs.model)

    def run(self, inputs: Any, outputs: Any, context: Context) -> Mapping[str, Any]:
        from kerasline.components.explainer.explanation import explain
        from kerasline.components.explainer.subject import Target

        settings = self.settings
        target = Target(
            inputs.model.path,
            inputs.preprocessing.path,
            inputs.examples.path,
            settings.output,
            settings.metric,
            settings.direction,
        )
        return explain(target, settings, inputs.examples, outputs.explanation, context, saved_model=inputs.saved_model)
