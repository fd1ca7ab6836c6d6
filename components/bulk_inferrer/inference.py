"""All rows of some splits through a SavedModel, shard by shard; a shard that is done is found again.

A shard of examples becomes a shard of predictions, and beside it `NAME.json`, which says how many rows it has:
written last, it tells that the shard is done.
"""

from __future__ import annotations

import functools
import json
import operator
import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from kerasline.components.bulk_inferrer.answering import Answered, answered, check_feedable
from kerasline.components.bulk_inferrer.rows_set_aside import written_rows
from kerasline.components.core.artifacts import Examples, Predictions, SavedModel
from kerasline.components.core.component import Context
from kerasline.components.core.errors import DataError, ParameterError, nearest
from kerasline.components.data.feed import rows_a_batch
from kerasline.components.data.fold import fold
from kerasline.components.models.predictors import SavedModelPredictor

GROUP_ROWS = 65536


@dataclass(frozen=True)
class Job:
    """What is inferred.

    Attributes:
        outputs: what is asked of the model, in the order of the columns: TensorFlow's own is now this, now that.
        kept: raw columns that go along.
        prefix: put before the outputs' names.
        labels: outputs that are names of classes, hence text.
        batch_size: rows that the model takes at once.
        set_aside: whether a row that fails is set aside; else it ends the run.
        folder: where shards go.
    """

    predictor: SavedModelPredictor
    outputs: tuple[str, ...]
    kept: tuple[str, ...]
    prefix: str
    labels: tuple[str, ...]
    batch_size: int
    set_aside: bool
    folder: Path


@dataclass(frozen=True)
class Done:
    """A shard that is done; paths are within the job's folder."""

    split: str
    path: str
    rows: int
    set_aside: int
    remembered: bool = False


def infer(
    model: SavedModel, examples: Examples, predictions: Predictions, settings: Any, context: Context
) -> dict[str, Any]:
    """Writes the answers for all rows of the examples' splits, or of one.

    Returns:
        How many rows were answered and set aside, and how many shards an earlier run had done.

    Raises:
        DataError: a column is missing or of the wrong kind; or a row fails and none may.
        ParameterError: a column to keep is not there, or is called as an output is.
    """
    splits = examples.splits if settings.split is None else (settings.split,)
    shards = [(split, str(shard)) for split in splits for shard in examples.whole_shards(split)]
    folder = (context.state_dir or context.work_dir) / "shards"
    job = _job(model, examples, settings, folder)
    if shards:
        check_feedable(pq.read_schema(shards[0][1]), job.predictor)
    for split in splits:
        (folder / split).mkdir(parents=True, exist_ok=True)
    done: list[Done] = fold(shards, functools.partial(infer_shard, job=job), operator.add, context) or []
    _take(done, splits, folder, predictions)
    remembered = sum(shard.remembered for shard in done)
    figures = {"rows": sum(shard.rows for shard in done), "quarantined": sum(shard.set_aside for shard in done)}
    return {**figures, **({"remembered_shards": remembered} if remembered else {})}


def infer_shard(element: tuple[str, str], job: Job) -> list[Done]:
    """Answers the rows of a shard: its split and path."""
    split, shard = element
    name = f"{split}/{Path(shard).name}"
    note = job.folder / f"{name}.json"
    if note.exists():
        return [Done(**{**json.loads(note.read_text(encoding="utf-8")), "remembered": True})]
    mark = uuid.uuid4().hex  # a runner may do an element twice
    unfinished = {end: job.folder / f"{name}{end}.{mark}" for end in ("", ".jsonl", ".json")}
    rows = set_aside = 0
    with _Table(unfinished[""]) as table, unfinished[".jsonl"].open("w", encoding="utf-8") as aside:
        for number, batch in _batches(shard, job):
            part = answered(batch, job)
            if part.failed and not job.set_aside:
                place, reason = part.failed[0]
                raise DataError(
                    f"{shard}: row {number + place}: {reason}; set such rows aside with "
                    "--set BulkInferrer.bad_rows=quarantine"
                )
            table.write(_with_kept(part, batch, job))
            aside.writelines(written_rows(batch, part.failed, first=number, source=name))
            rows, set_aside = rows + part.rows, set_aside + len(part.failed)
    done = Done(split, name, rows, set_aside)
    unfinished[".json"].write_text(json.dumps(vars(done)), encoding="utf-8")
    for end, path in unfinished.items():  # the note last
        os.replace(path, job.folder / f"{name}{end}")
    return [done]


