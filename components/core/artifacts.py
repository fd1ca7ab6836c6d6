"""The artifact types: which files the folder of each holds, and how to open them.

The classes are thin. They name the files and open them with the library that owns the format, imported on first use.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from kerasline.components.core import keras_files
from kerasline.components.core.errors import ArtifactError, nearest
from kerasline.components.core.file_names import file_names
from kerasline.components.core.keras_compat import source_node

if TYPE_CHECKING:
    import keras
    import pyarrow as pa
    from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2, statistics_pb2

    from kerasline.components.data.accumulators import Accumulator


class TensorForm(NamedTuple):
    """Data type and shape of a tensor of any number of rows. The shape is None if even the rank is unknown."""

    dtype: str
    shape: tuple[int | None, ...] | None

    def as_json(self) -> dict[str, Any]:
        return {"dtype": self.dtype, "shape": None if self.shape is None else list(self.shape)}

    @staticmethod
    def by_name(described: Mapping[str, Any] | None) -> dict[str, TensorForm]:
        """Return the forms that JSON describes, by name. None describes none."""
        return {
            name: TensorForm(one["dtype"], None if one["shape"] is None else tuple(one["shape"]))
            for name, one in (described or {}).items()
        }


class Artifact:
    """A folder whose content has a known type.

    Args:
        path: the folder.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r})"

    def file(self, name: str) -> Path:
        """Return the path of a file of the artifact.

        Raises:
            ArtifactError: the file is missing.
        """
        path = self.path / name
        if not path.exists():
            raise ArtifactError(f"{self.path}: incomplete {type(self).__name__}, {name} is missing")
        return path

    def read_json(self, name: str) -> Any:
        return json.loads(self.file(name).read_text(encoding="utf-8"))

    def write_json(self, name: str, value: Any) -> None:
        text = json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n"
        (self.path / name).write_text(text, encoding="utf-8")


