"""The ExampleGens that read files: CSV, Parquet, TFRecord, JSON Lines and Avro."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from kerasline.components.core.artifacts import Examples
from kerasline.components.core.component import Context, Parameters
from kerasline.components.core.errors import ParameterError
from kerasline.components.core.parameters import PositiveInt
from kerasline.components.example_gen.component import ExampleGen, ExampleGenSettings, Parts

if TYPE_CHECKING:
    import pyarrow as pa

    from kerasline.components.data.quarantine import Quarantine
    from kerasline.components.data.sources.file_patterns import MatchedFiles
    from kerasline.components.data.sources.media_columns import MediaColumns
    from kerasline.components.data.sources.source import Source


@dataclass(frozen=True, kw_only=True)
class FileExampleGenSettings(ExampleGenSettings):
    """The parameters of FileExampleGen, which documents them."""

    input: str | None = None
    span: str | None = None
    bad_rows: Literal["fail", "quarantine"] = "fail"
    column_types: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class BinaryFileExampleGenSettings(FileExampleGenSettings):
    """The parameters of the ExampleGens whose files hold bytes. BinaryFileExampleGen documents them."""

    media: list[str] = field(default_factory=list)
    sample_rate: PositiveInt | None = None


class FileExampleGen(ExampleGen):
    """Base class of the ExampleGens that read files.

    Args:
        input: a path, a glob, or a pattern with `{SPAN}` or `{YYYY}-{MM}-{DD}`, and `{VERSION}`. If `splits` has
            locations, they are paths or globs, relative to `input` if that is given.
        splits, split_by, split_key, stratify: see `ExampleGen`.
        span: the spans to read: the newest by default, `7`, `3:7`, `2026-11-01:2026-11-07`, `last 5`.
        bad_rows: `fail`, or `quarantine` to write rows that cannot be used to the artifact's `quarantine.jsonl`, with
            their location and the reason.
        column_types: Arrow types by column (`{"zip": "string"}`), instead of those of the data. `string` keeps numbers
            as they are spelled in a text file. `double` accepts that large integers are rounded. A column has its name
            in the data, or the one that `columns` gives it.

    Raises:
        DataError: the data cannot be used. The message names the file, the position and the column.
    """

    settings: Parameters[FileExampleGenSettings]

    def external_inputs(self) -> Sequence[Path | str]:
        return [path for _, matched in self._matched() for path in matched.files]

    def run(self, inputs: Any, outputs: Any, context: Context) -> Mapping[str, Any]:
        metrics = super().run(inputs, outputs, context)
        spans = dict.fromkeys(span for _, matched in self._matched() for span in matched.spans)
        return {**metrics, "spans": ", ".join(spans)} if spans else metrics

    def _parts(self, source: Any) -> Parts:
        return [(name, files) for name, matched in self._matched() for files in matched.by_span.values()]

    @property
    def _divisible(self) -> bool:
        # The quarantine is one file, and assigning rows in turn goes from the first row to the last.
        settings = self.settings
        return settings.bad_rows == "fail" and (settings.splits_are_locations or settings.split_by != "ratio")

    def _quarantine_file(self, examples: Examples) -> Path | None:
        return examples.path / Examples.QUARANTINE if self.settings.bad_rows == "quarantine" else None

    def _column_types(self) -> dict[str, pa.DataType]:
        from kerasline.components.data.arrow_types import types_named

        originals = self.settings.original_names or {}
        types = types_named(self.settings.column_types)
        return {name if name in originals.values() else originals.get(name, name): kind for name, kind in types.items()}

    def _matched(self) -> list[tuple[str | None, MatchedFiles]]:
        from kerasline.components.data.sources.file_patterns import find_files

        return [(name, find_files(pattern, self.settings.span)) for name, pattern in self._patterns()]

    def _patterns(self) -> list[tuple[str | None, str]]:
        settings = self.settings
        if settings.splits_are_locations:
            folder = Path(settings.input or "")
            if folder.is_file():
                raise ParameterError(
                    f"ExampleGen.splits: expected sizes, since ExampleGen.input is one file, {folder}; received "
                    f"locations: {', '.join(map(str, settings.splits.values()))}; for example "
                    """--set 'ExampleGen.splits={"train": 8, "eval": 1, "test": 1}'"""
                )
            return [(name, str(folder / str(location))) for name, location in settings.splits.items()]
        if not settings.input:
            raise ParameterError("ExampleGen.input: no data given; pass --set ExampleGen.input=FILE (a path or a glob)")
        return [(None, settings.input)]


@dataclass(frozen=True, kw_only=True)
class CsvExampleGenSettings(FileExampleGenSettings):
    """The parameters of CsvExampleGen, which documents them."""

    encoding: str = "utf-8"
    delimiter: str = ","
    quote: str = '"'
    column_names: list[str] | None = None
    null_values: list[str] = field(default_factory=list)


class CsvExampleGen(FileExampleGen):
    """Reads CSV files. Compressed files (.gz, .bz2, .zst, .lz4) are recognized by their suffix.

    Args:
        input, splits, split_by, split_key, stratify, span, bad_rows, column_types: see `FileExampleGen`.
        encoding: text encoding, such as `utf-8` or `latin-1`.
        delimiter: one character. `\\t` is a tab.
        quote: the character around fields that contain delimiters. Empty if quotes are ordinary characters.
        column_names: names of the columns, for files without a header.
        null_values: text that means a missing value in every column, such as `["NA", "?"]`. Empty fields always do, and
            NA, N/A, null and nan do in columns of numbers. In text they are values: NA is Namibia.

    Numbers, `true` and `false` are recognized, and the values of other columns are text. A column whose text is needed
    as it stands in the file, such as ZIP codes with leading zeros, must be declared: `column_types={"zip": "string"}`.
    Transform refuses a string input that reads it otherwise.

    Example:

    >>> _ = (folder / "trips.csv").write_text("miles,fare\\n1.5,7\\n3.0,12\\n")
    >>> done = kl.CsvExampleGen(str(folder / "trips.csv"), splits={"train": 1}).execute(folder / "out")
    >>> done.examples.read("train").to_pydict()
    {'miles': [1.5, 3.0], 'fare': [7, 12]}
    """

    settings: Parameters[CsvExampleGenSettings]

    def _source(self, quarantine: Quarantine, context: Context) -> Source:
        from kerasline.components.data.sources.csv_files import CsvSource
        from kerasline.components.data.sources.csv_format import CsvFormat
        from kerasline.components.data.sources.csv_lenient import LenientCsvSource

        settings = self.settings
        delimiter = settings.delimiter.replace("\\t", "\t")
        for name, value, lengths in (("delimiter", delimiter, (1,)), ("quote", settings.quote, (0, 1))):
            if len(value) not in lengths or not value.isascii():
                expected = "one ASCII character" + (" or none" if 0 in lengths else "")
                raise ParameterError(f"ExampleGen.{name}: expected {expected}, received {value!r}")
        names = settings.column_names
        form = CsvFormat(settings.encoding, delimiter, settings.quote, names, settings.null_values)
        if quarantine.enabled:
            return LenientCsvSource(self._column_types(), form, quarantine)
        return CsvSource(self._column_types(), form)


class BinaryFileExampleGen(FileExampleGen):
    """Base class of the ExampleGens whose files hold bytes, such as images and sound.

    Args:
        media: columns of images or sound, or of lists of these. Every one is decoded, as by `MediaExampleGen`: damaged
            ones, and formats that training does not decode, are bad rows, and sound becomes 16-bit WAV. Defaults to
            none, because only training knows which bytes it decodes.
        sample_rate: sampling rate of all sound in `media`. Other rates are resampled. By default all must be equal.
    """

    settings: Parameters[BinaryFileExampleGenSettings]

    def check(self, inputs: Any) -> None:
        super().check(inputs)
        if self.settings.sample_rate and not self.settings.media:
            raise ParameterError("ExampleGen.sample_rate: expected the columns of sound in ExampleGen.media as well")

    def _media(self) -> MediaColumns | None:
        from kerasline.components.data.sources.media_columns import MediaColumns

        settings = self.settings
        return MediaColumns(settings.media, settings.sample_rate) if settings.media else None


class ParquetExampleGen(BinaryFileExampleGen):
    """Reads Parquet files. Nested columns become columns named `outer.inner`.

    Args:
        input, splits, split_by, split_key, stratify, span, bad_rows, column_types: see `FileExampleGen`.
        media, sample_rate: see `BinaryFileExampleGen`.

    Example:

    >>> import pyarrow.parquet
    >>> pyarrow.parquet.write_table(pyarrow.table({"x": [1, 2]}), folder / "a.parquet")
    >>> kl.ParquetExampleGen(str(folder / "*.parquet"), splits={"train": 1}).execute(folder / "out").metrics
    {'train': 2, 'columns': 1}
    """

    def _source(self, quarantine: Quarantine, context: Context) -> Source:
        from kerasline.components.data.sources.parquet_files import ParquetSource

        return ParquetSource(quarantine, self._column_types(), self._media())


class TfRecordExampleGen(BinaryFileExampleGen):
    """Reads TFRecord files of tf.Example or tf.SequenceExample, as TFX writes them. Files may be compressed.

    A feature list of a tf.SequenceExample becomes a column of lists with a list of values for each step.

    Args:
        input, splits, split_by, split_key, stratify, span, bad_rows, column_types: see `FileExampleGen`.
        media, sample_rate: see `BinaryFileExampleGen`.
    """

    def _source(self, quarantine: Quarantine, context: Context) -> Source:
        from kerasline.components.data.sources.tfrecord import TfRecordSource

        return TfRecordSource(quarantine, self._column_types(), self._media())


class JsonExampleGen(FileExampleGen):
    """Reads JSON Lines files. Nested objects become columns named `outer.inner`, arrays become lists.

    Args:
        input, splits, split_by, split_key, stratify, span, bad_rows, column_types: see `FileExampleGen`.

    Example:

    >>> _ = (folder / "a.jsonl").write_text('{"x": 1, "of": {"y": [2]}}')
    >>> done = kl.JsonExampleGen(str(folder / "a.jsonl"), splits={"train": 1}).execute(folder / "out")
    >>> done.examples.read("train").to_pydict()
    {'x': [1], 'of.y': [[2]]}
    """

    def _source(self, quarantine: Quarantine, context: Context) -> Source:
        from kerasline.components.data.sources.json_lines import JsonSource

        return JsonSource(quarantine, self._column_types())


class AvroExampleGen(BinaryFileExampleGen):
    """Reads Avro files. Records within records become columns named `outer.inner`, arrays become lists.

    Compressions other than deflate need `pip install 'kerasline[avro]'`.

    Args:
        input, splits, split_by, split_key, stratify, span, bad_rows, column_types: see `FileExampleGen`.
        media, sample_rate: see `BinaryFileExampleGen`.

    Example:

    >>> import fastavro
    >>> schema = {"type": "record", "name": "trip", "fields": [{"name": "miles", "type": ["null", "double"]}]}
    >>> with open(folder / "a.avro", "wb") as file:
    ...     fastavro.writer(file, schema, [{"miles": 1.5}, {"miles": None}])
    >>> done = kl.AvroExampleGen(str(folder / "a.avro"), splits={"train": 1}).execute(folder / "out")
    >>> done.examples.read("train").to_pydict()
    {'miles': [1.5, None]}
    """

    LIBRARIES = ("pyarrow", "fastavro")

    def _source(self, quarantine: Quarantine, context: Context) -> Source:
        from kerasline.components.data.sources.avro_files import AvroSource

        return AvroSource(quarantine, self._column_types(), self._media())
