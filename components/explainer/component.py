"""Explainer: why the model answers as it does, in figures and pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt

from kerasline.components.core.artifacts import Examples, Explanation, Model, Preprocessing
from kerasline.components.core.component import Component, Context, Input, Output, Parameter

Positive = Annotated[int, Gt(0)]


class Explainer(Component):
    """Explains a trained model on held-out rows, by what goes into it and what comes out.

    Permutation importance of raw columns; partial dependence on the most important ones; integrated gradients of
    what enters the model; and the rows of the whole split that it gets most wrong. docs/EXPLAINING.md says how
    to read them.

    Parameters:
        split: the held-out rows.
        most_rows: rows that are drawn from it, but for the worst, which are sought in all.
        seed: of that draw, and of the permutations.
        repeats: permutations of each column.
        metric: by what importance is measured: the compiled loss when left out, "accuracy", the name of a loss
            function of Keras's, or a function of label and prediction, NumPy arrays as the model has them, that
            gives a number a row.
        direction: "minimize" or "maximize" the metric; by its name when left out.
        output: which output of a model that has several; the first that has a label when left out.
        features: columns whose partial dependence is shown; the six most important when left out.
        classes: of several classes, those whose scores it shows; the three predicted most often when left out.
        points: values of each column at which it asks the model, at most.
        integrated_gradients: "auto" leaves them out where nothing has a gradient, which "on" refuses.
        steps: points on the way from the baseline.
        baseline: where that way begins: "zeros", "mean", or numbers by what enters the model.
        worst: how many of the rows that it gets most wrong are shown.

    Raises:
        ParameterError: there is no such metric, output, column, class or baseline.
        DataError: there is no label, or no row.
        ArtifactError: there is no such split.
        UserCodeError: the metric raised, or did not give a number a row.
    """

    LIBRARIES = ("tensorflow", "keras")

    examples: Input[Examples]
    preprocessing: Input[Preprocessing]
    model: Input[Model]
    explanation: Output[Explanation]
    split: Parameter[str] = "test"
    most_rows: Parameter[Positive] = 2000
    seed: Parameter[Annotated[int, Ge(0)]] = 0
    repeats: Parameter[Positive] = 5
    metric: Parameter[str | Callable | None] = None
    direction: Parameter[Literal["minimize", "maximize"] | None] = None
    output: Parameter[str | None] = None
    features: Parameter[list[str] | None] = None
    classes: Parameter[list[int | str] | None] = None
    points: Parameter[Positive] = 20
    integrated_gradients: Parameter[Literal["auto", "on", "off"]] = "auto"
    steps: Parameter[Positive] = 64
    baseline: Parameter[Literal["zeros", "mean"] | dict[str, Any]] = "zeros"
    worst: Parameter[Annotated[int, Ge(0)]] = 20

    def run(self, inputs: Any, outputs: Any, context: Context) -> Mapping[str, Any]:
        from kerasline.components.explainer.explanation import Settings, explain
        from kerasline.components.explainer.subject import Question

        question = Question(
            inputs.model.path,
            inputs.preprocessing.path,
            inputs.examples.path,
            self.output,
            self.metric,
            self.direction,
        )
        settings = Settings(**{name: getattr(self, name) for name in Settings.__dataclass_fields__})
        return explain(question, settings, inputs.examples, outputs.explanation, context)
