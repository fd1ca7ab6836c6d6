"""Predict every row of a split with Beam, and write predictions and labels to Parquet.

Each row group of examples becomes a file of predictions. All work that needs TensorFlow is done here, once. Metrics are
computed from the files. The columns, for an output `o` and another model `m`:

| column | content |
|---|---|
| `row` | index of the row in the split |
| `label.o`, `prediction.o` | label and prediction, as the metrics expect them |
| `loss.o`, `loss_count.o` | compiled loss with the sample weight, and the number of tokens that it is a mean of |
| `m.o` | prediction of another model |
| `loss.m.o` | compiled loss of the baseline's prediction |
| `weight` | weight of the row, if rows have weights |
| `slice.s` | slice of the slicing `s` |
| `column.c` | raw column `c`, if a metric needs it |
"""

from __future__ import annotations

import functools
import itertools
import os
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import tensorflow as tf

from kerasline.components.core.artifacts import Examples
from kerasline.components.core.component import Context
from kerasline.components.core.errors import ArtifactError, DataError, UserCodeError, some
from kerasline.components.core.user_code import call, name_of
from kerasline.components.data.accumulators.moments import Moments
from kerasline.components.data.arrow_arrays import as_arrow, as_lists, as_texts
from kerasline.components.data.arrow_types import is_list
from kerasline.components.data.fold import fold, move_files
from kerasline.components.data.hashing import row_hashes
from kerasline.components.data.label_columns import check_no_nulls
from kerasline.components.data.missing import missing_value
from kerasline.components.data.model_inputs import feed, rows_per_batch
from kerasline.components.data.row_groups import RowGroup, row_groups
from kerasline.components.metrics.base import Rows, SumMetrics, divided
from kerasline.components.metrics.binary import checked_probabilities
from kerasline.components.metrics.detection import PREDICTED
from kerasline.components.metrics.keras_metrics import KerasMetric, KerasStates
from kerasline.components.metrics.measuring import as_array
from kerasline.components.metrics.slices import Slicer, SliceTable
from kerasline.components.models.compile_config import outputs_by_name
from kerasline.components.models.judge_predictors import Judge
from kerasline.components.models.judges import DISTRIBUTION
from kerasline.components.models.predictors import KerasPredictor, SavedModelPredictor
from kerasline.components.models.tasks import TASKS, Output

# What a predictor returns by output, by the prefix of its key among the answers.
ANSWERS = {
    "raw": "predictions",
    "raw label": "labels",
    "loss": "losses",
    "count": "counts",
    "mask": "masks",
    "counted": "counted",
    "prepared": "prepared",
}
# Label of tokens that a mask leaves out. `TokenMetrics` ignores negative labels.
IGNORED = -1
# Size limits of a row group in a file of predictions.
GROUP_ROWS = 65536
GROUP_BYTES = 64 << 20


@dataclass(frozen=True)
class Plan:
    """The predictions to make, and the columns to store with them.

    Attributes:
        model: model of the columns `prediction.*`, except for those of answers.
        served: served model whose answers are judged, or None.
        judges: models that judge its answers, by output.
        beside: symbolic tensors of labels and weight that are raw columns.
        others: further models by name.
        outputs: outputs of the model to predict.
        slicers: assign slices to the rows.
        slices: slices that are measured.
        kept: raw columns that metrics need.
        decode: user's function from raw predictions and raw columns to what metrics expect, or None. If answers are
            judged, it converts these, a dict by name, and not the outputs of the model.
        metrics: Keras metrics that are updated while predicting, by output.
        baseline: name of the model among `others` to compare in all metrics, or None.
        summed: by output, metrics whose sums are stored because the predictions are too large.
        query: column whose equal values stay together in one of `partitions` sets of files, or None.
        partitions: number of sets of files; 0 without a query.
        batch_size: rows per call of the model.
        folder: folder of the files.
    """

    model: KerasPredictor
    served: SavedModelPredictor | None
    judges: Mapping[str, Judge]
    beside: Mapping[str, keras.KerasTensor]
    others: Mapping[str, SavedModelPredictor]
    outputs: tuple[Output, ...]
    slicers: tuple[Slicer, ...]
    slices: SliceTable
    kept: tuple[str, ...]
    decode: Callable | None
    metrics: Mapping[str, tuple[KerasMetric, ...]]
    baseline: str | None
    summed: Mapping[str, SumMetrics]
    query: str | None
    partitions: int
    batch_size: int
    folder: Path

    @property
    def judged(self) -> list[Output]:
        """The outputs of judges."""
        return [output for output in self.outputs if output.judged is not None]

    @property
    def references(self) -> list[str]:
        """Names of the raw columns to use as labels."""
        return [output.reference for output in self.outputs if output.reference and not output.prepared]

    @property
    def prepared(self) -> tuple[str, ...]:
        """Names of the outputs of the preprocessing to use as labels."""
        return tuple(output.reference for output in self.outputs if output.reference and output.prepared)

    @property
    def predictors(self) -> list[SavedModelPredictor]:
        return [*self.others.values(), *([self.served] if self.served is not None else [])]

    @functools.cached_property
    def of_any_length(self) -> frozenset[str]:
        """The columns whose rows vary in length: labels and predictions. Stored sums do not."""
        model = self.model.load().model
        shapes = {name: tensor.shape[1:] for name, tensor in outputs_by_name(model, model.output).items()}
        varying = [output.name for output in self.outputs if None in shapes.get(output.name, ())]
        predicted = [name for name in varying if name not in self.summed]
        return frozenset(
            [f"{of}.{name}" for of in ("prediction", *self.others) for name in predicted]
            + [f"label.{name}" for name in varying]
        )


