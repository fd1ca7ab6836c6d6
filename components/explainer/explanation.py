"""Compute all explanations of a model and write them to the artifact."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from kerasline.components.core.artifacts import Examples, Explanation, SavedModel
from kerasline.components.core.component import Context
from kerasline.components.core.errors import ParameterError
from kerasline.components.core.json_files import finite
from kerasline.components.data.display import display_row
from kerasline.components.data.row_groups import rows_at
from kerasline.components.data.worst_rows import Worst
from kerasline.components.explainer.dependence import Grid, dependences, grids, units_of
from kerasline.components.explainer.gradients import Attributions, IntegratedGradients, MeanAttributions
from kerasline.components.explainer.intervals import CONFIDENCE
from kerasline.components.explainer.permutation import Importance, importances
from kerasline.components.explainer.rendering import TokenTexts, attribution_pictures
from kerasline.components.explainer.sample import Sample, draw, load_sample
from kerasline.components.explainer.settings import ExplainerSettings
from kerasline.components.explainer.subject import Subject, Target, load_subject
from kerasline.components.explainer.worst import worst_rows
from kerasline.components.models.predictors import SavedModelPredictor

# Integrated gradients take `steps` forward and backward passes per row. A few hundred rows suffice for the mean. For a
# large model, the number of rows is limited to about 2e12 operations, one or two minutes on two cores.
MOST_ROWS_INTEGRATED, LEAST_ROWS_INTEGRATED = 256, 16
MOST_FLOPS_INTEGRATED = 2e12


def explain(
    target: Target,
    settings: ExplainerSettings,
    examples: Examples,
    explanation: Explanation,
    context: Context,
    *,
    saved_model: SavedModel | None = None,
) -> dict[str, Any]:
    """Compute the explanation and write `explanation.json` and its media files.

    Args:
        saved_model: the exported model, whose answers to the worst rows are displayed, or None.

    Returns:
        The metrics to record.
    """
    try:
        return _Explaining(target, settings, examples, explanation, context, saved_model).run()
    finally:
        load_subject.cache_clear()
        load_sample.cache_clear()


class _Explaining:
    def __init__(
        self,
        target: Target,
        settings: ExplainerSettings,
        examples: Examples,
        explanation: Explanation,
        context: Context,
        saved_model: SavedModel | None,
    ) -> None:
        self._served = None if saved_model is None else SavedModelPredictor(saved_model.path)
        self._target, self._settings, self._examples = target, settings, examples
        self._explanation, self._context = explanation, context
        context.report("loading the model")
        self._subject: Subject = load_subject(target)
        self._folder = context.work_dir / "sample"
        self._sample: Sample = draw(
            self._subject,
            examples,
            settings.split,
            most=settings.most_rows,
            seed=settings.seed,
            folder=self._folder,
        )

    def run(self) -> dict[str, Any]:
        settings = self._settings
        # Report requests that cannot be met before the expensive work.
        gradients, units = self._gradients(), self._units()
        chosen = None if settings.features is None else self._grids(settings.features)
        ranked = importances(
            self._target, self._folder, repeats=settings.repeats, seed=settings.seed, context=self._context
        )
        chosen = self._grids([one.feature for one in ranked]) if chosen is None else chosen
        curves = dependences(self._target, self._folder, chosen, units, self._context)
        integrated = self._integrated(gradients)
        worst = worst_rows(self._target, self._examples, settings.split, settings.worst, self._context)
        metric = self._subject.metric
        split_rows = self._examples.rows(settings.split)
        found = {
            "version": 1,
            "split": settings.split,
            "rows": self._sample.rows,
            "split_rows": split_rows,
            "sampled": self._sample.rows < split_rows,
            "seed": settings.seed,
            "confidence": CONFIDENCE,
            "output": self._subject.output,
            "permutation": {
                "metric": metric.name,
                "direction": metric.direction,
                "value": self._value(),
                "repeats": settings.repeats,
                "features": [importance.as_json() for importance in ranked],
            },
            "integrated_gradients": integrated,
            "partial_dependence": curves,
            "worst": {
                "by": self._subject.errors.name,
                "searched": split_rows,
                "rows": self._worst_entries(worst, gradients),
            },
        }
        self._explanation.write_json(Explanation.FILE, finite(found))
        return self._metrics(ranked, worst)

    def _metrics(self, ranked: Sequence[Importance], worst: Worst) -> dict[str, Any]:
        metrics: dict[str, Any] = {"rows": self._sample.rows}
        if ranked:
            metrics["most_important"] = f"{ranked[0].feature} ({ranked[0].importance:.2g})"
        if len(worst.losses):
            metrics[f"worst_{self._subject.errors.name}"] = self._error(worst.losses[0])
        return metrics

    def _error(self, loss: float) -> float:
        """Return the value of the metric from a loss of `Worst`, which is negated if higher is better."""
        return float(loss if self._subject.errors.lower_is_better else 0 - loss)

    def _value(self) -> float:
        values = self._sample.row_values
        return float((values.metric * values.weight).sum() / values.weight.sum())

    def _grids(self, columns: Sequence[str]) -> list[Grid]:
        """Return the grids of the requested columns, or of the most important ones."""
        settings = self._settings
        return grids(self._subject, self._sample, settings.features, columns, settings.points)

    def _units(self) -> list[int]:
        """Return the indices of the classes, or outputs, of partial dependence."""
        subject, sample = self._subject, self._sample
        scores = [subject.scores(sample.raw(subject, chunk)) for chunk in sample.chunks(subject)]
        return units_of(subject.explained, self._settings.classes, np.concatenate(scores))

    def _gradients(self) -> IntegratedGradients | None:
        settings, subject = self._settings, self._subject
        if settings.integrated_gradients == "off":
            return None
        first = self._sample.raw(subject, self._sample.chunks(subject)[0])
        gradients = IntegratedGradients(subject, steps=settings.steps, baseline=settings.baseline, first=first)
        if gradients.features:
            return gradients
        if settings.integrated_gradients == "on":
            raise ParameterError(
                "Explainer.integrated_gradients: the model has no differentiable input: no "
                "float input and no Embedding layer"
            )
        return None

    def _integrated(self, gradients: IntegratedGradients | None) -> dict[str, Any] | None:
        if gradients is None:
            return None
        parts = self._parts_integrated()
        if self._settings.baseline == "mean":
            gradients.set_means(parts)
        means = MeanAttributions()
        for number, (raw, weight) in enumerate(parts, 1):
            self._context.report(f"integrated gradients, part {number} of {len(parts)}")
            means.add(gradients.attribute(raw), weight)
        named = isinstance(self._settings.baseline, str)
        return {
            "steps": self._settings.steps,
            "baseline": self._settings.baseline if named else "given",
            "rows": sum(len(weight) for _, weight in parts),
            "features": means.as_json(),
            "completeness_error": means.completeness_error,
        }

    def _parts_integrated(self) -> list[tuple[dict[str, Any], np.ndarray]]:
        """Return batches of evenly spaced rows of the sample, with their weights."""
        subject, sample = self._subject, self._sample
        most, flops = MOST_ROWS_INTEGRATED, subject.training_flops
        if flops:
            affordable = int(MOST_FLOPS_INTEGRATED / (flops * self._settings.steps))
            most = min(most, max(affordable, LEAST_ROWS_INTEGRATED))
        places = np.unique(np.linspace(0, sample.rows - 1, min(most, sample.rows)).round().astype(np.int64))
        at_once = subject.rows_at_once
        groups = [places[start : start + at_once] for start in range(0, len(places), at_once)]
        return [(subject.raw(sample.table.take(pa.array(rows))), sample.row_values.weight[rows]) for rows in groups]

    def _worst_entries(self, worst: Worst, gradients: IntegratedGradients | None) -> list[dict[str, Any]]:
        (self._explanation.path / "worst").mkdir()
        if not len(worst.places):
            return []
        ordered = np.sort(worst.places)
        tables = list(rows_at(self._examples, self._settings.split, ordered))
        table = pa.concat_tables(tables).combine_chunks()
        found = self._rows(table, ordered.tolist())
        if gradients is not None:
            self._add_attributions(found, table, gradients)
        by_place = {row["place"]: row for row in found}
        return [{**by_place[int(place)], "loss": self._error(loss)} for loss, place in zip(worst.losses, worst.places)]

    def _rows(self, table: pa.Table, places: Sequence[int]) -> list[dict[str, Any]]:
        """Return the entries of the worst rows, in the order of `places`, without their loss."""
        subject, found = self._subject, []
        for start in range(0, table.num_rows, subject.rows_at_once):
            part = table.slice(start, subject.rows_at_once)
            (labels, _), scores = subject.labels_and_weights(part), subject.scores(subject.raw(part))
            answers = None if self._served is None else self._served.table(part)
            for number, (label, score) in enumerate(zip(labels, scores)):
                place = places[start + number]
                prediction, certain = subject.explained.prediction_as_text(score)
                found.append(
                    {
                        "place": place,
                        "loss": None,
                        "label": subject.explained.label_as_text(label),
                        "prediction": prediction,
                        "score": certain,
                        **display_row(number, part, answers, self._explanation.path, f"worst/{place}"),
                        "attribution": {},
                        "tokens": {},
                    }
                )
        return found

    def _add_attributions(
        self, found: Sequence[dict[str, Any]], table: pa.Table, gradients: IntegratedGradients
    ) -> None:
        """Add the attributions of images, as pictures, and of the tokens of texts."""
        subject = self._subject
        token_texts = TokenTexts(subject, gradients, subject.raw(table.slice(0, 1)))
        if not token_texts and not any(gradients.image_of(name) for row in found for name in row["media"]):
            return
        for start in range(0, len(found), subject.rows_at_once):
            self._context.report("attributions of the worst rows")
            part = found[start : start + subject.rows_at_once]
            raw = subject.raw(table.slice(start, len(part)))
            attributions: Attributions = gradients.attribute(raw)
            for number, (row, tokens) in enumerate(zip(part, token_texts.attributed(raw, attributions))):
                row["tokens"] = tokens
                row["attribution"] = attribution_pictures(
                    row["media"], gradients, attributions, number, self._explanation.path
                )
