"""Labels of images and sound: columns for each file, from a table or from annotations of objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kerasline.components.core.errors import DataError
from kerasline.components.data.sources.csv_files import CsvSource
from kerasline.components.data.sources.csv_format import CsvFormat
from kerasline.components.data.sources.source import SchemaChanged


@dataclass(frozen=True)
class MediaLabels:
    """Labels by file.

    Attributes:
        path: the file or folder that they come from.
        keys: paths or names of the media files. No two are equal.
        columns: a row for each key.
        suffixes: whether the keys have the suffixes of the files.
        sizes: int64 (keys, 2), the height and width of each image according to its annotations, 0 if unknown. None
            for labels without boxes.
        problems: what is wrong with the labels of a file, by row.
        spellings: see `CsvSource.spellings`.
    """

    path: Path
    keys: pa.Array
    columns: pa.Table
    suffixes: bool = True
    sizes: np.ndarray | None = None
    problems: Mapping[int, str] = field(default_factory=dict)
    spellings: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not len(self.keys):
            raise DataError(f"{self.path}: expected labels of at least one file, received none")
        counts = pc.value_counts(self.keys)
        duplicates = counts.filter(pc.greater(counts.field("counts"), 1))
        if len(duplicates):
            raise DataError(f"{self.path}: {duplicates[0]['values'].as_py()!r} has more than one row; keep one of them")

    def rows(self, names: Sequence[str]) -> pa.Array:
        """Return the row of each file, given by its path, or else by its name. Null if there is none."""
        paths = [PurePosixPath(name) if self.suffixes else PurePosixPath(name).with_suffix("") for name in names]
        by_path = pc.index_in(pa.array([str(path) for path in paths]), value_set=self.keys)
        return pc.coalesce(by_path, pc.index_in(pa.array([path.name for path in paths]), value_set=self.keys))


def read_table(path: Path, column_types: Mapping[str, pa.DataType]) -> MediaLabels:
    """Read labels from a CSV file, or a tab-separated one (`.tsv`). The first column has the keys.

    Raises:
        DataError: the file cannot be used.
    """
    form = CsvFormat(delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
    names = form.header(path, column_types)
    if len(names) < 2:
        raise DataError(f"{path}: expected a column of paths and at least one of labels, received {len(names)} columns")
    source = CsvSource({**column_types, names[0]: pa.string()}, form)
    while True:
        try:
            table = pa.Table.from_batches(list(source.batches([path])))
        except SchemaChanged:
            continue
        if not source.merge_inferred([source.inferred]):
            break
    keys = table.column(0).combine_chunks()
    return MediaLabels(path, keys, table.drop_columns(names[:1]), spellings=source.spellings)
