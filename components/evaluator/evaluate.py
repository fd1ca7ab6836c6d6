"""An evaluation from its beginning to its end: predict, measure, compare, judge, write."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from kerasline.components.core.artifacts import Blessing, Evaluation, Model
from kerasline.components.core.component import Context
from kerasline.components.core.errors import ParameterError, nearest
from kerasline.components.data.feed import feed
from kerasline.components.data.targets import columns_beside
from kerasline.components.evaluator import judging, whole
from kerasline.components.evaluator.compiled import compiled_losses, compiled_metrics
from kerasline.components.evaluator.details import details
from kerasline.components.evaluator.estimates import Estimate
from kerasline.components.evaluator.estimating import Figures, estimate
from kerasline.components.evaluator.families import (
    RowMean,
    check_names,
    families_of,
    kept_columns,
    keras_metrics,
    summed,
    users_metrics,
)
from kerasline.components.evaluator.measuring import Measure, Measured, measure
from kerasline.components.evaluator.outputs import outputs_of
from kerasline.components.evaluator.predicting import Plan, Predicted, predict
from kerasline.components.evaluator.resampling import Resampling
from kerasline.components.evaluator.results import VERSION, Result, known, with_tests, write_table
from kerasline.components.evaluator.slicing import SliceTable, slice_table, slicers
from kerasline.components.metrics.keras_metrics import KerasMetric, distinct
from kerasline.components.models.predictors import KerasPredictor, SavedModelPredictor, rows_at_once

BASELINE, EXPORTED = "baseline", "exported"
PREDICTIONS = "predictions"
# Rows of whole queries that are ranked at a time, more or less.
MOST_ROWS_TOGETHER = 1 << 16


class Evaluating:
    """One evaluation.

    Args:
        inputs, outputs: of the Evaluator.
        settings: its parameters.
    """

    def __init__(self, inputs: Any, outputs: Any, settings: Any, context: Context) -> None:
        self._inputs, self._outputs, self._settings, self._context = inputs, outputs, settings, context
        self._predictor = KerasPredictor(inputs.model.path, inputs.preprocessing.path)
        self._answers = outputs_of(self._predictor, inputs.preprocessing, settings)
        self._resampling = Resampling(settings.seed, settings.replicates)

    def run(self) -> Mapping[str, Any]:
        """Writes both artifacts.

        Returns:
            The figures worth showing.
        """
        settings, examples, context = self._settings, self._inputs.examples, self._context
        where = "Evaluator.slices"
        cuts = slicers(settings.slices, examples, settings.split, context, where=where)
        slices = slice_table(cuts, examples, settings.split, context, most=settings.most_slices)
        context.report("predicting")
        predicted = predict(examples, settings.split, self.plan(cuts, slices), context)
        context.report("measuring")
        wanted = self._measure(slices, predicted)
        measured = self._measured(predicted, wanted)
        results = self._results(measured, wanted, predicted)
        rulings = judging.judge(results, settings.thresholds)
        self._write(results, measured, wanted, predicted, rulings)
        return self._figures(results)

    # What is to be done

    def plan(self, cuts: list[Any], slices: SliceTable) -> Plan:
        """What is predicted, and what is kept beside it."""
        settings, inputs = self._settings, self._inputs
        preprocessing, model = self._predictor.load()
        others = {
            name: SavedModelPredictor(artifact.path)
            for name, artifact in ((BASELINE, inputs.baseline), (EXPORTED, inputs.saved_model))
            if artifact is not None
        }
        return Plan(
            model=self._predictor,
            beside=columns_beside(inputs.preprocessing, preprocessing, inputs.examples),
            others=others,
            outputs=self._answers,
            slicers=tuple(cuts),
            slices=slices,
            kept=self._kept,
            decode=settings.decode,
            reference=settings.reference,
            metrics=self._keras_metrics(model),
            baseline=BASELINE if inputs.baseline is not None else None,
            summed={o.name: one for o in self._answers if (one := summed(o, settings)) is not None},
            query=settings.query,
            partitions=self._partitions,
            batch_size=settings.batch_size or rows_at_once(preprocessing, model),
            folder=self._folder,
        )

    def _keras_metrics(self, model: Any) -> dict[str, tuple[KerasMetric, ...]]:
        """The model's own, and those that were asked for, by output."""
        import keras

        from kerasline.components.models.by_name import metric

        asked = [metric(one, "Evaluator.metrics") for one in keras_metrics(self._settings.metrics)]
        found = {}
        for output, configs in compiled_metrics(model).items():
            configs = [*configs, *(keras.metrics.serialize(one) for one in asked if not isinstance(one, str))]
            found[output] = distinct(map(KerasMetric.of, configs))
        return found

    def _measure(self, slices: SliceTable, predicted: Predicted) -> Measure:
        losses = compiled_losses(self._predictor.load()[1])
        families = {}
        for output in self._answers:
            moments = predicted.labels.get(output.name)
            middle = np.reshape(moments.mean, -1) if moments else 0.0
            own = families_of(output, self._settings, middle)
            loss = [RowMean("loss", "down")] if output.name in losses else []
            families[output.name] = (*own, *loss, *users_metrics(self._settings.metrics))
            check_names(families[output.name])
        return Measure(
            families,
            slices,
            self._resampling,
            weighted=self._weighted,
            baseline=BASELINE if self._inputs.baseline is not None else None,
            kept=self._kept,
            partitions=self._partitions,
        )

    @property
    def _weighted(self) -> bool:
        return self._inputs.preprocessing.facts["sample_weight"] is not None

    @functools.cached_property
    def _kept(self) -> tuple[str, ...]:
        columns = self._inputs.examples.schema().names
        query = self._settings.query
        if query and query not in columns:
            raise ParameterError(f"Evaluator.query: no column {query!r}; {nearest(query, columns)}")
        return kept_columns(self._answers, self._settings, columns)

    @property
    def _partitions(self) -> int:
        """Sets of files that each hold whole queries and fit into memory; 0 where there are no queries."""
        rows = self._inputs.examples.rows(self._settings.split)
        return -(-rows // MOST_ROWS_TOGETHER) if self._settings.query else 0

    # What is found

    def _measured(self, predicted: Predicted, wanted: Measure) -> Measured:
        return measure(self._folder, predicted.files, wanted, self._context)

    def _results(self, measured: Measured, wanted: Measure, predicted: Predicted) -> list[Result]:
        found: list[Result] = []
        for output in self._answers:
            names: dict[str, str | None] = {}
            for family in wanted.families[output.name]:
                names = {**dict(family.directions), **names}
            keras_figures = _keras_figures(predicted, output.name, len(wanted.slices.names))
            for group, (slicing, label) in enumerate(wanted.slices.names):
                rows, weight = measured.rows[group]
                about = Result(
                    output.name,
                    slicing,
                    label,
                    int(rows),
                    float(weight),
                    bool(rows < self._settings.small_slice_rows),
                    "",
                    None,
                    Figures(Estimate(math.nan)),
                    several=len(self._answers) > 1,
                )
                compared = group > 0 and not about.small
                figures = estimate(measured, wanted, output.name, group, compared=compared)
                found += [replace(about, metric=n, direction=names[n], figures=f) for n, f in figures.items()]
                for metric, told in keras_figures.items():
                    if metric not in figures:
                        direction = _direction(metric)
                        found.append(replace(about, metric=metric, direction=direction, figures=told[group]))
        return [*with_tests(found), *self._of_the_whole(measured)]

    def _of_the_whole(self, measured: Measured) -> list[Result]:
        """Figures that a threshold asks for: of time, which is never the same, only then."""
        asked = set(self._settings.thresholds) & set(whole.NAMES)
        if not asked:
            return []
        saved, figures = self._inputs.saved_model, {}
        path = saved.path if saved is not None else self._predictor.model / Model.FILE
        if whole.MEGABYTES in asked:
            figures[whole.MEGABYTES] = whole.megabytes(path)
        if asked - {whole.MEGABYTES}:
            figures |= whole.latency(*self._one_call())
        rows, weight = measured.rows[0]
        return [
            Result("", "", "", int(rows), float(weight), False, name, "down", Figures(Estimate(value)))
            for name, value in figures.items()
            if name in asked
        ]

    def _one_call(self) -> tuple[Any, dict[str, np.ndarray]]:
        """What is called for an answer, and a row of the split to ask about."""
        examples, split = self._inputs.examples, self._settings.split
        row = next(examples.batches(split)).slice(0, 1)
        if self._inputs.saved_model is not None:
            predictor = SavedModelPredictor(self._inputs.saved_model.path)
            return predictor, feed(row, predictor.inputs)
        preprocessing, _ = self._predictor.load()
        beside = feed(row, columns_beside(self._inputs.preprocessing, preprocessing, examples))
        return functools.partial(self._predictor, beside=beside), feed(row, preprocessing.input)

    # What is left

    @property
    def _folder(self) -> Path:
        return self._outputs.evaluation.path / PREDICTIONS

    def _write(
        self,
        results: list[Result],
        measured: Measured,
        wanted: Measure,
        predicted: Predicted,
        rulings: list[judging.Ruling],
    ) -> None:
        settings, evaluation = self._settings, self._outputs.evaluation
        rows = [result.as_row(settings.confidence) for result in results]
        write_table(rows, evaluation.path / Evaluation.TABLE)
        names = {o.name: [r.metric for r in results if r.output == o.name and not r.slicing] for o in self._answers}
        told = {
            "version": VERSION,
            "split": settings.split,
            "rows": int(measured.rows[0][0]),
            "weighted": wanted.weighted,
            "confidence": settings.confidence,
            "replicates": settings.replicates,
            "seed": settings.seed,
            "small_slice_rows": settings.small_slice_rows,
            "outputs": {
                o.name: {"task": o.task, "classes": o.classes, "metrics": names[o.name]} for o in self._answers
            },
            "slicings": [
                {"name": name, "slices": len(labels), "left_out": wanted.slices.left_out[name]}
                for name, labels in wanted.slices.slices.items()
            ],
            "baseline": {"path": str(self._inputs.baseline.path)} if self._inputs.baseline is not None else None,
            "metrics": rows,
            **details(self._answers, measured, wanted, settings),
            "forms": self._forms(results, wanted, predicted),
            "notes": [
                f"{name}: the {len(wanted.slices.slices[name])} most frequent of "
                f"{len(wanted.slices.slices[name]) + left} slices"
                for name, left in wanted.slices.left_out.items()
                if left
            ],
        }
        evaluation.write_json(Evaluation.FILE, known(told))
        self._outputs.blessing.write_json(Blessing.FILE, judging.blessing(rulings))

    def _forms(self, results: list[Result], wanted: Measure, predicted: Predicted) -> list[dict[str, Any]]:
        """The same metrics of the exported form, less those of the Keras model."""
        if self._inputs.saved_model is None:
            return []
        plain = SliceTable({}, {})
        exported = replace(wanted, slices=plain, resampling=Resampling(0, 0), answers=EXPORTED, baseline=None)
        # The compiled loss is that of the Keras model's answers.
        families = {
            output: tuple(family for family in given if not isinstance(family, RowMean))
            for output, given in wanted.families.items()
        }
        exported = replace(exported, families=families)
        measured = self._measured(predicted, exported)
        ours = {(r.output, r.metric): r.value for r in results if not r.slicing}
        figures = [
            {
                "output": output,
                "metric": name,
                "value": figure.estimate.value,
                "difference": figure.estimate.value - ours[output, name],
            }
            for output in families
            for name, figure in estimate(measured, exported, output, 0).items()
        ]
        return [
            {
                "name": "SavedModel",
                "rows": int(measured.rows[0][0]),
                "largest_difference": predicted.differences.get(EXPORTED),
                "megabytes": whole.megabytes(self._inputs.saved_model.path),
                "metrics": figures,
            }
        ]

    def _figures(self, results: list[Result]) -> dict[str, Any]:
        """A few figures for the screen, and the verdict."""
        shown: dict[str, Any] = {}
        for output in self._answers:
            wanted = {*_SHOWN.get(output.task, ()), *self._settings.thresholds}
            mine = [r for r in results if r.output == output.name and not r.slicing and not math.isnan(r.value)]
            shown |= {r.full_name: r.value for r in [r for r in mine if r.metric in wanted] or mine[:3]}
        shown |= {r.metric: r.value for r in results if not r.output}
        slices = len({(r.slicing, r.slice) for r in results if r.slicing})
        blessing = self._outputs.blessing
        verdict = "yes" if blessing.blessed else f"no: {'; '.join(blessing.refusals())}"
        return {**shown, **({"slices": slices} if slices else {}), "blessed": verdict}


_SHOWN: Mapping[str, tuple[str, ...]] = {
    "binary": ("accuracy", "loss", "roc_auc", "auc"),
    "multi_class": ("accuracy", "loss"),
    "multi_label": ("micro_f1", "subset_accuracy", "loss"),
    "regression": ("root_mean_squared_error", "r2", "loss"),
}


def _keras_figures(predicted: Predicted, output: str, groups: int) -> dict[str, list[Figures]]:
    """Keras's own metrics of an output by name, one of each group."""
    found = {}
    for (of, metric, side), states in predicted.keras.items():
        if of != output or side == BASELINE:
            continue
        figures = [Figures(one) for one in states.estimates(groups)]
        if (others := predicted.keras.get((of, metric, BASELINE))) is not None:
            both = zip(figures, others.estimates(groups), states.changes(others, groups))
            figures = [replace(one, baseline=theirs.value, change=change) for one, theirs, change in both]
        found[metric] = figures
    return found


def _direction(metric: str) -> str:
    from kerasline.components.trainer.metric_direction import less_is_better

    return "down" if less_is_better(metric) else "up"