@dataclass
class Predicted:
    """Summary of the predictions of some shards.

    Attributes:
        files: names of the files written.
        labels: moments of numeric labels by output.
        keras: states of Keras metrics by output, metric and model.
        differences: largest absolute difference from the model's raw predictions, by other model.
    """

    files: list[str] = field(default_factory=list)
    labels: dict[str, Moments] = field(default_factory=dict)
    keras: dict[tuple[str, str, str], KerasStates] = field(default_factory=dict)
    differences: dict[str, float] = field(default_factory=dict)

    def merge(self, other: Predicted) -> Predicted:
        self.files += other.files
        both: list[tuple[dict[Any, Any], dict[Any, Any]]] = [(self.labels, other.labels), (self.keras, other.keras)]
        for mine, theirs in both:
            for key, state in theirs.items():
                if key in mine:
                    mine[key].merge(state)
                else:
                    mine[key] = state
        for name, difference in other.differences.items():
            self.differences[name] = max(self.differences.get(name, 0.0), difference)
        return self


def predict(examples: Examples, split: str, plan: Plan, context: Context) -> Predicted:
    """Write the predictions of all rows of a split.

    Raises:
        DataError: the split has no rows, or a column is missing or has the wrong type.
        UserCodeError: the user's function raised or did not return one value per row.
    """
    if not examples.rows(split):
        raise DataError(f"{examples.path}: split {split!r} has no rows to evaluate on")
    work = context.work_dir / f"predictions-{uuid.uuid4().hex}"
    work.mkdir(parents=True)
    predict_here = functools.partial(predict_group, plan=replace(plan, folder=work))
    found = fold(row_groups(examples, split), predict_here, Predicted.merge, context) or Predicted()
    move_files(found.files, work, plan.folder)
    return found


def predict_group(group: RowGroup, plan: Plan) -> Predicted:
    """Write the predictions of a row group."""
    loaded = plan.model.load()
    inputs = dict(loaded.preprocessing.input)
    for predictor in plan.predictors:
        inputs |= predictor.inputs
    answers = {f"answer {number}": tensor for number, tensor in enumerate(loaded.model.outputs)}
    rows = min(GROUP_ROWS, rows_per_batch({**inputs, **plan.beside, **answers}))
    found, done = Predicted(), 0
    with pq.ParquetFile(group.shard) as file, _Files(plan, group.first) as files:
        columns = _columns(plan, inputs, file.schema_arrow)
        for batch in file.iter_batches(rows, row_groups=[group.number], columns=columns):
            check_no_nulls(batch, plan.beside)
            files.write(_predict_batch(batch, group.first + done, plan, loaded.preprocessing.input, found))
            done += batch.num_rows
    found.files = files.written
    return found


