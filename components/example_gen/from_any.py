"""AnyExampleGen: reads what its input names: a file of rows, a folder of media, or a TensorFlow Datasets name."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kerasline.components.core.component import Context, Parameters
from kerasline.components.core.errors import DataError
from kerasline.components.core.parameters import PositiveInt
from kerasline.components.example_gen.component import ExampleGen
from kerasline.components.example_gen.from_files import (
    AvroExampleGen,
    CsvExampleGen,
    FileExampleGenSettings,
    JsonExampleGen,
    ParquetExampleGen,
    TfRecordExampleGen,
)
from kerasline.components.example_gen.from_media import MediaExampleGen
from kerasline.components.example_gen.from_tfds import TfdsExampleGen

KINDS: dict[str, type[ExampleGen]] = {
    ".csv": CsvExampleGen,
    ".tsv": CsvExampleGen,
    ".parquet": ParquetExampleGen,
    ".json": JsonExampleGen,
    ".jsonl": JsonExampleGen,
    ".tfrecord": TfRecordExampleGen,
    ".avro": AvroExampleGen,
}


@dataclass(frozen=True, kw_only=True)
class AnyExampleGenSettings(FileExampleGenSettings):
    """The parameters of AnyExampleGen, which documents them."""

    input: str
    encoding: str = "utf-8"
    delimiter: str | None = None
    quote: str = '"'
    column_names: list[str] | None = None
    null_values: list[str] = field(default_factory=list)
    data_dir: str | None = None
    labels: str | None = None
    sample_rate: PositiveInt | None = None
    channels: PositiveInt | None = None


class AnyExampleGen(ExampleGen):
    """Reads what `input` names: files of rows, a folder of images or sound, or a TensorFlow Datasets builder.

    So a pipeline can name a public dataset, and a run other data: `--set ExampleGen.input=reviews.csv`. Files end with
    .csv, .tsv, .parquet, .json or .jsonl (JSON Lines), .tfrecord or .avro. The suffix of a compression may follow.
    Classes of TensorFlow Datasets are texts, as in files.

    Args:
        input: a path or a glob as of `FileExampleGen`, a folder as of `MediaExampleGen`, or a builder or a folder that
            TFDS prepared, as of `TfdsExampleGen`.
        splits, split_by, split_key, stratify, rows, columns: see `ExampleGen`.
        span, bad_rows, column_types: see `FileExampleGen`. Not for TensorFlow Datasets.
        encoding, quote, column_names, null_values: see `CsvExampleGen`. Only for .csv and .tsv.
        delimiter: likewise. Defaults to None, a comma for .csv and a tab for .tsv.
        data_dir: see `TfdsExampleGen`.
        labels: see `MediaExampleGen`. Only for a folder.
        sample_rate, channels: of sound, see `MediaExampleGen`.

    Raises:
        DataError: the data cannot be used, or the ending of an existing file is unknown.

    Example:

    >>> _ = (folder / "texts.tsv").write_text("en\\tfr\\nHello\\tBonjour\\n")
    >>> columns = {"source": "en", "target": "fr"}
    >>> done = kl.AnyExampleGen(str(folder / "texts.tsv"), splits={"train": 1}, columns=columns).execute(folder / "out")
    >>> done.examples.read("train").to_pylist()
    [{'source': 'Hello', 'target': 'Bonjour'}]
    """

    VERSION = "3"
    LIBRARIES = (*AvroExampleGen.LIBRARIES, *TfdsExampleGen.LIBRARIES[1:], "pillow")

    settings: Parameters[AnyExampleGenSettings]

    def external_inputs(self) -> Sequence[Path | str]:
        return self._reader.external_inputs()

    @property
    def imported_alone(self) -> Sequence[str]:
        return self._reader.imported_alone

    @property
    def declared_splits(self) -> Sequence[str]:
        return self._reader.declared_splits

    def check(self, inputs: Any) -> None:
        super().check(inputs)
        self._reader.check(inputs)

    def run(self, inputs: Any, outputs: Any, context: Context) -> Mapping[str, Any]:
        return self._reader.run(inputs, outputs, context)

    def _set(self, values: Mapping[str, Any]) -> None:
        super()._set(values)
        vars(self).pop("_reader", None)

    @functools.cached_property
    def _reader(self) -> ExampleGen:
        """The ExampleGen of the kind of `input`, with the parameters that it has."""
        places = [self.settings.input]
        if self.settings.splits_are_locations:
            places += map(str, self.settings.splits.values())
        ending = next((found for found in map(_ending, places) if found in KINDS), "")
        if not ending and Path(self.settings.input).is_file():
            expected = f"expected a file that ends with {', '.join(KINDS)}"
            raise DataError(f"ExampleGen.input: {expected}, received {self.settings.input}")
        kind = KINDS.get(ending) or (MediaExampleGen if _is_media_folder(Path(self.settings.input)) else TfdsExampleGen)
        parameters = {name: value for name, value in self.parameters.items() if name in kind.spec().parameters}
        if kind is TfdsExampleGen:
            parameters["class_texts"] = True
        if kind is CsvExampleGen and parameters["delimiter"] is None:
            parameters["delimiter"] = "\t" if ending == ".tsv" else ","
        return kind(**parameters, name=self.name)


def _is_media_folder(path: Path) -> bool:
    """Return whether a path is a folder that TFDS has not prepared."""
    return path.is_dir() and not any(path.rglob("dataset_info.json"))


def _ending(place: str) -> str:
    """Return the ending of a path or glob in lower case, without the suffix of a compression."""
    from kerasline.components.data.sources.compressed_files import compression_of

    path = Path(place)
    return Path(path.stem if compression_of(path) else path).suffix.lower()
