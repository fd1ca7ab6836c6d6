"""Real rows to ask about: drawn from a split by a seed, without reading what is not drawn."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from kerasline.components.core.artifacts import Examples
from kerasline.components.core.errors import DataError, nearest
from kerasline.components.data.feed import feed
from kerasline.components.data.row_groups import rows_at
from kerasline.components.infra_validator.signature import Spec


def draw(examples: Examples, split: str, inputs: Mapping[str, Spec], *, rows: int, seed: int) -> dict[str, np.ndarray]:
    """Raw features by name, arrays (rows, ...), in the order of the split.

    A row that cannot be fed, such as one with a missing boolean, is left out: it cannot be asked about.

    Raises:
        DataError: a column is missing or of the wrong kind, or no row can be fed.
    """
    from kerasline.components.bulk_inferrer.answering import unfeedable

    columns = examples.schema().names
    for name in inputs:
        if name not in columns:
            raise DataError(
                f"InfraValidator: the data has no column {name!r}, which the model takes; {nearest(name, columns)}"
            )
    held = examples.rows(split)
    if not held:
        raise DataError(f"InfraValidator.split: split {split!r} has no rows; name another one")
    places = np.sort(np.random.default_rng(seed).choice(held, min(rows, held), replace=False))
    batch = pa.concat_tables(rows_at(examples, split, places, list(inputs))).combine_chunks().to_batches()[0]
    failed = unfeedable(batch, inputs)
    if len(failed) == batch.num_rows:
        raise DataError(f"InfraValidator: no row of split {split!r} can be fed to the model: {failed[0][1]}")
    return feed(batch.take(pa.array(np.delete(np.arange(batch.num_rows), [place for place, _ in failed]))), inputs)