class _Files:
    """Writer of the predictions of a row group: one file, or one per partition. Files are renamed when complete."""

    def __init__(self, plan: Plan, first: int) -> None:
        ends = [f"-{part}" for part in range(plan.partitions)] or [""]
        self._names = [f"{first:012d}{end}.parquet" for end in ends]
        self._plan, self._mark = plan, uuid.uuid4().hex  # a runner may process an element twice
        self._writers: dict[str, pq.ParquetWriter] = {}
        self._waiting: list[pa.Table] = []
        self.written: list[str] = []

    def __enter__(self) -> _Files:
        return self

    def write(self, table: pa.Table) -> None:
        self._waiting.append(table)
        if sum(map(len, self._waiting)) >= GROUP_ROWS or sum(t.nbytes for t in self._waiting) >= GROUP_BYTES:
            self._write_waiting()

    def __exit__(self, kind: Any, *_error: Any) -> None:
        if kind is None:
            self._write_waiting()
        for name, writer in self._writers.items():
            writer.close()
            if kind is None:
                os.replace(self._aside(name), self._plan.folder / name)
                self.written.append(name)
            else:
                self._aside(name).unlink()

    def _write_waiting(self) -> None:
        if not self._waiting:
            return
        table = pa.concat_tables(self._waiting)
        self._waiting = []
        for name, part in zip(self._names, self._parts(table)):
            if len(part):
                if name not in self._writers:
                    writer = pq.ParquetWriter(self._aside(name), part.schema, compression="zstd", compression_level=1)
                    self._writers[name] = writer
                self._writers[name].write_table(part, row_group_size=GROUP_ROWS)

    def _parts(self, table: pa.Table) -> list[pa.Table]:
        if not self._plan.partitions:
            return [table]
        queries = pa.RecordBatch.from_arrays([table[f"column.{self._plan.query}"].combine_chunks()], ["query"])
        part = row_hashes(queries) % np.uint64(self._plan.partitions)
        return [table.filter(pa.array(part == number)) for number in range(self._plan.partitions)]

    def _aside(self, name: str) -> Path:
        return self._plan.folder / f".{name}.{self._mark}"


def _columns(plan: Plan, inputs: Mapping[str, Any], schema: pa.Schema) -> list[str] | None:
    """Return the columns to read; None for all, if a user's function may read any."""
    if plan.decode is not None or any(slicer.function for slicer in plan.slicers):
        return None
    columns = [*inputs, *plan.beside, *plan.kept, *plan.references, *(c for s in plan.slicers for c in s.columns)]
    return [name for name in dict.fromkeys(columns) if name in schema.names]


def _predict_batch(
    batch: pa.RecordBatch, first: int, plan: Plan, model_inputs: Mapping[str, Any], found: Predicted
) -> pa.Table:
    answers = _predict_in_batches(batch, plan, model_inputs)
    columns: dict[str, Any] = {"row": np.arange(first, first + batch.num_rows)}
    if "weight" in answers:
        columns["weight"] = _row_weights(answers["weight"], batch.num_rows)
    slices = {slicer.name: slicer.labels(batch) for slicer in plan.slicers}
    groups = plan.slices.groups(slices, batch.num_rows)
    for output in plan.outputs:
        columns |= _output_columns(output, batch, answers, plan, found)
        sides = ["raw", *([plan.baseline or ""] if f"loss.{plan.baseline}.{output.name}" in columns else [])]
        metrics = plan.metrics.get(output.name, ()) if f"raw label.{output.name}" in answers else ()
        for metric, side in itertools.product(metrics, sides):
            states = found.keras.setdefault((output.name, metric.name, side), KerasStates(metric))
            raw_label, raw_answer = (answers[f"{of}.{output.name}"] for of in ("raw label", side))
            mask = answers.get(f"mask.{output.name}")
            weight = np.nan_to_num(answers["weight"]) if "weight" in answers else None
            states.add(raw_label, raw_answer, weight, mask, columns["row"], groups)
    arrays = {name: v if isinstance(v, pa.Array) else _as_column(v, name, plan) for name, v in columns.items()}
    # Lists stay as they are: Parquet encodes their values anyway.
    arrays |= {f"slice.{n}": v if is_list(v.type) else v.dictionary_encode() for n, v in slices.items()}
    arrays |= {f"column.{name}": batch.column(name) for name in plan.kept}
    return pa.table(arrays)


def _as_column(values: np.ndarray, name: str, plan: Plan) -> pa.Array:
    """Return an array (rows, ...) as a column, of lists if the output's rows vary in length."""
    return as_lists(values) if values.ndim > 1 and name in plan.of_any_length else as_arrow(values)


