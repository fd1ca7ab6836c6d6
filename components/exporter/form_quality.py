"""The quality of a form: its predictions and metrics on held-out rows, compared with those of the model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kerasline.components.core.artifacts import Examples, Model, Preprocessing, SavedModel
from kerasline.components.core.component import Context
from kerasline.components.core.errors import ParameterError, nearest
from kerasline.components.data.label_columns import raw_label_columns
from kerasline.components.data.model_inputs import feed
from kerasline.components.evaluator.settings import EvaluatorSettings
from kerasline.components.metrics.base import divided
from kerasline.components.metrics.measuring import Measure, measure
from kerasline.components.metrics.metric_values import estimate
from kerasline.components.metrics.resampling import Resampling
from kerasline.components.metrics.row_means import MeanLoss
from kerasline.components.metrics.slices import SliceTable
from kerasline.components.models.compile_config import compiled_losses
from kerasline.components.models.judged_answers import find_answers, served_answers
from kerasline.components.models.outputs import model_outputs
from kerasline.components.models.prediction_files import Plan, predict
from kerasline.components.models.predictors import KerasPredictor, SavedModelPredictor, rows_at_once
from kerasline.components.models.tasks import TASKS, required_columns, stored_sums

FORM = "form"


@dataclass(frozen=True)
class Comparison:
    """A form compared with the model.

    Attributes:
        rows: number of rows.
        largest_difference: largest absolute difference of a predicted number.
        metrics: dicts with `output`, `metric`, `value`, `difference` from the model's value, and `lost`: how much worse
            the form is, or None if the metric has no better direction. `loss` is the compiled loss.
    """

    rows: int
    largest_difference: float | None
    metrics: list[dict[str, Any]]

    def refusal(self, most_lost: Mapping[str, float]) -> str | None:
        """Return which metric is worse than allowed, as a sentence, or None.

        Args:
            most_lost: how much worse a form may be, by metric.

        Raises:
            ParameterError: a metric is unknown, or has no better direction.
        """
        for name, most in most_lost.items():
            found = [metric for metric in self.metrics if name in (metric["metric"], _full_name(metric))]
            if not found:
                known = {metric["metric"] for metric in self.metrics}
                raise ParameterError(f"Exporter.max_quality_loss: no metric {name!r}; {nearest(name, known)}")
            for metric in found:
                lost = metric["lost"]
                if lost is None:
                    raise ParameterError(f"Exporter.max_quality_loss: {name!r} has no better direction")
                if not lost <= most:
                    value = metric["value"]
                    if math.isnan(lost):
                        return f"{_full_name(metric)} is undefined for these rows, so its loss cannot be compared"
                    return f"{_full_name(metric)} is {value:.4g}, worse by {lost:.4g}, allowed is {most:g}"
        return None


def compare_quality(
    predictor: Any,
    examples: Examples,
    settings: EvaluatorSettings,
    *,
    preprocessing: Preprocessing,
    model: Model,
    saved_model: SavedModel,
    folder: Path,
    context: Context,
) -> Comparison | None:
    """Predict all rows of a split with both and compute the Evaluator's metrics, without confidence intervals.

    With an answering function, the answers are compared instead of the outputs of the model.

    Args:
        predictor: predicts with the form, as in `Plan.others`.
        examples: the data.
        settings: split, tasks and references.
        preprocessing, model, saved_model: of the float32 model.
        folder: a new folder for the predictions.
        context: context of the stage.

    Returns:
        The comparison, or None if no answer is judged.

    Raises:
        DataError: a prediction must be a probability and is not.
    """
    ours = KerasPredictor(model.path, preprocessing.path)
    loaded = ours.load()
    label_columns = raw_label_columns(preprocessing, loaded.preprocessing)
    answers = served_answers(saved_model)
    outputs = find_answers(answers, examples.schema(), preprocessing, settings)
    if not answers:
        outputs = model_outputs(ours, preprocessing, settings, label_columns)
    if not outputs:
        return None
    plan = Plan(
        model=ours,
        served=SavedModelPredictor(saved_model.path) if answers else None,
        judges={},
        beside=label_columns,
        baseline=FORM,
        others={FORM: predictor},
        outputs=outputs,
        slicers=(),
        slices=SliceTable({}, {}),
        kept=required_columns(outputs, settings, examples.schema().names),
        decode=None,
        metrics={},
        summed=stored_sums(outputs, settings),
        query=None,
        partitions=0,
        batch_size=rows_at_once(loaded.preprocessing, loaded.model),
        folder=folder,
    )
    predicted = predict(examples, settings.split, plan, context)
    label_means = {name: float(np.mean(moments.mean)) for name, moments in predicted.labels.items()}
    loss = {} if answers else dict.fromkeys(compiled_losses(loaded.model), (MeanLoss(),))
    families = {
        o.name: (*TASKS[o.task].metrics(o, settings, label_means.get(o.name, 0.0)), *loss.get(o.name, ()))
        for o in outputs
    }
    weighted = preprocessing.facts["sample_weight"] is not None
    measure_model = Measure(families, plan.slices, Resampling(0, 0), weighted=weighted, columns=plan.kept)
    sides = {side: replace(measure_model, answers=side) for side in (measure_model.answers, FORM)}
    measured = {side: measure(folder, predicted.files, one, context) for side, one in sides.items()}
    metrics = []
    for output in outputs:
        theirs, own = (estimate(measured[side], sides[side], output.name, 0) for side in (FORM, measure_model.answers))
        directions = {name: d for family in families[output.name] for name, d in family.directions.items()}
        for name, figure in theirs.items():
            value, before = figure.estimate.value, own[name].estimate.value
            metrics.append(
                {
                    "output": output.name,
                    "metric": name,
                    "value": value,
                    "difference": value - before,
                    "lost": _lost(value, before, directions.get(name)),
                }
            )
    return Comparison(int(measured[FORM].rows[0][0]), predicted.differences.get(FORM), metrics)


def compare_losses(
    form: keras.Model, model: Model, preprocessing: Preprocessing, examples: Examples, split: str
) -> list[dict[str, Any]]:
    """Return the compiled loss of a form on the rows of a split, as in `Comparison.metrics`.

    A model with an answering function is trained otherwise than it answers: this is the loss of its training, such as
    the cross entropy of the next token, whose exponential is the perplexity.
    """
    ours = KerasPredictor(model.path, preprocessing.path)
    value, before = (_mean_losses(one, preprocessing, examples, split) for one in (replace(ours, form=form), ours))
    return [
        {"output": name, "metric": "loss", "value": value[name], "difference": difference, "lost": difference}
        for name in value
        for difference in [value[name] - before[name]]
    ]


def _mean_losses(
    predictor: KerasPredictor, preprocessing: Preprocessing, examples: Examples, split: str
) -> dict[str, float]:
    loaded = predictor.load()
    beside = raw_label_columns(preprocessing, loaded.preprocessing)
    sums: dict[str, np.ndarray] = {}
    for batch in examples.batches(split, rows=rows_at_once(loaded.preprocessing, loaded.model)):
        found = predictor(feed(batch, loaded.preprocessing.input), feed(batch, beside))
        for name, mean in found["losses"].items():
            count = np.asarray(found["counts"][name], np.float64)
            sums[name] = sums.get(name, 0) + np.array([(np.asarray(mean, np.float64) * count).sum(), count.sum()])
    return {name: float(divided(total, count)) for name, (total, count) in sums.items()}


def _lost(value: float, before: float, direction: str | None) -> float | None:
    if direction is None:
        return None
    return before - value if direction == "up" else value - before


def _full_name(metric: Mapping[str, Any]) -> str:
    return f"{metric['output']}/{metric['metric']}"
