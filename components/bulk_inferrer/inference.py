"""Predict the rows of splits with a SavedModel, shard by shard.

A shard of examples becomes a shard of predictions. Beside it lies `NAME.json` with its number of rows. This file is
written last, so that the shard is known to be finished if a later run finds it.
"""

from __future__ import annotations

import base64
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

from kerasline.components.bulk_inferrer.batch_predictions import BatchPredictions, Job, predict_batch
from kerasline.components.bulk_inferrer.settings import BulkInferrerSettings, check_kept
from kerasline.components.core.artifacts import Examples, Predictions, SavedModel
from kerasline.components.core.component import Context
from kerasline.components.core.errors import DataError
from kerasline.components.data.fold import fold
from kerasline.components.data.model_inputs import check_feedable, check_spellings, rows_per_batch
from kerasline.components.models.predictors import SavedModelPredictor

GROUP_ROWS = 65536


@dataclass(frozen=True)
class FinishedShard:
    """A finished shard.

    Attributes:
        path: relative to the job's folder.
        resumed: whether an earlier run finished it.
    """

    split: str
    path: str
    rows: int
    quarantined: int
    resumed: bool = False


def infer(
    model: SavedModel, examples: Examples, predictions: Predictions, settings: BulkInferrerSettings, context: Context
) -> dict[str, Any]:
    """Write the predictions for all rows of the examples, or of one split.

    Returns:
        The number of rows predicted and quarantined, and of shards that an earlier run finished.

    Raises:
        DataError: a column is missing or has the wrong type, or a row fails and may not be quarantined.
        ParameterError: a column to keep has the name of an output.
    """
    splits = examples.splits if settings.split is None else (settings.split,)
    shards = [(split, str(shard)) for split in splits for shard in examples.whole_shards(split)]
    folder = (context.state_dir or context.work_dir) / "shards"
    job = _job(model, settings, folder)
    if shards:
        check_feedable(pq.read_schema(shards[0][1]), job.predictor.inputs)
    check_spellings(examples, job.predictor.inputs)
    for split in splits:
        (folder / split).mkdir(parents=True, exist_ok=True)
    done: list[FinishedShard] = fold(shards, functools.partial(infer_shard, job=job), operator.add, context) or []
    _collect(done, splits, folder, predictions)
    resumed = sum(shard.resumed for shard in done)
    figures = {"rows": sum(shard.rows for shard in done), "quarantined": sum(shard.quarantined for shard in done)}
    return {**figures, **({"resumed_shards": resumed} if resumed else {})}


def infer_shard(element: tuple[str, str], job: Job) -> list[FinishedShard]:
    """Predict the rows of a shard, given its split and path."""
    split, shard = element
    name = f"{split}/{Path(shard).name}"
    finished = job.folder / f"{name}.json"
    if finished.exists():
        return [FinishedShard(**{**json.loads(finished.read_text(encoding="utf-8")), "resumed": True})]
    mark = uuid.uuid4().hex  # a runner may process an element twice at the same time
    unfinished = {end: job.folder / f"{name}{end}.{mark}" for end in ("", ".jsonl", ".json")}
    rows = quarantined = 0
    with _Table(unfinished[""]) as table, unfinished[".jsonl"].open("w", encoding="utf-8") as quarantine:
        for number, batch in _batches(shard, job):
            part = predict_batch(batch, job)
            if part.failed and not job.quarantine:
                place, reason = part.failed[0]
                raise DataError(
                    f"{shard}: row {number + place}: {reason}; quarantine such rows with "
                    "--set BulkInferrer.bad_rows=quarantine"
                )
            table.write(_with_kept(part, batch, job))
            quarantine.writelines(_quarantine_lines(batch, part.failed, first=number, source=name))
            rows, quarantined = rows + part.rows, quarantined + len(part.failed)
    done = FinishedShard(split, name, rows, quarantined)
    unfinished[".json"].write_text(json.dumps(vars(done)), encoding="utf-8")
    for end, path in unfinished.items():  # the .json file last
        os.replace(path, job.folder / f"{name}{end}")
    return [done]


def _job(model: SavedModel, settings: BulkInferrerSettings, folder: Path) -> Job:
    manifest = model.manifest
    predictor = SavedModelPredictor(model.path)
    names = tuple(manifest.get("outputs") or sorted(predictor.outputs))
    check_kept(settings, names)
    return Job(
        predictor,
        names,
        tuple(settings.keep),
        settings.prefix,
        tuple(manifest.get("texts", ())),
        settings.batch_size,
        settings.bad_rows == "quarantine",
        folder,
    )


def _batches(shard: str, job: Job) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yield batches of the shard with the columns that are needed, and the index of each batch's first row."""
    rows = min(GROUP_ROWS, rows_per_batch(job.predictor.inputs))
    columns = list(dict.fromkeys([*sorted(job.predictor.inputs), *job.kept]))  # TensorFlow's order varies
    place = 0
    with pq.ParquetFile(shard) as file:
        for batch in file.iter_batches(rows, columns=columns):
            yield place, batch
            place += batch.num_rows
        if not place:  # an empty shard has the same columns
            yield 0, pa.RecordBatch.from_pylist([], pa.schema([file.schema_arrow.field(name) for name in columns]))


def _with_kept(part: BatchPredictions, batch: pa.RecordBatch, job: Job) -> pa.Table:
    kept = {name: batch.column(name) for name in job.kept}
    if part.failed:
        kept = {name: column.take(part.places) for name, column in kept.items()}
    return pa.table({**kept, **{f"{job.prefix}{name}": column for name, column in part.columns.items()}})


def _quarantine_lines(
    batch: pa.RecordBatch, failed: list[tuple[int, str]], *, first: int, source: str
) -> Iterator[str]:
    """Yield rows that failed, in the format of `kerasline.components.data.quarantine`.

    Args:
        batch: the rows, with the columns that were read.
        failed: places in the batch, and reasons.
        first: index of the batch's first row in its shard.
        source: name of the shard.
    """
    for place, reason in failed:
        (row,) = batch.slice(place, 1).to_pylist()
        entry = {"source": f"{source}, row {first + place}", "reason": reason, "rows": 1, "row": row}
        yield json.dumps(entry, ensure_ascii=False, default=_json_value) + "\n"


def _json_value(value: Any) -> Any:
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            return {"base64": base64.b64encode(value).decode("ascii")}
    return str(value)


def _collect(done: Sequence[FinishedShard], splits: Sequence[str], folder: Path, predictions: Predictions) -> None:
    """Link the finished shards into the artifact. They also stay where they are, in case this is interrupted."""
    for split in splits:
        (predictions.path / split).mkdir()
    for shard in done:
        _link(folder / shard.path, predictions.path / shard.path)
    if any(shard.quarantined for shard in done):
        with (predictions.path / Predictions.QUARANTINE).open("wb") as whole:
            for shard in done:
                with (folder / f"{shard.path}.jsonl").open("rb") as part:
                    shutil.copyfileobj(part, whole)
    predictions.write_json(
        Predictions.MANIFEST,
        {
            "splits": {split: [{"path": d.path, "rows": d.rows} for d in done if d.split == split] for split in splits},
            "rows_read": sum(d.rows + d.quarantined for d in done),
            "quarantined": sum(d.quarantined for d in done),
        },
    )


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk, or a file system without links
        shutil.copyfile(source, target)


class _Table:
    """A Parquet file, with a row group for each table written."""

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