def _row_weights(values: np.ndarray, rows: int) -> np.ndarray:
    """Return the weight of each row, float64 (rows,): the mean of the weights of its tokens if they have their own."""
    if values.size != rows and values.ndim != 2:
        raise DataError(
            f"the weight has the shape {values.shape[1:]} per row; expected one number per row, or one per token"
        )
    weights = values.reshape(rows, -1).astype(np.float64)
    wrong = ~(np.isfinite(weights) & (weights >= 0)) & ~(np.isnan(weights) & (values.ndim == 2))
    if wrong.any():
        raise DataError(f"the weight of a row is {weights[wrong][0]:g}; expected finite weights of 0 or more")
    return _means(weights)


def _token_weights(values: np.ndarray | None) -> np.ndarray | None:
    """Return the weights of tokens relative to those of their rows, float64 (rows, length), if they have their own."""
    if values is None or values.size == len(values):
        return None
    return np.nan_to_num(divided(values, _means(values)[:, np.newaxis])) if len(values) else None


def _means(weights: np.ndarray) -> np.ndarray:
    """Return the mean weight of each row's tokens, (rows,). NaN is padding."""
    return divided(np.nansum(weights, axis=1), np.sum(~np.isnan(weights), axis=1))


def _output_columns(
    output: Output, batch: pa.RecordBatch, answers: Mapping[str, np.ndarray], plan: Plan, found: Predicted
) -> dict[str, Any]:
    """Return the columns of one output."""
    name, columns = output.name, {}
    label = _label(output, batch, answers)
    if label is not None and not TASKS[output.task].has_files:
        columns[f"label.{name}"] = label
        if isinstance(label, np.ndarray) and label.dtype.kind == "f":
            found.labels.setdefault(name, Moments()).add(label)
    token_weights = _token_weights(answers.get("weight"))
    decode = plan.decode if not output.judged and (output.answer or plan.served is None) else None
    raw = _raw(output, "answer" if output.answer else "raw", answers)
    columns[f"prediction.{name}"] = _decoded(output, raw, label, batch, decode, plan.summed, token_weights)
    if f"loss.{name}" in answers:
        columns |= {f"loss.{name}": answers[f"loss.{name}"], f"loss_count.{name}": answers[f"count.{name}"]}
    for other, predictor in plan.others.items():
        if not all(f"{other}.{one}" in answers for one in output.answer or (name,)):
            continue  # it answers otherwise
        theirs = replace(output, from_logits=predictor.from_logits(name, output.from_logits))
        raw = _raw(output, other, answers)
        if not output.answer:
            columns |= _compared_with_raw(theirs, other, raw, answers, plan, found)
        columns[f"{other}.{name}"] = _decoded(theirs, raw, label, batch, decode, plan.summed, token_weights)
    return columns


def answer_columns(
    outputs: Iterable[Output],
    batch: pa.RecordBatch,
    answers: Mapping[str, np.ndarray],
    summed: Mapping[str, SumMetrics],
) -> dict[str, pa.Array]:
    """Return the columns of the answers to some rows, as a file of predictions has them.

    Args:
        batch: the raw columns.
        answers: `answer.a` for an answer `a`, and `prepared.r` for a reference `r` that is an output of the
            preprocessing.
        summed: by output, metrics whose sums are stored.
    """
    columns: dict[str, Any] = {"row": np.arange(batch.num_rows)}
    for output in outputs:
        label = _label(output, batch, answers)
        columns[f"label.{output.name}"] = None if TASKS[output.task].has_files else label
        raw = _raw(output, "answer", answers)
        columns[f"prediction.{output.name}"] = _decoded(output, raw, label, batch, None, summed, None)
    arrays = {name: values for name, values in columns.items() if values is not None}
    return {name: as_arrow(v) if isinstance(v, np.ndarray) else v for name, v in arrays.items()}


def _compared_with_raw(
    output: Output, other: str, raw: np.ndarray, answers: Mapping[str, np.ndarray], plan: Plan, found: Predicted
) -> dict[str, Any]:
    """Compare another model's raw predictions of an output with the model's, and return their loss if it applies."""
    name, own, columns = output.name, answers[f"raw.{output.name}"], {}
    if raw.shape[1:] != own.shape[1:]:
        raise ArtifactError(
            f"{plan.others[other].path}: output {name!r} is of shape {raw.shape[1:]} a row, the model's of "
            f"{own.shape[1:]}"
        )
    (ours,) = (one for one in plan.outputs if one.name == name)
    # The compiled loss applies only to scores on the same scale.
    if other == plan.baseline and f"loss.{name}" in answers and output.from_logits == ours.from_logits:
        columns[f"loss.{other}.{name}"] = plan.model.losses(
            name, answers[f"raw label.{name}"], raw, weight=answers.get("weight"), mask=answers.get(f"mask.{name}")
        )
    if raw.dtype.kind == "f" and len(raw):
        largest = float(np.max(np.abs(own.astype(np.float64) - raw)))
        found.differences[other] = max(found.differences.get(other, 0.0), largest)
    return columns


