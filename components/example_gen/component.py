"""ExampleGen: data from outside becomes Examples, split and in columns."""

from __future__ import annotations

import importlib.util
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from kerasline.components.core.artifacts import Examples
from kerasline.components.core.component import Component, Context, Output, Parameter
from kerasline.components.core.errors import DataError, ParameterError

DEFAULT_SPLITS = {"train": 8, "eval": 1, "test": 1}

if TYPE_CHECKING:
    from kerasline.components.data.sources.files import Found

# A part of the data, in its source's own terms, and the split that it is; None if rows are to be
# split one by one.
Parts = Sequence[tuple[str | None, Any]]


class ExampleGen(Component):
    """What all kinds of ExampleGen share: splitting, bad rows, and the books.

    Parameters:
        input: where the data comes from, as the class says.
        splits: relative sizes by name (`{"train": 8, "eval": 1}`), or where each split is in the
            source (`{"train": "train/*.csv", "eval": "eval.csv"}`), as the class says.
        split_by: how rows are split: `hash` (the same row always lands in the same split), `ratio`
            (dealt out in turn, to the exact shares) or `column` (that names the split).
        split_key: the columns that are hashed, all by default; or the one that names the split.

    Every row that was read is written or, where bad rows may be, set aside; the stage checks it.
    """

    NAME = "ExampleGen"
    LIBRARIES = ("pyarrow",)

    input: Parameter[Any]
    splits: Parameter[dict[str, float | str]] = DEFAULT_SPLITS
    split_by: Parameter[Literal["hash", "ratio", "column"]] = "hash"
    split_key: Parameter[list[str] | None] = None
    examples: Output[Examples]

    def _source(self, quarantine: Any, context: Context) -> Any:
        """What reads the data; see `kerasline.components.data.sources.Source`."""
        raise NotImplementedError

    def _parts(self, source: Any) -> Parts:
        """What to read of it."""
        raise NotImplementedError

    @property
    def _divides(self) -> bool:
        """Whether the source's parts can be read in pieces; see `DivisibleSource`."""
        return False

    def _pieces(self, source: Any, part: Any) -> Sequence[Any]:
        return source.pieces(part) if self._divides else [part]

    def _quarantine_file(self, examples: Examples) -> Path | None:
        """Where bad rows are set aside; None if they are an error."""
        return None

    def run(self, inputs: Any, outputs: Any, context: Context) -> Mapping[str, Any]:
        from kerasline.components.data.quarantine import Quarantine
        from kerasline.components.data.sources import ReadAgain

        self._check_splits()
        quarantine = Quarantine(self._quarantine_file(outputs.examples))
        source = self._source(quarantine, context)
        parts = self._parts(source)
        try:
            while True:
                quarantine.restart()
                try:
                    return self._write(parts, source, quarantine, outputs.examples, context)
                except ReadAgain:
                    continue
        finally:
            quarantine.close()

    def _write(
        self, parts: Parts, source: Any, quarantine: Any, examples: Examples, context: Context
    ) -> dict[str, Any]:
        from kerasline.components.data.beam_runners import runs_here
        from kerasline.components.data.shards import ExamplesWriter
        from kerasline.components.example_gen.reading import Splits, read_here, read_on_engine

        before = source.rows_read
        names = list(dict.fromkeys(name for name, _ in parts)) if parts[0][0] else list(self.splits)
        shares = {name: share for name, share in self.splits.items() if not isinstance(share, str)}
        splits = Splits(names, self.split_by, shares, self.split_key, self._told())
        divided = [(name, self._pieces(source, part)) for name, part in parts]
        pieces = [(name, piece) for name, several in divided for piece in several]
        with ExamplesWriter(examples, names) as writer:
            if self._divides and len(pieces) > 1 and not runs_here(context.beam_options):
                columns = read_on_engine(pieces, source, splits, writer, context)
            else:
                columns = read_here(divided, source, splits, writer, context.report)
            read = source.rows_read - before
            writer.check_whole(read, quarantine.rows)
            writer.check_filled(self._told())
            writer.facts = {"rows_read": read, "quarantined": quarantine.rows}
        metrics = {**writer.rows, "columns": columns}
        return {**metrics, "quarantined": quarantine.rows} if quarantine.rows else metrics

    def _told(self) -> str:
        """What to call the data in messages."""
        return str(self.input or "the data")

    def _check_splits(self) -> None:
        located = [isinstance(share, str) for share in self.splits.values()]
        if not located or any(located) != all(located):
            raise ParameterError("ExampleGen.splits: give either a size or a place for every split")
        if not any(located) and not all(share > 0 for share in self.splits.values()):
            raise ParameterError(f"ExampleGen.splits: {self.splits}: sizes are positive numbers")
        if self.split_by == "column" and len(self.split_key or ()) != 1:
            raise ParameterError("ExampleGen.split_key: one column is wanted, which names the split")

    @property
    def _located(self) -> bool:
        return all(isinstance(share, str) for share in self.splits.values())


