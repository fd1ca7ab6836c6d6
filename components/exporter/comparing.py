"""How a form of a model does beside the model itself, on held-out rows: its answers and its metrics."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from kerasline.components.core.artifacts import Examples, Model, Preprocessing
from kerasline.components.core.component import Context
from kerasline.components.core.errors import ParameterError, nearest
from kerasline.components.data.targets import columns_beside
from kerasline.components.evaluator.compiled import compiled_losses
from kerasline.components.evaluator.component import Evaluator
from kerasline.components.evaluator.estimating import estimate
from kerasline.components.evaluator.families import RowMean, families_of, summed
from kerasline.components.evaluator.measuring import Measure, measure
from kerasline.components.evaluator.outputs import outputs_of
from kerasline.components.evaluator.predicting import Plan, predict
from kerasline.components.evaluator.resampling import Resampling
from kerasline.components.evaluator.slicing import SliceTable
from kerasline.components.models.predictors import KerasPredictor, rows_at_once

FORM = "form"


@dataclass(frozen=True)
class Comparison:
    """A form beside the model.

    Attributes:
        largest_difference: of any number that it answers.
        metrics: a dict each: `output`, `metric`, `value`, `difference` (from the model's), and `lost`: by how
            much it is worse, None where neither more nor less is better. `loss` is the one compiled with.
    """

    rows: int
    largest_difference: float | None
    metrics: list[dict[str, Any]]

    def refusal(self, most_lost: Mapping[str, float]) -> str | None:
        """Which metric falls by more than it may, in one sentence; None where none does.

        Raises:
            ParameterError: there is no such metric.
        """
        for name, most in most_lost.items():
            told = [metric for metric in self.metrics if name in (metric["metric"], _full_name(metric))]
            if not told:
                known = {metric["metric"] for metric in self.metrics}
                raise ParameterError(f"Exporter.max_quality_loss: no metric {name!r}; {nearest(name, known)}")
            for metric in told:
                lost = metric["lost"]
                if lost is None:
                    raise ParameterError(f"Exporter.max_quality_loss: of {name!r} neither more nor less is better")
                if not lost <= most:
                    value = metric["value"]
                    return f"{_full_name(metric)} is {value:.4g}, worse by {lost:.4g}, {most:g} is allowed"
        return None


def compare(
    predictor: Any,
    examples: Examples,
    split: str,
    *,
    preprocessing: Preprocessing,
    model: Model,
    folder: Path,
    context: Context,
) -> Comparison:
    """Answers all rows of a split by both and measures them as the Evaluator does, without intervals.

    Args:
        predictor: of the form, as `Plan.others` has them.
        folder: a new one, for what is predicted.

    Raises:
        DataError: an answer is no probability where one is due.
    """
    ours = KerasPredictor(model.path, preprocessing.path)
    settings = SimpleNamespace(**{name: p.default for name, p in Evaluator.spec().parameters.items()})
    outputs = outputs_of(ours, preprocessing, settings)
    plan = Plan(
        model=ours,
        beside=columns_beside(preprocessing, ours.load()[0], examples),
        baseline=FORM,
        others={FORM: predictor},
        outputs=outputs,
        slicers=(),
        slices=SliceTable({}, {}),
        kept=(),
        decode=None,
        reference=None,
        metrics={},
        summed={o.name: one for o in outputs if (one := summed(o, settings)) is not None},
        query=None,
        partitions=0,
        batch_size=rows_at_once(*ours.load()),
        folder=folder,
    )
    predicted = predict(examples, split, plan, context)
    middles = {name: float(np.mean(moments.mean)) for name, moments in predicted.labels.items()}
    loss = dict.fromkeys(compiled_losses(ours.load()[1]), (RowMean("loss", "down"),))
    families = {o.name: (*families_of(o, settings, middles.get(o.name, 0.0)), *loss.get(o.name, ())) for o in outputs}
    weighted = preprocessing.facts["sample_weight"] is not None
    wanted = Measure(families, plan.slices, Resampling(0, 0), weighted=weighted)
    sides = {side: replace(wanted, answers=side) for side in (wanted.answers, FORM)}
    measured = {side: measure(folder, predicted.files, one, context) for side, one in sides.items()}
    figures = []
    for output in outputs:
        theirs, own = (estimate(measured[side], sides[side], output.name, 0) for side in (FORM, wanted.answers))
        directions = {name: d for family in families[output.name] for name, d in family.directions.items()}
        for name, figure in theirs.items():
            value, before = figure.estimate.value, own[name].estimate.value
            figures.append(
                {
                    "output": output.name,
                    "metric": name,
                    "value": value,
                    "difference": value - before,
                    "lost": _lost(value, before, directions.get(name)),
                }
            )
    return Comparison(int(measured[FORM].rows[0][0]), predicted.differences.get(FORM), figures)


def _lost(value: float, before: float, direction: str | None) -> float | None:
    if direction is None:
        return None
    if math.isnan(value) and math.isnan(before):
        return 0.0
    return before - value if direction == "up" else value - before


def _full_name(metric: Mapping[str, Any]) -> str:
    return f"{metric['output']}/{metric['metric']}"