def _raw(output: Output, model: str, answers: Mapping[str, np.ndarray]) -> Any:
    """Return the raw prediction of an output by a model, or a dict of the answers that it consists of."""
    if len(output.answer) > 1:
        return {name: answers[f"{model}.{name}"] for name in output.answer}
    return answers[f"{model}.{output.answer[0] if output.answer else output.name}"]


def _label(output: Output, batch: pa.RecordBatch, answers: Mapping[str, np.ndarray]) -> Any:
    """Return the label as the metrics expect it; None if there is none, or if the metrics read it from raw columns."""
    if output.task == DISTRIBUTION:
        return answers[f"real.{output.name}"]
    if output.reference is not None:
        return _reference(output, batch, answers)
    raw = answers.get(f"raw label.{output.name}")
    if raw is None or TASKS[output.task].label_in_columns:
        return None
    counted = answers.get(f"counted.{output.name}")
    label = output.label(raw)
    return np.where(counted, label, IGNORED) if output.task == "tokens" and counted is not None else label


def _reference(output: Output, batch: pa.RecordBatch, answers: Mapping[str, np.ndarray]) -> Any:
    """Return the reference of an output: a raw column, or an output of the preprocessing."""
    assert output.reference is not None
    if not output.prepared:
        column = batch.column(output.reference)
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if output.judged and output.task != "text" and pa.types.is_string(column.type):
            return _class_numbers(column, output)
        if TASKS[output.task].has_files:
            check_no_nulls(batch, [output.reference])
            return column
        if not output.answer or output.task == "text" and not pa.types.is_integer(column.type):
            return column
        check_no_nulls(batch, [output.reference])
        values = as_array(column)
    else:
        values = answers[f"prepared.{output.reference}"]
    if output.task != "text":
        return output.label(values)
    if output.classes is not None and values.dtype.kind in "iu":
        return pa.array(np.array(output.classes)[values.reshape(len(values))])
    return as_texts(as_arrow(values)) if values.dtype == object else pa.array(values.reshape(len(values)).astype(str))


def _class_numbers(column: pa.Array, output: Output) -> np.ndarray:
    """Return the numbers of the named classes, int64 (rows,)."""
    numbers = pc.index_in(column, pa.array(output.classes))
    if numbers.null_count:
        name = column.filter(numbers.is_null())[0].as_py()
        raise DataError(
            f"column {output.reference!r} has {name!r}, which is none of the classes of the judge {output.name!r}: "
            f"{some(output.classes or ())}"
        )
    return numbers.to_numpy().astype(np.int64)


def _decoded(
    output: Output,
    raw: Any,
    label: Any,
    batch: pa.RecordBatch,
    decode: Callable | None,
    summed: Mapping[str, SumMetrics],
    token_weights: np.ndarray | None,
) -> Any:
    """Return a prediction as it is stored: as the metrics expect it, or the sums of the metrics if it is too large.

    Args:
        raw: array (rows, ...), or a dict of the answers that the prediction consists of.
        decode: user's function from raw predictions to what metrics expect, or None.
        summed: by output, metrics whose sums are stored.
    """
    if decode is not None:
        values = _call_decode(decode, raw, batch)
    elif isinstance(raw, dict):
        parts = zip(PREDICTED, (as_lists(values) for values in raw.values()))
        values = pa.StructArray.from_arrays(*zip(*((part, name) for name, part in parts)))
    elif output.answer and output.task == "text":
        values = as_texts(as_arrow(raw.reshape(len(raw), -1)[:, 0])) if raw.dtype == object else raw
    else:
        values = output.prediction(raw)
        if TASKS[output.task].probabilities and output.name not in summed:
            checked_probabilities(values, output.name)
    if output.name in summed:
        rows = Rows(
            as_array(label) if isinstance(label, pa.Array) else label,
            as_array(values) if isinstance(values, pa.Array) else values,
            token_weights,
            np.arange(batch.num_rows),
        )
        return summed[output.name].sums(rows)
    return values.astype(np.float32) if isinstance(values, np.ndarray) and values.dtype.kind == "f" else values


