"""An evaluation from its beginning to its end: predict, measure, compare, judge, write."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np

from components.artifacts import Blessing, Evaluation, Model, Preprocessing
from components.base import Context
from components.columnar.feed import feed
from components.columnar.targets import columns_beside
from components.errors import ParameterError, nearest
from components.evaluation import judging, whole
from components.evaluation.cell_counts import CellCounts
from components.evaluation.compiled import compiled_losses, compiled_metrics, output_names
from components.evaluation.estimates import Estimate
from components.evaluation.estimating import Figures, estimate
from components.evaluation.fairness import gaps
from components.evaluation.families import RowMean, check_names, families_of, kept_columns, keras_metrics, summed, users_metrics
from components.evaluation.measuring import Measure, Measured, SumTally, measure
from components.evaluation.metrics.binary import BinaryScores, BinaryThresholds
from components.evaluation.metrics.keras_metrics import KerasMetric, distinct
from components.evaluation.metrics.multi_class import Confusion
from components.evaluation.metrics.multi_label import MultiLabelMetrics
from components.evaluation.metrics.regression import ResidualQuantiles, residual_table
from components.evaluation.predicting import Plan, Predicted, predict
from components.evaluation.predictors import KerasPredictor, SavedModelPredictor
from components.evaluation.resampling import Resampling
from components.evaluation.results import VERSION, Result, known, with_tests, write_table
from components.evaluation.slicing import SliceTable, slice_table, slicers
from components.evaluation.task import Output, Task, task_of

BASELINE, EXPORTED = "baseline", "exported"
PREDICTIONS = "predictions"
MOST_CLASSES_SHOWN = 100
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
            batch_size=settings.batch_size,
            folder=self._folder,
        )

    def _keras_metrics(self, model: Any) -> dict[str, tuple[KerasMetric, ...]]:
        """The model's own, and those that were asked for, by output."""
        import keras

        from components.building.by_name import metric

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
            families, slices, self._resampling,
            weighted=self._weighted,
            baseline=BASELINE if self._inputs.baseline is not None else None,
            kept=self._kept,
            partitions=self._partitions,
        )  # fmt: skip

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
                about = Result(output.name, slicing, label, int(rows), float(weight),
                               bool(rows < self._settings.small_slice_rows), "", None, Figures(Estimate(math.nan)),
                               several=len(self._answers) > 1)  # fmt: skip
                compared = group > 0 and not about.small
                figures = estimate(measured, wanted, output.name, group, compared=compared)
                found += [replace(about, metric=n, direction=names[n], figures=f) for n, f in figures.items()]
                for metric, told in keras_figures.items():
                    if metric not in figures:
                        found.append(replace(about, metric=metric, direction=_direction(metric), figures=told[group]))
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
        self, results: list[Result], measured: Measured, wanted: Measure, predicted: Predicted,
        rulings: list[judging.Ruling],
    ) -> None:  # fmt: skip
        settings, evaluation = self._settings, self._outputs.evaluation
        rows = [result.as_row(settings.confidence) for result in results]
        write_table(rows, evaluation.path / Evaluation.TABLE)
        main = {o.name: [r.metric for r in results if r.output == o.name and not r.slicing] for o in self._answers}
        parts = {"confusion": {}, "thresholds": {}, "curves": {}, "residuals": {}, "per_class": [], "fairness": []}
        for output in self._answers:
            for name, part in self._details(output, measured, wanted).items():
                if name in ("per_class", "fairness"):
                    parts[name] += [{"output": output.name, **entry} for entry in part]
                else:
                    parts[name][output.name] = part
        told = {
            "version": VERSION, "split": settings.split, "rows": int(measured.rows[0][0]),
            "weighted": wanted.weighted, "confidence": settings.confidence,
            "replicates": settings.replicates, "seed": settings.seed,
            "small_slice_rows": settings.small_slice_rows,
            "outputs": {
                o.name: {"task": o.task, "classes": o.classes, "metrics": main[o.name]} for o in self._answers
            },
            "slicings": [
                {"name": name, "slices": len(labels), "left_out": wanted.slices.left_out[name]}
                for name, labels in wanted.slices.slices.items()
            ],
            "baseline": {"path": str(self._inputs.baseline.path)} if self._inputs.baseline is not None else None,
            "metrics": rows, **parts,
            "forms": self._forms(results, wanted, predicted),
            "notes": [
                f"{name}: the {len(wanted.slices.slices[name])} most frequent of "
                f"{len(wanted.slices.slices[name]) + left} slices"
                for name, left in wanted.slices.left_out.items() if left
            ],
        }  # fmt: skip
        evaluation.write_json(Evaluation.FILE, known(told))
        self._outputs.blessing.write_json(Blessing.FILE, judging.blessing(rulings))

    def _details(self, output: Output, measured: Measured, wanted: Measure) -> dict[str, Any]:
        """What is more than a figure: tables and curves, by part of the artifact."""
        found: dict[str, Any] = {}
        for family in wanted.families[output.name]:
            tally = measured.tallies.get((output.name, family.key, wanted.answers))
            if isinstance(family, (BinaryThresholds, Confusion)):
                found |= self._of_classes(output, family, tally) | {"fairness": self._gaps(family, tally, measured, wanted)}
            elif isinstance(family, BinaryScores):
                cells, sums = tally.of(0)
                found["curves"] = family.curves(cells, sums[1])
            elif isinstance(family, MultiLabelMetrics):
                found["per_class"] = _per_label(family, tally, output.classes, self._settings.confidence)
            elif isinstance(family, ResidualQuantiles) and tally:
                found["residuals"] = residual_table(family.estimates(tally[0], 0))
        return found

    def _of_classes(self, output: Output, family: BinaryThresholds | Confusion, counts: CellCounts) -> dict[str, Any]:
        cells, sums = counts.of(0)
        if isinstance(family, BinaryThresholds):
            return {"thresholds": family.table(cells, sums[1])}
        if family.classes > MOST_CLASSES_SHOWN:
            return {}
        classes = family.per_class(cells, sums[1], self._weighted, self._settings.confidence)
        return {
            "confusion": {"classes": output.classes, "counts": family.matrix(cells, sums[1])},
            "per_class": [{**entry, "class": output.classes[entry["class"]]} for entry in classes],
        }

    def _gaps(self, family: Any, tally: Any, measured: Measured, wanted: Measure) -> list[dict[str, Any]]:
        found = []
        for slicing in wanted.slices.slices:
            slices = {
                group: label
                for group, (of, label) in enumerate(wanted.slices.names)
                if of == slicing and measured.rows[group][0] >= self._settings.small_slice_rows
            }
            told = gaps(tally, family, slices, self._resampling, self._settings.confidence)
            found += [{"slicing": slicing, **gap} for gap in told]
        return found

    def _forms(self, results: list[Result], wanted: Measure, predicted: Predicted) -> list[dict[str, Any]]:
        """The same metrics of the exported form, less those of the Keras model."""
        if self._inputs.saved_model is None:
            return []
        plain = SliceTable({}, {})
        exported = replace(wanted, slices=plain, resampling=Resampling(0, 0), answers=EXPORTED, baseline=None)
        # The compiled loss is that of the Keras model's answers.
        families = {o: tuple(f for f in given if not isinstance(f, RowMean)) for o, given in wanted.families.items()}
        exported = replace(exported, families=families)
        measured = self._measured(predicted, exported)
        ours = {(r.output, r.metric): r.value for r in results if not r.slicing}
        figures = [
            {"output": output, "metric": name, "value": figure.estimate.value,
             "difference": figure.estimate.value - ours[output, name]}
            for output in families
            for name, figure in estimate(measured, exported, output, 0).items()
        ]  # fmt: skip
        return [{
            "name": "SavedModel", "rows": int(measured.rows[0][0]),
            "largest_difference": predicted.differences.get(EXPORTED),
            "megabytes": whole.megabytes(self._inputs.saved_model.path), "metrics": figures,
        }]  # fmt: skip

    def _figures(self, results: list[Result]) -> dict[str, Any]:
        """A few figures for the screen, and the verdict."""
        shown = {}
        for output in self._answers:
            mine = [r for r in results if r.output == output.name and not r.slicing and not math.isnan(r.value)]
            asked = [r for r in mine if r.metric in _SHOWN.get(output.task, ()) or r.metric in self._settings.thresholds]
            shown |= {r.full_name: r.value for r in asked or mine[:3]}
        shown |= {r.metric: r.value for r in results if not r.output}
        blessing = self._outputs.blessing
        refusals = "; ".join(blessing.refusals())
        slices = {"slices": sum(bool(s) for s in {(r.slicing, r.slice) for r in results if r.slicing})}
        return {**shown, **(slices if slices["slices"] else {}), "blessed": "yes" if blessing.blessed else f"no: {refusals}"}