class FileExampleGen(ExampleGen):
    """What the kinds that read files share.

    Parameters:
        input: a path, a glob, or a pattern with `{SPAN}` or `{YYYY}-{MM}-{DD}`, and `{VERSION}`.
            Where `splits` names places, they are paths or globs, below `input` if that is given.
        span: which spans: the newest by default, `7`, `3:7`, `2026-11-01:2026-11-07`, `last 5`.
        bad_rows: `fail`, or `quarantine`: rows that cannot be used go to the artifact's
            `quarantine.jsonl` with their place and reason.

    Raises:
        DataError: the data cannot be used; names file, position and column.
    """

    input: Parameter[str | None] = None
    span: Parameter[str | None] = None
    bad_rows: Parameter[Literal["fail", "quarantine"]] = "fail"

    def external_inputs(self) -> Sequence[Path | str]:
        return [path for _, found in self._found() for path in found.files]

    def run(self, inputs: Any, outputs: Any, context: Context) -> Mapping[str, Any]:
        metrics = super().run(inputs, outputs, context)
        spans = dict.fromkeys(span for _, found in self._found() for span in found.spans)
        return {**metrics, "spans": ", ".join(spans)} if spans else metrics

    def _parts(self, source: Any) -> Parts:
        return [(name, files) for name, found in self._found() for files in found.by_span.values()]

    @property
    def _divides(self) -> bool:
        # Bad rows are set aside in one file, and rows dealt out in turn from the first to the last.
        return self.bad_rows == "fail" and (self._located or self.split_by != "ratio")

    def _quarantine_file(self, examples: Examples) -> Path | None:
        return examples.path / Examples.QUARANTINE if self.bad_rows == "quarantine" else None

    def _found(self) -> list[tuple[str | None, Found]]:
        from kerasline.components.data.sources.files import find_files

        return [(name, find_files(pattern, self.span)) for name, pattern in self._patterns()]

    def _patterns(self) -> list[tuple[str | None, str]]:
        if self._located:
            folder = Path(self.input or "")
            return [(name, str(folder / str(place))) for name, place in self.splits.items()]
        if not self.input:
            raise ParameterError("no data named: give --set ExampleGen.input=FILE (a path or a glob)")
        return [(None, self.input)]


class CsvExampleGen(FileExampleGen):
    """Reads CSV files; compressed ones (.gz, .bz2, .zst, .lz4) by their ending.

    Parameters:
        column_types: types by column, where what is inferred does not do (`{"zip": "string"}`).
        encoding: of the text, such as `utf-8` or `latin-1`.
        delimiter: one character.
    """

    column_types: Parameter[dict[str, str]] = {}
    encoding: Parameter[str] = "utf-8"
    delimiter: Parameter[str] = ","

    def _source(self, quarantine: Any, context: Context) -> Any:
        from kerasline.components.data.sources.csv_files import CsvSource
        from kerasline.components.data.sources.csv_lenient import LenientCsvSource

        how = (self.column_types, self.encoding, self.delimiter)
        return LenientCsvSource(*how, quarantine) if quarantine.keeps else CsvSource(*how)