def _job(model: SavedModel, examples: Examples, settings: Any, folder: Path) -> Job:
    told = model.read_json(SavedModel.MANIFEST) if (model.path / SavedModel.MANIFEST).exists() else {}
    predictor = SavedModelPredictor(model.path)
    columns = examples.schema().names
    asked = tuple(told.get("outputs") or sorted(predictor.outputs))
    outputs = {f"{settings.prefix}{name}" for name in asked}
    for name in settings.keep:
        if name not in columns:
            raise ParameterError(f"BulkInferrer.keep: the data has no column {name!r}; {nearest(name, columns)}")
        if name in outputs:
            raise ParameterError(
                f"BulkInferrer.keep: {name!r} is an output of the model too; set BulkInferrer.prefix, "
                "such as 'predicted_'"
            )
    labels = ("label",) if told.get("class_names") and "label" in told.get("outputs", ()) else ()
    return Job(
        predictor,
        asked,
        tuple(settings.keep),
        settings.prefix,
        labels,
        settings.batch_size,
        settings.bad_rows == "quarantine",
        folder,
    )


def _batches(shard: str, job: Job) -> Iterator[tuple[int, pa.RecordBatch]]:
    """The shard's rows with the columns that are read, and the place of each batch's first row."""
    rows = min(GROUP_ROWS, rows_a_batch(job.predictor.inputs))
    columns = list(dict.fromkeys([*sorted(job.predictor.inputs), *job.kept]))  # TensorFlow's order is no order
    place = 0
    with pq.ParquetFile(shard) as file:
        for batch in file.iter_batches(rows, columns=columns):
            yield place, batch
            place += batch.num_rows
        if not place:  # of no rows, so that its file has its columns
            yield 0, pa.RecordBatch.from_pylist([], pa.schema([file.schema_arrow.field(name) for name in columns]))


def _with_kept(part: Answered, batch: pa.RecordBatch, job: Job) -> pa.Table:
    kept = {name: batch.column(name) for name in job.kept}
    if part.failed:
        kept = {name: column.take(part.places) for name, column in kept.items()}
    return pa.table({**kept, **{f"{job.prefix}{name}": column for name, column in part.columns.items()}})


def _take(done: Sequence[Done], splits: Sequence[str], folder: Path, predictions: Predictions) -> None:
    """What is done becomes the artifact. The shards stay where they are too: this may be cut short."""
    for split in splits:
        (predictions.path / split).mkdir()
    for shard in done:
        _link(folder / shard.path, predictions.path / shard.path)
    if any(shard.set_aside for shard in done):
        with (predictions.path / Predictions.QUARANTINE).open("wb") as whole:
            for shard in done:
                with (folder / f"{shard.path}.jsonl").open("rb") as part:
                    shutil.copyfileobj(part, whole)
    predictions.write_json(
        Predictions.MANIFEST,
        {
            "splits": {split: [{"path": d.path, "rows": d.rows} for d in done if d.split == split] for split in splits},
            "rows_read": sum(d.rows + d.set_aside for d in done),
            "quarantined": sum(d.set_aside for d in done),
        },
    )


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk, or one without links
        shutil.copyfile(source, target)


class _Table:
    """A Parquet file of tables of one schema, in groups of rows as they come."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: pq.ParquetWriter | None = None

    def __enter__(self) -> _Table:
        return self

    def write(self, table: pa.Table) -> None:
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._path, table.schema, compression="zstd", compression_level=1)
        self._writer.write_table(table)

    def __exit__(self, *_error: Any) -> None:
        if self._writer is not None:
            self._writer.close()