_SHOWN: Mapping[str, tuple[str, ...]] = {
    "binary": ("accuracy", "loss", "roc_auc", "auc"),
    "multi_class": ("accuracy", "loss"),
    "multi_label": ("micro_f1", "subset_accuracy", "loss"),
    "regression": ("root_mean_squared_error", "r2", "loss"),
}


def outputs_of(predictor: KerasPredictor, preprocessing: Preprocessing, settings: Any) -> tuple[Output, ...]:
    """The model's outputs and what each answers; of several those that have a loss, or are given a task.

    Raises:
        ParameterError: there is no such task, or output that one is given to, or an output has no label.
    """
    model = predictor.load()[1]
    losses, names = compiled_losses(model), output_names(model)
    tensors = dict(zip(names, _flat(model.output)))
    tasks = settings.task if isinstance(settings.task, dict) else dict.fromkeys(names, settings.task)
    for name in tasks:
        if name not in names:
            raise ParameterError(f"Evaluator.task: the model has no output {name!r}; {nearest(name, names)}")
        if tasks[name] is not None and tasks[name] not in get_args(Task):
            raise ParameterError(f"Evaluator.task: no task {tasks[name]!r}; {nearest(tasks[name], get_args(Task))}")
    class_names = preprocessing.facts["class_names"]
    found = []
    for name in names:
        known_classes = class_names.get(name) if isinstance(class_names, dict) else class_names
        task = tasks.get(name) or ("ranking" if settings.query else task_of(losses.get(name), tensors[name], known_classes))
        width = tensors[name].shape[-1]
        classes = None
        if task in ("multi_class", "multi_label"):
            named = isinstance(known_classes, (list, tuple)) and len(known_classes) == width
            classes = tuple(map(str, known_classes if named else range(width or 2)))
        logits = name in losses and losses[name].from_logits
        if tasks.get(name) or name in losses or len(names) == 1:
            found.append(Output(name, task, classes, logits))
    _check_labels(found, preprocessing.labels, settings)
    return tuple(found)


