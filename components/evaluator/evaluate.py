"""Run an evaluation: predict, measure, compare with thresholds, write."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from kerasline.components.core.artifacts import Blessing, Evaluation, Model, SavedModel
from kerasline.components.core.component import Context
from kerasline.components.core.errors import ParameterError, nearest
from kerasline.components.core.json_files import finite
from kerasline.components.data.label_columns import raw_label_columns
from kerasline.components.data.model_inputs import feed
from kerasline.components.evaluator import judging
from kerasline.components.evaluator.checks import check_output_settings
from kerasline.components.evaluator.details import details
from kerasline.components.evaluator.families import keras_direction, keras_metrics, metric_families
from kerasline.components.evaluator.results import VERSION, Result, name_of_slice, with_tests, write_table
from kerasline.components.evaluator.samples import Samples, sampled_outputs
from kerasline.components.evaluator.settings import EvaluatorSettings
from kerasline.components.evaluator.slicing import reference_groups, slice_table, slicers
from kerasline.components.metrics.estimates import Estimate
from kerasline.components.metrics.measuring import Measure, Measured, measure
from kerasline.components.metrics.metric_values import ALL_OTHERS, Figures, estimate, weighted_sum
from kerasline.components.metrics.resampling import Resampling
from kerasline.components.metrics.row_means import MeanLoss
from kerasline.components.metrics.slices import SliceTable
from kerasline.components.models import size_and_latency
from kerasline.components.models.compile_config import compiled_losses
from kerasline.components.models.judge_predictors import Judge
from kerasline.components.models.judged_answers import joined, served_answers
from kerasline.components.models.judges import judge_names, judged_outputs
from kerasline.components.models.outputs import model_outputs
from kerasline.components.models.prediction_files import Plan, Predicted, predict
from kerasline.components.models.predictors import KerasPredictor, SavedModelPredictor, rows_at_once
from kerasline.components.models.tasks import TASKS, required_columns, stored_sums

BASELINE, EXPORTED = "baseline", "exported"
PREDICTIONS = "predictions"
# Approximate number of rows of whole queries that are ranked at a time.
MOST_ROWS_TOGETHER = 1 << 16


class Evaluating:
    """One evaluation.

    Args:
        inputs: input artifacts of Evaluator.
        outputs: output artifacts of Evaluator.
        settings: parameters of Evaluator.
        awaits_baseline: whether a baseline is connected that does not exist yet.
    """

    def __init__(
        self, inputs: Any, outputs: Any, settings: EvaluatorSettings, context: Context, *, awaits_baseline: bool
    ) -> None:
        self._inputs, self._outputs, self._settings, self._context = inputs, outputs, settings, context
        self._awaits_baseline = awaits_baseline
        self._has_baseline = awaits_baseline or inputs.baseline is not None
        self._predictor = KerasPredictor(inputs.model.path, inputs.preprocessing.path)
        self._label_columns = raw_label_columns(inputs.preprocessing, self._predictor.load().preprocessing)
        judged, of_network = judged_outputs(
            inputs.saved_model, inputs.judges, inputs.examples.schema(), inputs.preprocessing, settings
        )
        outputs = model_outputs(
            self._predictor, inputs.preprocessing, of_network, self._label_columns, answers_judged=bool(judged)
        )
        self._served = SavedModelPredictor(inputs.saved_model.path) if judged else None
        self._judged = joined(outputs, judged)
        check_output_settings(settings, self._judged)
        self._resampling = Resampling(settings.seed, settings.replicates)

    def run(self) -> Mapping[str, Any]:
        """Write both artifacts.

        Returns:
            dict of the metrics to display.
        """
        settings, examples, context = self._settings, self._inputs.examples, self._context
        cuts = slicers(settings.slices, examples, settings.split, context, where="Evaluator.slices")
        slices = slice_table(cuts, examples, settings.split, context, most=settings.most_slices)
        references = reference_groups(slices, settings.reference_slices)
        context.report("predicting")
        predicted = predict(examples, settings.split, self.plan(cuts, slices), context)
        context.report("measuring")
        request = self._request(slices, predicted)
        measured = measure(self._folder, predicted.files, request, self._context)
        results = self._results(measured, request, predicted, references)
        rulings = judging.judge(results, settings.thresholds, slices.left_out, awaits_baseline=self._awaits_baseline)
        self._write(results, measured, request, predicted, rulings)
        self._write_samples(request, predicted)
        return self._figures(results)

    def plan(self, cuts: list[Any], slices: SliceTable) -> Plan:
        """Return what to predict and which columns to store with the predictions."""
        settings, inputs = self._settings, self._inputs
        loaded = self._predictor.load()
        others = {
            name: SavedModelPredictor(artifact.path)
            for name, artifact in ((BASELINE, inputs.baseline), (EXPORTED, self._network_exported))
            if artifact is not None
        }
        return Plan(
            model=self._predictor,
            served=self._served,
            judges={one.name: Judge.of(one, inputs.judges) for one in self._judged if one.judged},
            beside=self._label_columns,
            others=others,
            outputs=self._judged,
            slicers=tuple(cuts),
            slices=slices,
            kept=self._metric_columns,
            decode=settings.decode,
            metrics=keras_metrics(loaded.model, settings),
            baseline=BASELINE if inputs.baseline is not None else None,
            summed=stored_sums(self._judged, settings),
            query=settings.query,
            partitions=self._partitions,
            batch_size=settings.batch_size or rows_at_once(loaded.preprocessing, loaded.model),
            folder=self._folder,
        )

    @property
    def _network_exported(self) -> SavedModel | None:
        """The exported model, unless an answering function computes its outputs."""
        saved_model = self._inputs.saved_model
        return None if served_answers(saved_model) else saved_model

    def _request(self, slices: SliceTable, predicted: Predicted) -> Measure:
        losses = compiled_losses(self._predictor.load().model)
        families = {}
        for output in self._judged:
            moments = predicted.labels.get(output.name)
            families[output.name] = metric_families(
                output,
                self._settings,
                has_loss=output.name in losses,
                has_baseline=self._has_baseline,
                label_mean=np.reshape(moments.mean, -1) if moments else 0.0,
            )
        return Measure(
            families,
            slices,
            self._resampling,
            weighted=self._weighted,
            baseline=BASELINE if self._inputs.baseline is not None else None,
            columns=self._metric_columns,
            partitions=self._partitions,
        )

    @property
    def _weighted(self) -> bool:
        return self._inputs.preprocessing.facts["sample_weight"] is not None

    @functools.cached_property
    def _metric_columns(self) -> tuple[str, ...]:
        columns = self._inputs.examples.schema().names
        query = self._settings.query
        if query and query not in columns:
            raise ParameterError(f"Evaluator.query: no column {query!r}; {nearest(query, columns)}")
        return required_columns(self._judged, self._settings, columns)

    @property
    def _partitions(self) -> int:
        """Number of sets of files that hold whole queries and fit into memory; 0 without queries."""
        rows = self._inputs.examples.rows(self._settings.split)
        return -(-rows // MOST_ROWS_TOGETHER) if self._settings.query else 0

    def _results(
        self, measured: Measured, request: Measure, predicted: Predicted, references: Mapping[str, int]
    ) -> list[Result]:
        """Return all results.

        Args:
            references: by slicing, the group of the slice that its other slices are compared with.
        """
        found: list[Result] = []
        for output in self._judged:
            names: dict[str, str | None] = {}
            for family in request.families[output.name]:
                names = {**dict(family.directions), **names}
            keras_figures = _keras_figures(predicted, output.name, len(request.slices.names))
            for group, (slicing, label) in enumerate(request.slices.names):
                rows, weight = measured.rows[group]
                is_small = bool(rows < self._settings.small_slice_rows)
                compared = references.get(slicing, ALL_OTHERS) if group and not is_small else None
                if compared == group:  # the reference itself
                    compared = None
                figures = estimate(measured, request, output.name, group, compared=compared)
                of_keras = {metric: values[group] for metric, values in keras_figures.items() if metric not in figures}
                found += [
                    Result(
                        output.name,
                        slicing,
                        label,
                        int(rows),
                        float(weight),
                        is_small,
                        metric,
                        keras_direction(metric) if metric in of_keras else names[metric],
                        one,
                        several=len(self._judged) > 1,
                        compared=_rows_compared(request.slices, compared),
                    )
                    for metric, one in {**figures, **of_keras}.items()
                ]
        return [*with_tests(found), *self._total_losses(found), *self._size_and_latency(measured)]

    def _total_losses(self, results: list[Result]) -> list[Result]:
        """Return the loss of a model with several outputs: the sum of those of the outputs by their `loss_weights`."""
        weights = {name: loss.weight for name, loss in compiled_losses(self._predictor.load().model).items()}
        by_slice: dict[tuple[str, str], list[Result]] = {}
        for result in results:
            if result.several and result.metric == "loss" and result.output in weights:
                by_slice.setdefault((result.slicing, result.slice), []).append(result)
        return [
            replace(losses[0], output="", figures=weighted_sum([(weights[r.output], r.figures) for r in losses]))
            for losses in by_slice.values()
        ]

    def _size_and_latency(self, measured: Measured) -> list[Result]:
        """Return size and latency, only if a threshold needs them, because latency differs between runs."""
        bounded = set(self._settings.thresholds) & set(size_and_latency.NAMES)
        if not bounded:
            return []
        saved, figures = self._inputs.saved_model, {}
        path = saved.path if saved is not None else self._predictor.model / Model.FILE
        if size_and_latency.MEGABYTES in bounded:
            figures[size_and_latency.MEGABYTES] = size_and_latency.megabytes(path)
        if bounded - {size_and_latency.MEGABYTES}:
            figures |= size_and_latency.latency(*self._one_call())
        rows, weight = measured.rows[0]
        return [
            Result("", "", "", int(rows), float(weight), False, name, "down", Figures(Estimate(value)))
            for name, value in figures.items()
            if name in bounded
        ]

    def _one_call(self) -> tuple[Any, dict[str, np.ndarray]]:
        """Return the function to time, and a row of the split to call it with."""
        examples, split = self._inputs.examples, self._settings.split
        row = next(examples.batches(split)).slice(0, 1)
        if self._inputs.saved_model is not None:
            predictor = SavedModelPredictor(self._inputs.saved_model.path)
            return predictor, feed(row, predictor.inputs)
        preprocessing = self._predictor.load().preprocessing
        beside = feed(row, self._label_columns)
        return functools.partial(self._predictor, beside=beside), feed(row, preprocessing.input)

    @property
    def _folder(self) -> Path:
        return self._outputs.evaluation.path / PREDICTIONS

    def _write(
        self,
        results: list[Result],
        measured: Measured,
        request: Measure,
        predicted: Predicted,
        rulings: list[judging.Ruling],
    ) -> None:
        settings, evaluation = self._settings, self._outputs.evaluation
        rows = [result.as_row(settings.confidence) for result in results]
        write_table(rows, evaluation.path / Evaluation.TABLE)
        names = {o.name: [r.metric for r in results if r.output == o.name and not r.slicing] for o in self._judged}
        document = {
            "version": VERSION,
            "split": settings.split,
            "rows": int(measured.rows[0][0]),
            "weighted": request.weighted,
            "confidence": settings.confidence,
            "replicates": settings.replicates,
            "seed": settings.seed,
            "small_slice_rows": settings.small_slice_rows,
            "outputs": {o.name: {"task": o.task, "classes": o.classes, "metrics": names[o.name]} for o in self._judged},
            "slicings": [
                {"name": name, "slices": len(labels), "left_out": request.slices.left_out[name]}
                for name, labels in request.slices.slices.items()
            ],
            "baseline": {"path": str(self._inputs.baseline.path)} if self._inputs.baseline is not None else None,
            "judges": {name: str(self._inputs.judges[name].path) for name in judge_names(self._inputs.judges)},
            "metrics": rows,
            **details(self._judged, measured, request, settings),
            "forms": self._forms(results, request, predicted),
            "notes": [
                *self._unjudged(),
                *(
                    f"{name}: the {len(request.slices.slices[name])} most frequent of "
                    f"{len(request.slices.slices[name]) + left} slices"
                    for name, left in request.slices.left_out.items()
                    if left
                ),
            ],
        }
        evaluation.write_json(Evaluation.FILE, finite(document))
        self._outputs.blessing.write_json(Blessing.FILE, judging.blessing(rulings))

    def _write_samples(self, request: Measure, predicted: Predicted) -> None:
        shown, answers = sampled_outputs(self._judged), served_answers(self._inputs.saved_model)
        if not (shown or answers) or not self._settings.samples:
            return
        self._context.report("samples")
        served = SavedModelPredictor(self._inputs.saved_model.path) if answers else None
        examples, settings = self._inputs.examples, self._settings
        samples = Samples(examples, settings, request, served, self._folder, predicted.files, self._context)
        samples.write(shown, self._outputs.evaluation)

    def _unjudged(self) -> list[str]:
        """Return a note about the answers of the exported model if none of them is judged."""
        answers = served_answers(self._inputs.saved_model)
        if not answers or self._served is not None:
            return []
        return [f"not judged: the answers {', '.join(answers)}; name their `task` or `reference`"]

    def _forms(self, results: list[Result], request: Measure, predicted: Predicted) -> list[dict[str, Any]]:
        """Return the metrics of the exported model and their differences from those of the Keras model."""
        if self._network_exported is None:
            return []
        plain = SliceTable({}, {})
        exported = replace(request, slices=plain, resampling=Resampling(0, 0), answers=EXPORTED, baseline=None)
        # The compiled loss and comparisons with the baseline exist only for predictions of the Keras model.
        families = {
            output: tuple(f for f in given if not isinstance(f, MeanLoss) and not f.compares_with_baseline)
            for output, given in request.families.items()
        }
        exported = replace(exported, families=families)
        measured = measure(self._folder, predicted.files, exported, self._context)
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
                "megabytes": size_and_latency.megabytes(self._inputs.saved_model.path),
                "metrics": figures,
            }
        ]

    def _figures(self, results: list[Result]) -> dict[str, Any]:
        """Return the headline metrics and the verdict."""
        shown: dict[str, Any] = {}
        for output in self._judged:
            headline = {*TASKS[output.task].headline, *self._settings.thresholds}
            whole = [r for r in results if r.output == output.name and not r.slicing and not math.isnan(r.value)]
            shown |= {r.full_name: r.value for r in [r for r in whole if r.metric in headline] or whole[:3]}
        shown |= {r.metric: r.value for r in results if not r.output and not r.slicing}
        slices = len({(r.slicing, r.slice) for r in results if r.slicing})
        blessing = self._outputs.blessing
        unmeasured = blessing.unmeasured()
        verdict = "yes" if blessing.blessed else f"no: {'; '.join(blessing.refusals())}"
        if blessing.blessed and unmeasured:
            verdict += f"; not measured: {'; '.join(unmeasured)}"
        return {**shown, **({"slices": slices} if slices else {}), "blessed": verdict}


def _rows_compared(slices: SliceTable, group: int | None) -> str:
    """Return a name for the rows of a group that a slice is compared with; "" for None."""
    return "" if group is None else name_of_slice(*slices.names[group]) or "all other rows"


def _keras_figures(predicted: Predicted, output: str, groups: int) -> dict[str, list[Figures]]:
    """Return the Keras metrics of an output by name, one value per group."""
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