class Examples(Artifact):
    """Rows in named splits, stored as columnar shards.

    `examples.json` lists the splits, in order, and their shards with the numbers of rows::

        {"splits": {"train": [{"path": "train/00000.parquet", "rows": 60000}], ...},
         "rows_read": 70000, "quarantined": 0}

    `quarantine.jsonl` holds the rejected rows, if any (see `Quarantine`).

    Shards are Parquet files (Zstandard) with the same Arrow schema. A column holds numbers, strings, bytes, lists of
    these, or tensors of fixed shape (Arrow's `fixed_shape_tensor`). The metadata of an integer column of class indices
    may have `class_names`, a JSON list.
    """

    MANIFEST = "examples.json"
    QUARANTINE = "quarantine.jsonl"

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self._manifest["splits"])

    def rows(self, split: str) -> int:
        return sum(shard["rows"] for shard in self._shards(split))

    def shards(self, split: str) -> list[Path]:
        """Return the Parquet files of a split, in order.

        Raises:
            ArtifactError: there is no such split.
        """
        return [self.path / shard["path"] for shard in self._shards(split)]

    def whole_shards(self, split: str) -> list[Path]:
        """Return the Parquet files of a split after checking their numbers of rows against `examples.json`.

        Raises:
            ArtifactError: a shard has another number of rows.
        """
        import pyarrow.parquet as pq

        for shard in self._shards(split):
            held = pq.read_metadata(self.file(shard["path"])).num_rows
            if held != shard["rows"]:
                raise ArtifactError(f"{self.path}: {shard['path']} has {held} rows, expected {shard['rows']}")
        return self.shards(split)

    def schema(self) -> pa.Schema:
        """Return the Arrow schema of the shards."""
        import pyarrow.parquet as pq

        for split in self.splits:
            for shard in self.shards(split):
                return pq.read_schema(shard)
        raise ArtifactError(f"{self.path}: no split has a shard")

    @property
    def spellings(self) -> dict[str, str]:
        """An example of the text in the source for each column of numbers or booleans that does not show its text.

        For example `{"zip": "01234"}` if ZIP codes are read as integers.
        """
        return self._manifest.get("spellings", {})

    def class_names(self, column: str) -> list[str] | None:
        """Return the class names of an integer column of class indices, or None if the source had none."""
        schema = self.schema()
        if column not in schema.names:
            return None
        names = (schema.field(column).metadata or {}).get(b"class_names")
        return json.loads(names) if names else None

    def read(self, split: str, columns: Sequence[str] | None = None) -> pa.Table:
        """Read a whole split into memory. For data that may be large, use `batches`."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        columns = None if columns is None else list(columns)
        tables = [pq.read_table(shard, columns=columns) for shard in self.shards(split)]
        return pa.concat_tables(tables)

    def batches(self, split: str, columns: Sequence[str] | None = None, rows: int = 65536) -> Iterator[pa.RecordBatch]:
        """Yield the rows of a split, in order, in batches of at most `rows`."""
        import pyarrow.parquet as pq

        columns = None if columns is None else list(columns)
        for shard in self.whole_shards(split):
            with pq.ParquetFile(shard) as file:
                yield from file.iter_batches(batch_size=rows, columns=columns)

    def digest(self) -> str:
        """Return a SHA-256 over the splits and the footers of the shards, which hold sizes, counts and extremes."""
        digest = hashlib.sha256(json.dumps(self._manifest["splits"], sort_keys=True).encode())
        for split in self.splits:
            for shard in self.shards(split):
                with shard.open("rb") as file:
                    file.seek(-8, 2)
                    length = int.from_bytes(file.read(4), "little")
                    file.seek(-8 - length, 2)
                    digest.update(file.read(length))
        return digest.hexdigest()

    @property
    def _manifest(self) -> dict[str, Any]:
        return self.read_json(self.MANIFEST)

    def _shards(self, split: str) -> list[dict[str, Any]]:
        splits = self._manifest["splits"]
        if split not in splits:
            raise ArtifactError(f"{self.path}: no split {split!r}; {nearest(split, splits)}")
        return splits[split]


class Statistics(Artifact):
    """Statistics of every feature of every split.

    `statistics.pb` is a serialised tensorflow-metadata `DatasetFeatureStatisticsList` with one dataset per split, as
    TFDV and Facets read it. `slices.pb` is another with one dataset per slice, named `SPLIT: COLUMN=VALUE`.
    `statistics.csv` has all of it as a table.
    """

    FILE = "statistics.pb"
    SLICES = "slices.pb"
    TABLE = "statistics.csv"

    def proto(self) -> statistics_pb2.DatasetFeatureStatisticsList:
        return self._read(self.FILE)

    def slices(self) -> statistics_pb2.DatasetFeatureStatisticsList:
        return self._read(self.SLICES)

    def write(
        self,
        splits: statistics_pb2.DatasetFeatureStatisticsList,
        slices: statistics_pb2.DatasetFeatureStatisticsList,
    ) -> None:
        for name, proto in ((self.FILE, splits), (self.SLICES, slices)):
            (self.path / name).write_bytes(proto.SerializeToString(deterministic=True))

    def _read(self, name: str) -> statistics_pb2.DatasetFeatureStatisticsList:
        from tensorflow_metadata.proto.v0 import statistics_pb2

        data = self.file(name).read_bytes()
        return statistics_pb2.DatasetFeatureStatisticsList.FromString(data)


class Schema(Artifact):
    """The expected properties of the data: `schema.pbtxt`, a tensorflow-metadata `Schema` in text format."""

    FILE = "schema.pbtxt"

    def proto(self) -> schema_pb2.Schema:
        from google.protobuf import text_format
        from tensorflow_metadata.proto.v0 import schema_pb2

        path = self.file(self.FILE)
        try:
            return text_format.Parse(path.read_text(encoding="utf-8"), schema_pb2.Schema())
        except (text_format.ParseError, UnicodeDecodeError) as error:
            raise ArtifactError(f"{path}: not a Schema in protobuf's text format: {error}") from None

    def write(self, proto: schema_pb2.Schema) -> None:
        from google.protobuf import text_format

        (self.path / self.FILE).write_text(text_format.MessageToString(proto, as_utf8=True), "utf-8")


class Anomalies(Artifact):
    """Violations of the schema: `anomalies.pbtxt`, a tensorflow-metadata `Anomalies`.

    `anomalies.json` lists the same for people. Each entry has `split`, `feature`, `kind`, `seen` (the observed value),
    `fix`, `severity` and `rows`, some of the rows that cause it. `distances.json` lists all measured skew and drift,
    also below the thresholds.
    """

    FILE = "anomalies.pbtxt"
    REPORT = "anomalies.json"
    DISTANCES = "distances.json"

    def proto(self) -> anomalies_pb2.Anomalies:
        from google.protobuf import text_format
        from tensorflow_metadata.proto.v0 import anomalies_pb2

        return text_format.Parse(self.file(self.FILE).read_text(encoding="utf-8"), anomalies_pb2.Anomalies())

    def write(self, proto: anomalies_pb2.Anomalies) -> None:
        from google.protobuf import text_format

        (self.path / self.FILE).write_text(text_format.MessageToString(proto, as_utf8=True), "utf-8")


class Preprocessing(Artifact):
    """Adapted preprocessing: a Keras model from raw features to model inputs and label.

    `preprocessing.keras` is the model. Its inputs and outputs are dicts by name.
    `preprocessing.json` holds `label` (name of the output or raw column to learn, a list of names, or null),
    `sample_weight` (a name or null), `features` (the outputs that the model receives), `label_specs` (dtype and shape
    of a row of each label and of the weight, by name), `class_names` (a list, a dict by label, or null), `inputs` and
    `outputs` (data type and shape by name), `served_inputs` (names of the inputs that features depend on) and `state`,
    an entry for each adapted layer.
    `state/` holds the same state for people: vocabularies as text files with a value, a tab and its count per line,
    numbers as JSON.
    `packed` is the packing of the stored rows (`preprocessing.packing.Packing` as a dict), or null.
    `augmentation.keras` is optional, as `augmented` states: a model from outputs to those that training receives.
    `materialized/` is optional. It holds the preprocessed rows as an Examples artifact. Its manifest has the digest of
    the examples that they were computed from.
    """

    FILE = "preprocessing.keras"
    FACTS = "preprocessing.json"
    MATERIALIZED = "materialized"
    AUGMENTATION = "augmentation.keras"

    @property
    def facts(self) -> dict[str, Any]:
        return self.read_json(self.FACTS)

    def save(self, model: keras.Model) -> None:
        """Write `preprocessing.keras` and its record, see `keras_files`."""
        keras_files.save(model, self.path / self.FILE)

    def load(self) -> keras.Model:
        """Load the whole model, including the label if the model computes it."""
        return keras_files.load(self.file(self.FILE))

    @property
    def inputs(self) -> dict[str, TensorForm]:
        """The raw columns that the model takes, without loading it."""
        return TensorForm.by_name(self.facts.get("inputs"))

    @property
    def served_inputs(self) -> dict[str, TensorForm]:
        """The raw columns that the features depend on. The served model takes these."""
        facts = self.facts
        served = set(facts.get("served_inputs", ()))
        return {name: form for name, form in TensorForm.by_name(facts.get("inputs")).items() if name in served}

    @property
    def outputs(self) -> dict[str, TensorForm]:
        """What the model returns, without loading it: features, and labels and weight that it computes."""
        return TensorForm.by_name(self.facts.get("outputs"))

    @property
    def labels(self) -> list[str]:
        """The outputs or raw columns to learn."""
        label = self.facts["label"]
        return [] if label is None else [label] if isinstance(label, str) else label

    @property
    def features(self) -> list[str]:
        """The outputs that the model receives."""
        return self.facts["features"]

    @property
    def label_specs(self) -> dict[str, keras.KerasTensor]:
        """Symbolic tensors (rows, ...) of the labels and of the weight, by name."""
        import keras

        specs = self.facts["label_specs"].items()
        return {name: keras.KerasTensor((None, *spec["shape"]), spec["dtype"]) for name, spec in specs}

    def load_features(self) -> keras.Model:
        """Load the part for serving: the features, and only the raw columns that they depend on."""
        return part_of(self.load(), self.features)

    def load_augmentation(self) -> keras.Model | None:
        """Load the model that changes outputs at random in training, by name, or None."""
        return keras_files.load(self.file(self.AUGMENTATION)) if self.facts.get("augmented") else None

    def materialized(self, examples: Examples) -> Examples | None:
        """Return the stored preprocessed rows of these examples, or None if there are none."""
        stored = Examples(self.path / self.MATERIALIZED)
        if not (stored.path / Examples.MANIFEST).exists():
            return None
        return stored if stored.read_json(Examples.MANIFEST)["made_from"] == examples.digest() else None

    def write_states(
        self, states: Mapping[str, Accumulator], initial: Preprocessing | None = None
    ) -> list[dict[str, Any]]:
        """Write the state of adapted layers for people, or copy that of an earlier preprocessing.

        Returns:
            A dict for each layer with `layer`, `kind` and `file`. A vocabulary adds `values`, its size, and
            `too_low_by`, the maximum error of its counts. Numeric state adds its values.
        """
        if initial is not None and (initial.path / "state").exists():  # a preset has none
            shutil.copytree(initial.file("state"), self.path / "state")
            return initial.facts["state"]
        (self.path / "state").mkdir()
        return [self._write_state(name, file, states[name]) for name, file in file_names(states).items()]

    def _write_state(self, layer: str, name: str, state: Accumulator) -> dict[str, Any]:
        readable = state.readable()
        entry = {"layer": layer, "kind": type(state).__name__}
        if isinstance(readable, dict):
            file = f"state/{name}.json"
            self.write_json(file, readable)
            brief = {key: value for key, value in readable.items() if len(str(value)) <= 100}
            return {**entry, "file": file, **brief}
        file = f"state/{name}.txt"
        lines = "".join(f"{_one_line_text(value)}\t{count}\n" for value, count in readable)
        (self.path / file).write_text(lines, encoding="utf-8")
        return {**entry, "file": file, "values": len(readable), "too_low_by": getattr(state, "error", 0)}


class Model(Artifact):
    """A Keras model, untrained or trained: `model.keras`, and `summary.json` with its outputs, size and costs.

    An untrained model has `graph.svg`, a drawing of its layers. A trained model has the state of its optimizer, and
    `training.json`: device, precision, speed and duration of its training. If some of its weights were frozen, the
    others are alone in `trained.h5`, and low-rank updates apart from the kernels that contain them in `model.keras`.
    An earlier model may also be the path of a `.keras` file, or the folder of a KerasHub preset.
    """

    FILE = "model.keras"
    TRAINED = "trained.h5"

    @property
    def summary(self) -> dict[str, Any]:
        """Outputs, size and costs, see `kerasline.components.models.summary`. Empty if there is no `summary.json`."""
        return self.read_json("summary.json") if (self.path / "summary.json").exists() else {}

    def save(self, model: keras.Model) -> None:
        """Write `model.keras` and its record, see `keras_files`."""
        keras_files.save(model, self.path / self.FILE)

    @property
    def outputs(self) -> dict[str, TensorForm]:
        """What the model returns, by name, without loading it. Empty if it is unknown."""
        return TensorForm.by_name(self.summary.get("outputs"))

    def load(self, *, optimizer: bool = False) -> keras.Model:
        """Load the model, compiled. The state of its optimizer is only loaded on request."""
        return keras_files.load(self.path if self.path.is_file() else self.file(self.FILE), optimizer=optimizer)


class Hyperparameters(Artifact):
    """The best hyperparameters of a search: `hyperparameters.json`.

    `{"hyperparameters": {name: value}, "trainer": {parameter: value}, "objective", "value", "trial"}`
    """

    FILE = "hyperparameters.json"

    @property
    def values(self) -> dict[str, Any]:
        """Hyperparameters for ModelBuilder."""
        return self.read_json(self.FILE)["hyperparameters"]

    @property
    def trainer(self) -> dict[str, Any]:
        """Parameters for Trainer."""
        return self.read_json(self.FILE)["trainer"]


class Evaluation(Artifact):
    """The quality of a model, see docs/EVALUATION.md.

    `metrics.json` has all results, `metrics.parquet` the values as a table with a row per metric, slice and output, and
    `predictions/` the prediction for each row, as Parquet.
    """

    FILE = "metrics.json"
    TABLE = "metrics.parquet"


class Blessing(Artifact):
    """Whether a model may be deployed: `blessing.json`.

    `{"blessed": bool, "rules": [{"rule", "output", "metric", "slicing", "slice", "kind", "bound", "confidence",
    "value", "low", "high", "measured": bool, "kept": bool, "why"}]}`. `kind` is one of Evaluator's bounds
    (docs/EVALUATION.md). A rule that is not measured had nothing to be compared with.
    """

    FILE = "blessing.json"

    @property
    def blessed(self) -> bool:
        return self.read_json(self.FILE)["blessed"]

    def refusals(self) -> list[str]:
        """Return a short sentence for each violated rule."""
        return [rule["why"] for rule in self.read_json(self.FILE)["rules"] if not rule["kept"]]

    def unmeasured(self) -> list[str]:
        """Return a short sentence for each rule that nothing could be compared with and that passed nevertheless."""
        rules = self.read_json(self.FILE)["rules"]
        return [f"{rule['rule']} ({rule['why']})" for rule in rules if rule["kept"] and not rule.get("measured", True)]


class InfraValidation(Artifact):
    """The result of testing a model behind a real server: `validation.json`, and `server.log`, the end of its log.

    `{"version", "blessed", "may_be_transient", "server", "checks", "requests", "largest_difference", "latency",
    "problems", "left_out", "notes", "ending", "log"}`; docs/VALIDATING.md describes each entry.
    """

    FILE = "validation.json"
    LOG = "server.log"


class Explanation(Artifact):
    """Explanations of a model's predictions: `explanation.json`, and images and sounds in `worst/`.

    `{"version", "split", "rows", "sampled", "seed", "output", "permutation", "integrated_gradients",
    "partial_dependence", "worst"}`; docs/EXPLAINING.md describes each entry.
    """

    FILE = "explanation.json"


class SavedModel(Artifact):
    """A TensorFlow SavedModel. `tf.saved_model.load` and model servers open the folder itself.

    `kerasline.json` describes inputs, outputs and origin, and has the SHA-256 of each other file. See docs/EXPORT.md.
    """

    MANIFEST = "kerasline.json"

    @property
    def manifest(self) -> dict[str, Any]:
        """The content of `kerasline.json`. Empty if another program wrote the SavedModel."""
        return self.read_json(self.MANIFEST) if (self.path / self.MANIFEST).exists() else {}

    @property
    def inputs(self) -> dict[str, TensorForm]:
        """The columns that the model takes, without loading it. Empty if another program wrote it."""
        return TensorForm.by_name(self.manifest.get("inputs"))

    @property
    def outputs(self) -> list[str]:
        """The names of the outputs, without loading the model. Empty if another program wrote it."""
        return self.manifest.get("outputs", [])


class ModelForms(Artifact):
    """The same model in other formats: a folder each, and `forms.json` with their sizes, latencies and metrics.

    `{"split", "rows", "reference": {...}, "forms": [{"name", "state": "written|refused", "why", "takes":
    "raw|preprocessed", "megabytes", "latency_ms": {rows: ms}, "largest_difference", "metrics": [...]}]}`
    """

    FILE = "forms.json"

    def form(self, name: str) -> Path:
        """Return the folder of a form.

        Raises:
            ArtifactError: there is no form of that name.
        """
        written = [form["name"] for form in self.read_json(self.FILE)["forms"] if form["state"] == "written"]
        if name not in written:
            raise ArtifactError(f"{self.path}: no form {name!r}; {nearest(name, written)}")
        return self.path / name


class Predictions(Examples):
    """The predictions of a model: Examples whose columns are the model's outputs and the input columns kept."""


class PushedModel(Artifact):
    """The place a model was pushed to: `pushed.json` with `destination`, `version` and `path`."""

    FILE = "pushed.json"


class Report(Artifact):
    """Files for people: text, tables, images."""


def _one_line_text(value: Any) -> str:
    """Return a vocabulary value without line breaks or other unprintable characters."""
    text = str(value)
    return text if text.isprintable() else text.encode("unicode_escape").decode()


def part_of(model: keras.Model, names: Iterable[str]) -> keras.Model:
    """Return the part of a functional model that computes the named outputs from the inputs that they depend on."""
    import keras

    outputs = {name: model.output[name] for name in names}
    return keras.Model(needed_inputs(model.input, outputs), outputs)


def needed_inputs(inputs: dict[str, Any], outputs: dict[str, Any]) -> dict[str, Any]:
    """Return the inputs of a functional model that the given outputs depend on."""
    reached: set[int] = set()
    waiting = list(outputs.values())
    while waiting:
        tensor = waiting.pop()
        if id(tensor) not in reached:
            reached.add(id(tensor))
            waiting.extend(source_node(tensor).input_tensors)
    return {name: tensor for name, tensor in inputs.items() if id(tensor) in reached}