def _check_labels(outputs: Sequence[Output], labels: Sequence[str], settings: Any) -> None:
    """Raises a ParameterError where it is not known what is true of an output."""
    if not outputs:
        raise ParameterError("Evaluator.task: the model has several outputs and no loss; say what each answers")
    for output in outputs:
        told = len(labels) == 1 or output.name in labels
        if not (told or settings.reference or output.task == "detection"):
            raise ParameterError(
                f"Evaluator: output {output.name!r} has no label of that name, by which it could be judged; "
                f"{nearest(output.name, labels)}"
            )


def _flat(output: Any) -> list[Any]:
    if isinstance(output, dict):
        return [output[name] for name in sorted(output)]
    return list(output) if isinstance(output, (list, tuple)) else [output]


def _per_label(
    family: MultiLabelMetrics, tally: SumTally, classes: Sequence[str], confidence: float
) -> list[dict[str, Any]]:
    """Precision, recall and F1 of each label, with bootstrapped intervals."""
    values, spreads = (family.per_class(sums, classes) for sums in (tally.sums[0], tally.replicates[0]))
    found = []
    for label, figures in values.items():
        for metric in ("precision", "recall", "f1"):
            one = Estimate(float(figures[metric]), replicates=spreads[label][metric])
            low, high = one.interval(confidence)
            found.append({"class": label, "metric": metric, "value": one.value, "low": low, "high": high,
                          "rows": float(figures["rows"])})  # fmt: skip
    return found


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
    from components.training.direction import less_is_better

    return "down" if less_is_better(metric) else "up"