class ParquetExampleGen(FileExampleGen):
    """Reads Parquet files, nested columns as `outer.inner`."""

    def _source(self, quarantine: Any, context: Context) -> Any:
        from kerasline.components.data.sources.parquet_files import ParquetSource

        return ParquetSource(quarantine)


class TfRecordExampleGen(FileExampleGen):
    """Reads TFRecord files of tf.Example, as TFX's stages write them; compressed ones too."""

    def _source(self, quarantine: Any, context: Context) -> Any:
        from kerasline.components.data.sources.tfrecord import TfRecordSource

        return TfRecordSource(quarantine)


class JsonExampleGen(FileExampleGen):
    """Reads JSON Lines files, objects in objects as columns `outer.inner`, arrays as lists."""

    def _source(self, quarantine: Any, context: Context) -> Any:
        from kerasline.components.data.sources.json_lines import JsonSource

        return JsonSource(quarantine)


class MediaExampleGen(ExampleGen):
    """Reads a folder of images or audio: a row a file with `path`, `content` and its labels.

    Parameters:
        input: the folder. Where `splits` names places, they are folders in it.
        labels: a CSV file whose first column holds paths within the folder, or file names, and
            whose other columns are labels; by default the `label` is the file's folder.
        bad_rows: as for other files: what is neither image nor audio, and what has no label.
    """

    LIBRARIES = ("pyarrow", "pillow")

    input: Parameter[str]
    labels: Parameter[str | None] = None
    bad_rows: Parameter[Literal["fail", "quarantine"]] = "fail"

    def external_inputs(self) -> Sequence[Path | str]:
        labels = [Path(self.labels)] if self.labels else []
        return [*labels, *(path for _, (_, files) in self._parts(None) for path in files)]

    def _source(self, quarantine: Any, context: Context) -> Any:
        from kerasline.components.data.sources.media_files import MediaSource

        return MediaSource(Path(self.labels) if self.labels else None, quarantine)

    def _parts(self, source: Any) -> Parts:
        from kerasline.components.data.sources.media_files import media_files

        places = dict(self.splits) if self._located else {None: ""}
        found = []
        for name, place in places.items():
            folder = Path(self.input, str(place))
            files = media_files(folder) if folder.is_dir() else []
            if not files:
                raise DataError(f"{folder}: no such folder, or no files in it; see ExampleGen.input")
            found.append((name, (folder, files)))
        return found

    def _quarantine_file(self, examples: Examples) -> Path | None:
        return examples.path / Examples.QUARANTINE if self.bad_rows == "quarantine" else None


class SqlExampleGen(ExampleGen):
    """Reads what a SQL query gives. What a server's database holds is read anew at each run; where
    it has not changed, the stages after it stay cached.

    Parameters:
        input: the database, as SQLAlchemy's URL (`sqlite:///trips.db`).
        query: what to read, in an order of its own (`ORDER BY`) if runs are to be repeatable.
            Where `splits` names places, they are queries, and this is not used.
    """

    LIBRARIES = ("pyarrow", "sqlalchemy")

    input: Parameter[str]
    query: Parameter[str | None] = None

    def external_inputs(self) -> Sequence[Path | str]:
        from sqlalchemy.engine import make_url
        from sqlalchemy.exc import ArgumentError

        try:
            url = make_url(self.input)
        except ArgumentError as error:
            raise ParameterError(f"ExampleGen.input: {error}") from error
        if url.get_backend_name() == "sqlite" and url.database and Path(url.database).is_file():
            return [Path(url.database)]
        return [f"read at this run: {uuid.uuid4()}"]

    def _source(self, quarantine: Any, context: Context) -> Any:
        from kerasline.components.data.sources.sql import SqlSource

        return SqlSource(self.input)

    def _parts(self, source: Any) -> Parts:
        if self._located:
            return list(self.splits.items())
        if not self.query:
            raise ParameterError("ExampleGen.query: no query given; name what to SELECT")
        return [(None, self.query)]

    def _told(self) -> str:
        return "the query"


