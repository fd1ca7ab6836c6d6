"""ExampleGen: data from outside becomes Examples, split and in columns."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Optional, Union

from components.artifacts import Examples
from components.base import Component, Context, Output, Parameter
from components.errors import DataError, ParameterError

DEFAULT_SPLITS = {"train": 8, "eval": 1, "test": 1}


class CsvExampleGen(Component):
    """Reads CSV files and splits their rows by a hash.

    Parameters:
        input: a path or a glob; compressed files (.gz, .bz2, .zst) by their ending.
        splits: relative sizes by name. The same row always lands in the same split.
        split_key: the columns that decide the split; the whole row by default.
        column_types, encoding, delimiter: see `CsvSource`.

    Raises:
        DataError: the data cannot be used; names file, line and column.
    """

    NAME = "ExampleGen"
    LIBRARIES = ("pyarrow",)

    input: Parameter[Optional[str]] = None
    splits: Parameter[dict[str, float]] = DEFAULT_SPLITS
    split_key: Parameter[Optional[list[str]]] = None
    column_types: Parameter[dict[str, str]] = {}
    encoding: Parameter[str] = "utf-8"
    delimiter: Parameter[str] = ","
    examples: Output[Examples]

    def external_inputs(self) -> Sequence[Path | str]:
        return self._files()

    def run(self, inputs: Any, outputs: Any, context: Context) -> Mapping[str, Any]:
        from components.columnar.csv_source import ColumnNeedsType, CsvSource

        source = CsvSource(self._files(), self.column_types, self.encoding, self.delimiter)
        while True:
            try:
                return self._write(source, outputs.examples, context)
            except ColumnNeedsType as need:
                source.widen(need)

    def _write(self, source: Any, examples: Examples, context: Context) -> dict[str, Any]:
        from components.columnar.shards import ExamplesWriter, HashSplitter

        splitter = HashSplitter(self.splits, self.split_key)
        with ExamplesWriter(examples, list(self.splits)) as writer:
            columns: list[str] = []
            for batch in source.batches():
                columns = _checked_key(batch.schema.names, self.split_key, self.input)
                splitter.write(batch, writer)
                context.report(f"{sum(writer.rows.values()):,} rows")
            writer.check_filled(str(self.input))
        return {**writer.rows, "columns": len(columns)}

    def _files(self) -> list[Path]:
        from components.columnar.csv_source import find_files

        if not self.input:
            raise ParameterError("no data named: give --set ExampleGen.input=FILE.csv (a path or a glob)")
        return find_files(self.input)


class TfdsExampleGen(Component):
    """Reads a TensorFlow Datasets builder.

    Parameters:
        input: any TFDS name, `package.module:BuilderClass`, a folder that TFDS prepared, or a
            folder with the files that `dataset` would download.
        dataset: the TFDS name whose source files a folder given as `input` holds.
        splits: None for TFDS's own; names with TFDS slices (`{"train": "train[:90%]"}`); or names
            with relative sizes, to split all rows by a hash.
        split_key: the columns that decide the hash; the whole row by default.
        data_dir: where TFDS prepares the data; its own default if None.
    """

    NAME = "ExampleGen"
    LIBRARIES = ("pyarrow", "tensorflow-datasets", "palmerpenguins")

    input: Parameter[str]
    dataset: Parameter[Optional[str]] = None
    splits: Parameter[Optional[dict[str, Union[float, str]]]] = None
    split_key: Parameter[Optional[list[str]]] = None
    data_dir: Parameter[Optional[str]] = None
    examples: Output[Examples]

    def external_inputs(self) -> Sequence[Path | str]:
        folder = Path(self.input)
        if folder.is_dir():
            return sorted(path for path in folder.rglob("*") if path.is_file())
        module, colon, _ = self.input.partition(":")
        spec = importlib.util.find_spec(module) if colon and "." in module else None
        return [Path(spec.origin)] if spec and spec.origin else []

    def run(self, inputs: Any, outputs: Any, context: Context) -> Mapping[str, Any]:
        from components.columnar.shards import ExamplesWriter, HashSplitter
        from components.columnar.tfds_source import TfdsSource

        own_builder = ":" in self.input and not Path(self.input).exists()
        data_dir = self.data_dir
        if data_dir is None and (own_builder or Path(self.input).is_dir()):
            data_dir = str(context.work_dir / "tfds")  # no need to keep what is quickly made again
        source = TfdsSource(self.input, self.dataset, data_dir)
        splits: dict[str, Any] = self.splits or {name: name for name in source.splits}
        by_hash = all(not isinstance(share, str) for share in splits.values())
        columns: list[str] = []
        with ExamplesWriter(outputs.examples, list(splits)) as writer:
            if by_hash:
                splitter = HashSplitter(splits, self.split_key)
                for batch in source.batches("+".join(source.splits)):
                    columns = _checked_key(batch.schema.names, self.split_key, self.input)
                    splitter.write(batch, writer)
            else:
                for name, share in splits.items():
                    for batch in source.batches(str(share)):
                        columns = batch.schema.names
                        writer.write(name, batch)
                        context.report(f"{sum(writer.rows.values()):,} rows")
            writer.check_filled(self.input)
        return {**writer.rows, "columns": len(columns)}


def _checked_key(columns: Sequence[str], key: Sequence[str] | None, source: Any) -> list[str]:
    for name in key or ():
        if name not in columns:
            raise DataError(f"{source}: no column {name!r}, which ExampleGen.split_key names; "
                            f"it has {', '.join(columns)}")  # fmt: skip
    return list(columns)
