"""Metrics of answers during training: the model answers some held-out rows after each epoch, as it will be served."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import tensorflow as tf

from kerasline.components.core.artifacts import TensorForm
from kerasline.components.core.errors import ParameterError
from kerasline.components.data.model_inputs import feed
from kerasline.components.data.row_groups import rows_at
from kerasline.components.metrics.base import Direction, Metrics
from kerasline.components.metrics.measuring import Measure, measure_batch
from kerasline.components.metrics.metric_values import estimate
from kerasline.components.metrics.resampling import Resampling
from kerasline.components.metrics.slices import SliceTable
from kerasline.components.models.answering import answering_with, shape_of
from kerasline.components.models.judged_answers import judged_answers_of
from kerasline.components.models.prediction_files import answer_columns, concatenated
from kerasline.components.models.preprocessed_model import preprocess, specs_of
from kerasline.components.models.tasks import TASKS, required_columns, stored_sums
from kerasline.components.trainer.job import Job


class AnswerEvaluation:
    """Computes metrics of the answers of a model to a sample of the held-out rows.

    Args:
        job: the training.
        model: the Keras model, whose present weights are used at each call.
        taken: names of metrics that the model has already.

    Raises:
        ParameterError: no answer, or more than one, can be judged; or there are no held-out rows.
        UserCodeError: `answer` raised, or did not return a tensor with an entry per row for each answer.
    """

    def __init__(self, job: Job, model: Any, taken: Collection[str] = ()) -> None:
        settings, examples, split = job.settings, job.examples, job.eval_split
        if settings.answer is None or settings.evaluate_answers is None or split is None:
            raise ParameterError("Trainer.evaluate_answers: expected `answer`, and data with the split `eval_split`")
        self._rows_at_once = settings.batch_size
        answering = answering_with(settings.answer, model, job.preprocessing)
        answers = {name: TensorForm(spec.dtype.name, shape_of(spec)) for name, spec in answering.outputs.items()}
        judging = settings.judging
        self._outputs = judged_answers_of("Trainer", answers, examples.schema(), job.preprocessing, judging)
        self._summed = stored_sums(self._outputs, judging)
        kept = required_columns(self._outputs, judging, examples.schema().names)
        families: dict[str, tuple[Metrics, ...]] = {
            output.name: TASKS[output.task].metrics(output, judging, 0.0) for output in self._outputs
        }
        self._request = Measure(families, SliceTable({}, {}), Resampling(0, 0), weighted=False, columns=kept)
        self._names = _names(families, taken)
        count = examples.rows(split)
        chosen = np.random.default_rng(settings.seed).choice(count, min(settings.evaluate_answers, count), False)
        (self._batch,) = pa.concat_tables(rows_at(examples, split, np.sort(chosen))).combine_chunks().to_batches()
        whole = answering.prepared.model
        prepared = preprocess(whole, {name: tf.constant(v) for name, v in feed(self._batch, whole.input).items()})
        self._features = {name: prepared[name] for name in answering.used}
        references = {str(output.reference) for output in self._outputs if output.prepared}
        self._prepared = {f"prepared.{name}": prepared[name].numpy() for name in references}
        specs = specs_of({name: whole.output[name] for name in answering.used})
        self._answer: Callable[..., Mapping[str, tf.Tensor]] = tf.function(
            answering, input_signature=[specs], autograph=False
        )

    @property
    def directions(self) -> dict[str, Direction]:
        """Whether higher or lower is better, or neither, by name of the metric."""
        families = self._request.families.items()
        return {
            self._names[answer, name]: direction
            for answer, of in families
            for family in of
            for name, direction in family.directions.items()
        }

    def metrics(self) -> dict[str, float]:
        """Return the metrics of the answers of the present weights, by name."""
        rows, found = self._batch.num_rows, []
        for first in range(0, rows, self._rows_at_once):
            part = {name: tensor[first : first + self._rows_at_once] for name, tensor in self._features.items()}
            found.append({name: values.numpy() for name, values in self._answer(part).items()})
        answers = {f"answer.{name}": concatenated(name, [part[name] for part in found]) for name in found[0]}
        columns = answer_columns(self._outputs, self._batch, {**answers, **self._prepared}, self._summed)
        columns |= {f"column.{name}": self._batch.column(name) for name in self._request.columns}
        measured = measure_batch(pa.RecordBatch.from_pydict(columns), self._request)
        return {
            self._names[output.name, metric]: figures.estimate.value
            for output in self._outputs
            for metric, figures in estimate(measured, self._request, output.name, 0).items()
        }


def _names(families: Mapping[str, tuple[Metrics, ...]], taken: Collection[str]) -> dict[tuple[str, str], str]:
    """Return the name of each metric by answer: `wer`, or `translation_wer` if that is not unique."""
    metrics = [(answer, name) for answer, of in families.items() for family in of for name in family.directions]
    counts = Counter(name for _, name in dict.fromkeys(metrics))
    return {
        (answer, name): name if counts[name] == 1 and name not in taken else f"{answer}_{name}"
        for answer, name in metrics
    }