class InMemoryExampleGen(ExampleGen):
    """Takes a table that the pipeline's file makes.

    Parameters:
        input: a DataFrame of pandas or polars, an Arrow table, a dict of columns, or a function
            without arguments that returns one of these, which is not called before it must be.
            Where `splits` names places, a dict of such tables by these names.
    """

    def external_inputs(self) -> Sequence[Path | str]:
        if callable(self.input):
            return []  # its code counts, as every function's
        return [_content_digest(self._table(part)) for _, part in self._tables()]

    def _source(self, quarantine: Any, context: Context) -> Any:
        from kerasline.components.data.sources.memory import MemorySource

        return MemorySource()

    def _parts(self, source: Any) -> Parts:
        return [(name, self._table(part)) for name, part in self._tables()]

    def _tables(self) -> list[tuple[str | None, Any]]:
        data = self.input() if callable(self.input) else self.input
        if not self._located:
            return [(None, data)]
        for place in self.splits.values():
            if not isinstance(data, Mapping) or place not in data:
                raise DataError(f"ExampleGen.input: no table {place!r}, which ExampleGen.splits names")
        return [(name, data[place]) for name, place in self.splits.items()]

    def _told(self) -> str:
        return "the table"

    @staticmethod
    def _table(data: Any) -> Any:
        from kerasline.components.data.sources.memory import as_table

        return as_table(data)


class TfdsExampleGen(ExampleGen):
    """Reads a TensorFlow Datasets builder, and prepares it first if need be, with Beam where the
    builder wants that.

    Parameters:
        input: any TFDS name, `package.module:BuilderClass`, a folder that TFDS prepared, or a
            folder with the files that `dataset` would download.
        dataset: the TFDS name whose source files a folder given as `input` holds.
        splits: empty for TFDS's own; places are TFDS slices (`{"train": "train[:90%]"}`); sizes
            split all rows of all TFDS splits.
        data_dir: where TFDS prepares the data; its own default if None.
    """

    LIBRARIES = ("pyarrow", "tensorflow-datasets", "palmerpenguins")
    IMPORTED_ALONE = ("tensorflow_datasets",)

    input: Parameter[str]
    dataset: Parameter[str | None] = None
    splits: Parameter[dict[str, float | str]] = {}
    data_dir: Parameter[str | None] = None

    def external_inputs(self) -> Sequence[Path | str]:
        folder = Path(self.input)
        if folder.is_dir():
            return sorted(path for path in folder.rglob("*") if path.is_file())
        module, colon, _ = self.input.partition(":")
        spec = importlib.util.find_spec(module) if colon and "." in module else None
        return [Path(spec.origin)] if spec and spec.origin else []

    def _source(self, quarantine: Any, context: Context) -> Any:
        from kerasline.components.data.sources.tfds import TfdsSource

        own_builder = ":" in self.input and not Path(self.input).exists()
        data_dir = self.data_dir
        if data_dir is None and (own_builder or Path(self.input).is_dir()):
            data_dir = str(context.work_dir / "tfds")  # no need to keep what is quickly made again
        return TfdsSource(self.input, self.dataset, data_dir, context.beam_options)

    def _parts(self, source: Any) -> Parts:
        if not self.splits:
            return [(name, name) for name in source.splits]
        if self._located:
            return list(self.splits.items())
        return [(None, "+".join(source.splits))]

    def _check_splits(self) -> None:
        if self.splits:
            super()._check_splits()


def _content_digest(table: Any) -> str:
    """A table's content as a text, whatever its chunks are."""
    import hashlib

    import pyarrow as pa

    digest = hashlib.sha256()

    class Sink:
        closed = False

        def write(self, data: Any) -> None:
            digest.update(data)

        def flush(self) -> None: ...

        def close(self) -> None: ...

    with pa.ipc.new_stream(pa.PythonFile(Sink(), "w"), table.schema) as writer:
        writer.write_table(table.combine_chunks())
    return f"table {digest.hexdigest()}"
