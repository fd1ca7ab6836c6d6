"""Preprocessed rows, stored once: shards of the preprocessing's outputs."""

from __future__ import annotations

import functools
import operator
import os
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from kerasline.components.core.artifacts import Examples, Preprocessing
from kerasline.components.core.component import Context
from kerasline.components.core.errors import ParameterError
from kerasline.components.data.arrow_arrays import as_arrow
from kerasline.components.data.fold import fold, move_files
from kerasline.components.data.model_inputs import feed, rows_per_batch
from kerasline.components.preprocessing.packing import Packer, Packing

Written = list[tuple[str, dict[str, Any]]]  # the split, and the manifest's entry for a shard


def materialize(preprocessing: Preprocessing, examples: Examples, context: Context) -> int:
    """Store the preprocessed rows of all splits in the artifact, one shard for each shard of the examples.

    Returns:
        The number of rows.

    Raises:
        ParameterError: an output varies in length, or is random in training.
        DataError: a column does not fit the preprocessing's input.
    """
    _check(preprocessing)
    stored = Examples(preprocessing.path / Preprocessing.MATERIALIZED)
    shards = [(split, str(shard)) for split in examples.splits for shard in examples.whole_shards(split)]
    work = context.work_dir / f"materialized-{uuid.uuid4().hex}"
    write = functools.partial(_write, preprocessing=preprocessing, folder=work)
    for split in examples.splits:
        (work / split).mkdir(parents=True)
        (stored.path / split).mkdir(parents=True)
    written: Written = fold(shards, write, operator.add, context) or []
    move_files((shard["path"] for _, shard in written), work, stored.path)
    splits = {split: [shard for name, shard in written if name == split] for split in examples.splits}
    stored.write_json(Examples.MANIFEST, {"splits": splits, "made_from": examples.digest()})
    return sum(shard["rows"] for _, shard in written)


def _check(preprocessing: Preprocessing) -> None:
    from kerasline.components.preprocessing.training_mode import is_random

    model, is_packed = preprocessing.load(), preprocessing.facts.get("packed") is not None
    parameter = "pack" if is_packed else "materialize"
    if is_random(model):
        raise ParameterError(
            f"Transform.{parameter}: the preprocessing augments at random, and stored rows would be the same in every "
            f"epoch; remove {parameter}, or move the random layers into the model"
        )
    for name, tensor in model.output.items():
        if None in tensor.shape[1:] and not is_packed:
            raise ParameterError(
                f"Transform.materialize: output {name!r} has no fixed shape, {tuple(tensor.shape[1:])}; "
                "give it one, for instance with output_sequence_length"
            )


def _write(element: tuple[str, str], preprocessing: Preprocessing, folder: Path) -> Written:
    import tensorflow as tf

    from kerasline.components.preprocessing.training_mode import PartPositions, rows_at

    split, shard = element
    model, facts = _loaded(preprocessing.path), preprocessing.facts
    positions = PartPositions([Path(shard)]) if facts.get("out_of_fold") == split else None
    rows = rows_per_batch({**model.input, **{f"output {name}": t for name, t in model.output.items()}})
    path = f"{split}/{Path(shard).name}"
    unfinished = folder / f"{path}.{uuid.uuid4().hex}"  # a runner may process an element twice
    count = written = 0
    writer, packer = None, _packer(preprocessing)
    raw_columns = [*preprocessing.labels, *([facts["sample_weight"]] if facts["sample_weight"] else [])]
    raw_columns = [name for name in raw_columns if name not in model.output]
    with pq.ParquetFile(shard) as file:
        for batch in file.iter_batches(rows, columns=list({**model.input, **dict.fromkeys(raw_columns)})):
            place = tf.range(count, count + batch.num_rows, dtype=tf.int64)
            with rows_at(None if positions is None else positions.of(place)):
                outputs = model(feed(batch, model.input), training=False)
            arrays = {name: tensor.numpy() for name, tensor in outputs.items()}
            count += batch.num_rows
            if packer is not None:
                arrays = packer.add(arrays)
                if count == file.metadata.num_rows:
                    rest = packer.rest()
                    arrays = {name: np.concatenate([values, rest[name]]) for name, values in arrays.items()}
            columns = {name: as_arrow(values) for name, values in arrays.items()}
            columns |= {name: batch.column(name) for name in raw_columns}
            table = pa.table(columns)
            writer = writer or pq.ParquetWriter(unfinished, table.schema, compression="zstd")
            writer.write_table(table)
            written += len(table)
    assert writer is not None, "a shard has rows"
    writer.close()
    os.replace(unfinished, folder / path)
    return [(split, {"path": path, "rows": written})]


def _packer(preprocessing: Preprocessing) -> Packer | None:
    facts = preprocessing.facts
    if facts.get("packed") is None:
        return None
    labels = [*preprocessing.labels, *([facts["sample_weight"]] if facts["sample_weight"] else [])]
    return Packer(Packing(**facts["packed"]), labels)


@functools.lru_cache(maxsize=2)
def _loaded(path: Path) -> Any:
    return Preprocessing(path).load()