def _call_decode(decode: Callable, raw: np.ndarray, batch: pa.RecordBatch) -> Any:
    """Return the result of the user's `decode` as a NumPy or Arrow array; a dict becomes a struct array."""
    given = call(decode, raw, batch)
    try:
        if isinstance(given, Mapping):
            values = pa.StructArray.from_arrays([pa.array(v) for v in given.values()], list(given))
        else:
            values = given if isinstance(given, (np.ndarray, pa.Array)) else pa.array(given)
    except (pa.ArrowInvalid, pa.ArrowTypeError, ValueError, TypeError) as error:
        raise UserCodeError(f"{name_of(decode)} must return one value per row: {error}") from error
    if len(values) != batch.num_rows:
        raise UserCodeError(f"{name_of(decode)} returned {len(values)} values for {batch.num_rows} rows")
    return pa.array(values) if isinstance(values, np.ndarray) and values.dtype.kind in "OU" else values


def _predict_in_batches(batch: pa.RecordBatch, plan: Plan, model_inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return the predictions of all models, by name.

    The keys are, for an output `o`, another model `m`, an answer `a` and a judge `j`, `raw.o`, `m.o`, `m.a`, `m.j`,
    `answer.a`, `answer.j`, `real.j` (the judge's answer to the reference itself), `weight` and, as `KerasPredictor`
    returns them, `raw label.o`, `loss.o`, `count.o`, `mask.o`, `counted.o`, and `prepared.r` for a reference `r`.
    """
    found: dict[str, list[np.ndarray]] = {}
    for start in range(0, batch.num_rows, plan.batch_size):
        part = batch.slice(start, plan.batch_size)
        results = plan.model(feed(part, model_inputs), feed(part, plan.beside), plan.prepared)
        answers = {f"{key}.{name}": value for key, kind in ANSWERS.items() for name, value in results[kind].items()}
        if results["weight"] is not None:
            answers["weight"] = results["weight"]
        if plan.served is not None:
            given = plan.served(feed(part, plan.served.inputs))
            answers |= {f"answer.{name}": values for name, values in given.items()}
            answers |= _judgements(plan, given, "answer")
            answers |= {
                f"real.{output.name}": plan.judges[output.name].of_column(part, str(output.reference))
                for output in plan.judged
                if output.task == DISTRIBUTION
            }
        for other, predictor in plan.others.items():
            given = predictor(feed(part, predictor.inputs))
            for output in plan.outputs:
                if plan.served is None and not predictor.answers and output.name not in given:
                    raise ArtifactError(f"{predictor.path}: no output {output.name!r}; it gives {', '.join(given)}")
                needed = [name for name in output.answer or (output.name,) if name in given and not output.judged]
                answers |= {f"{other}.{name}": given[name] for name in needed}
            answers |= _judgements(plan, given, other)
        for name, values in answers.items():
            found.setdefault(name, []).append(_in_numpy(values))
    return {name: concatenated(name, parts) for name, parts in found.items()}


def _judgements(plan: Plan, answers: Mapping[str, np.ndarray], model: str) -> dict[str, np.ndarray]:
    """Return what judges answer to the answers of a model, with its name before theirs."""
    return {
        f"{model}.{output.name}": plan.judges[output.name](answers[judged])
        for output in plan.judged
        if (judged := str(output.judged)) in answers
    }


def concatenated(name: str, parts: list[np.ndarray]) -> np.ndarray:
    """Return arrays (rows, ...) as one, with padding to the longest rows."""
    shapes = {part.shape[1:] for part in parts}
    if len(shapes) == 1:
        return np.concatenate(parts)
    longest = np.max([*shapes], axis=0)
    filling: Any = 0
    if name == "weight":
        filling = np.nan
    elif name.startswith("raw label"):
        dtype = parts[0].dtype.name
        filling = missing_value("string" if dtype == "object" else dtype)
    widths = [[(0, 0), *((0, most - size) for most, size in zip(longest, part.shape[1:]))] for part in parts]
    return np.concatenate([np.pad(part, width, constant_values=filling) for part, width in zip(parts, widths)])


def _in_numpy(values: tf.Tensor | np.ndarray) -> np.ndarray:
    """Convert to NumPy, with half-precision floats as float32."""
    array = values if isinstance(values, np.ndarray) else values.numpy()
    return array.astype(np.float32) if array.dtype.name in ("float16", "bfloat16") else array
