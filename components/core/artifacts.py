"""The artifact types: what a folder of each holds, and how to open it.

An artifact is a folder and a type. The classes here are thin: they name the files, and open them
with the library that owns the format, imported only then.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kerasline.components.core.errors import ArtifactError, nearest

if TYPE_CHECKING:
    import keras
    import pyarrow as pa
    from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2, statistics_pb2

    from kerasline.components.data.accumulators import Accumulator


class Artifact:
    """A folder of a known kind.

    Args:
        path: the folder.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r})"

    def file(self, name: str) -> Path:
        """The path of a file of the artifact.

        Raises:
            ArtifactError: it is not there.
        """
        path = self.path / name
        if not path.exists():
            raise ArtifactError(f"{self.path}: not a whole {type(self).__name__}, {name} is missing")
        return path

    def read_json(self, name: str) -> Any:
        return json.loads(self.file(name).read_text(encoding="utf-8"))

    def write_json(self, name: str, value: Any) -> None:
        text = json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n"
        (self.path / name).write_text(text, encoding="utf-8")


class Examples(Artifact):
    """Rows, split into named sets, as columnar shards.

    `examples.json` lists the splits, in order, and their shards with row counts::

        {"splits": {"train": [{"path": "train/00000.parquet", "rows": 60000}], ...},
         "rows_read": 70000, "quarantined": 0}

    `quarantine.jsonl` holds the rows set aside, if there are any (see `Quarantine`).

    Shards are Parquet files (Zstandard), all of one Arrow schema. A column is a number, a string,
    bytes, a list of these, or a tensor of fixed shape (Arrow's `fixed_shape_tensor`). The metadata
    of a field may hold `class_names`, a JSON list, where an integer column counts classes.
    """

    MANIFEST = "examples.json"
    QUARANTINE = "quarantine.jsonl"

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self._manifest["splits"])

    def rows(self, split: str) -> int:
        return sum(shard["rows"] for shard in self._shards(split))

    def shards(self, split: str) -> list[Path]:
        """The Parquet files of a split, in order.

        Raises:
            ArtifactError: there is no such split.
        """
        return [self.path / shard["path"] for shard in self._shards(split)]

    def whole_shards(self, split: str) -> list[Path]:
        """The same, where each has as many rows as `examples.json` says.

        Raises:
            ArtifactError: one has not.
        """
        import pyarrow.parquet as pq

        for shard in self._shards(split):
            held = pq.read_metadata(self.file(shard["path"])).num_rows
            if held != shard["rows"]:
                raise ArtifactError(f"{self.path}: {shard['path']} has {held} rows, {shard['rows']} were written")
        return self.shards(split)

    def schema(self) -> pa.Schema:
        """The Arrow schema that all shards share."""
        import pyarrow.parquet as pq

        for split in self.splits:
            for shard in self.shards(split):
                return pq.read_schema(shard)
        raise ArtifactError(f"{self.path}: no shard in any split")

    def class_names(self, column: str) -> list[str] | None:
        """The names of the classes that an integer column counts, where the source knew them."""
        schema = self.schema()
        if column not in schema.names:
            return None
        names = (schema.field(column).metadata or {}).get(b"class_names")
        return json.loads(names) if names else None

    def read(self, split: str, columns: Sequence[str] | None = None) -> pa.Table:
        """A whole split in memory. For data known to be small; else use `batches`."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        columns = None if columns is None else list(columns)
        tables = [pq.read_table(shard, columns=columns) for shard in self.shards(split)]
        return pa.concat_tables(tables)

    def batches(self, split: str, columns: Sequence[str] | None = None, rows: int = 65536) -> Iterator[pa.RecordBatch]:
        """Batches of at most `rows` rows of a split, in order; memory stays flat."""
        import pyarrow.parquet as pq

        columns = None if columns is None else list(columns)
        for shard in self.whole_shards(split):
            with pq.ParquetFile(shard) as file:
                yield from file.iter_batches(batch_size=rows, columns=columns)

    def digest(self) -> str:
        """Tells the rows by their splits and the footers of their shards: sizes, counts, extremes."""
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

    `statistics.pb` is a serialised tensorflow-metadata `DatasetFeatureStatisticsList` with a
    dataset for each split, named after it: what TFDV and Facets read. `slices.pb` is another with
    the slices asked for, named `SPLIT: COLUMN=VALUE`. `statistics.csv` is all of it as a table.
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
    """What the data should look like: `schema.pbtxt`, a tensorflow-metadata `Schema` as text."""

    FILE = "schema.pbtxt"

    def proto(self) -> schema_pb2.Schema:
        from google.protobuf import text_format
        from tensorflow_metadata.proto.v0 import schema_pb2

        path = self.file(self.FILE)
        try:
            return text_format.Parse(path.read_text(encoding="utf-8"), schema_pb2.Schema())
        except text_format.ParseError as error:
            raise ArtifactError(f"{path}: not a Schema in protobuf's text format: {error}") from None

    def write(self, proto: schema_pb2.Schema) -> None:
        from google.protobuf import text_format

        (self.path / self.FILE).write_text(text_format.MessageToString(proto, as_utf8=True), "utf-8")


class Anomalies(Artifact):
    """Where the data breaks its schema: `anomalies.pbtxt`, a tensorflow-metadata `Anomalies`.

    `anomalies.json` lists the same for reading: a `split`, `feature`, `kind`, what was `seen`, the
    `fix` and the `severity` each.
    """

    FILE = "anomalies.pbtxt"
    REPORT = "anomalies.json"

    def proto(self) -> anomalies_pb2.Anomalies:
        from google.protobuf import text_format
        from tensorflow_metadata.proto.v0 import anomalies_pb2

        return text_format.Parse(self.file(self.FILE).read_text(encoding="utf-8"), anomalies_pb2.Anomalies())

    def write(self, proto: anomalies_pb2.Anomalies) -> None:
        from google.protobuf import text_format

        (self.path / self.FILE).write_text(text_format.MessageToString(proto, as_utf8=True), "utf-8")


class Preprocessing(Artifact):
    """Preprocessing with its state: a Keras model from raw features to model inputs and label.

    `preprocessing.keras` is the adapted model; its inputs and outputs are dicts by name.
    `preprocessing.json` holds `label` (the name of the output, or raw column, that is learned;
    a list of several, or null), `sample_weight` (likewise one, or null), `class_names` (of the label,
    or by label, or null), and `state`: a line for each adapted layer.
    `state/` holds the same state to read: vocabularies as text files, a value, a tab and its count a
    line; numbers as JSON. `materialized/`, where it was asked for, holds the preprocessed rows as an
    Examples artifact, whose manifest names the digest of what they were made from.
    """

    FILE = "preprocessing.keras"
    FACTS = "preprocessing.json"
    MATERIALIZED = "materialized"

    @property
    def facts(self) -> dict[str, Any]:
        return self.read_json(self.FACTS)

    def load(self) -> keras.Model:
        """The whole model: features and, where it is computed, the label."""
        return load_keras_model(self.file(self.FILE))

    @property
    def labels(self) -> list[str]:
        """The outputs or raw columns that are learned."""
        label = self.facts["label"]
        return [] if label is None else [label] if isinstance(label, str) else label

    def load_features(self) -> keras.Model:
        """The part that serving needs: the features, from those raw columns alone that they need."""
        import keras

        model = self.load()
        taken = {*self.labels, self.facts["sample_weight"]}
        outputs = {k: v for k, v in model.output.items() if k not in taken}
        return keras.Model(needed_inputs(model.input, outputs), outputs)

    def materialized(self, examples: Examples) -> Examples | None:
        """The preprocessed rows of these very examples; None where there are none."""
        stored = Examples(self.path / self.MATERIALIZED)
        if not (stored.path / Examples.MANIFEST).exists():
            return None
        return stored if stored.read_json(Examples.MANIFEST)["made_from"] == examples.digest() else None

    def write_states(self, states: Mapping[str, Accumulator]) -> list[dict[str, Any]]:
        """Writes what was accumulated for layers, for people.

        Returns:
            A dict for each layer: `layer`, `kind`, `file`; for a vocabulary `values`, and
            `too_low_by`: by how much its counts may be; for numbers, the figures themselves.
        """
        (self.path / "state").mkdir()
        return [self._write_state(name, state) for name, state in states.items()]

    def _write_state(self, layer: str, state: Accumulator) -> dict[str, Any]:
        readable = state.readable()
        told = {"layer": layer, "kind": type(state).__name__}
        name = layer.replace("/", "-")
        if isinstance(readable, dict):
            file = f"state/{name}.json"
            self.write_json(file, readable)
            brief = {key: value for key, value in readable.items() if len(str(value)) <= 100}
            return {**told, "file": file, **brief}
        file = f"state/{name}.txt"
        lines = "".join(f"{_one_line_text(value)}\t{count}\n" for value, count in readable)
        (self.path / file).write_text(lines, encoding="utf-8")
        return {**told, "file": file, "values": len(readable), "too_low_by": getattr(state, "error", 0)}


class Model(Artifact):
    """A Keras model, untrained or trained: `model.keras`, and `summary.json` with its size and costs.

    An untrained one has `graph.svg`, a picture of its layers, and `initial.weights.h5` beside it.
    A trained one has `training.json` beside it: on which device it was trained, how and how fast.
    """

    FILE = "model.keras"

    @property
    def summary(self) -> dict[str, Any]:
        """What `kerasline.components.models.summary` says of it; nothing of a folder that has a model alone."""
        return self.read_json("summary.json") if (self.path / "summary.json").exists() else {}

    def load(self) -> keras.Model:
        return load_keras_model(self.file(self.FILE))


class Hyperparameters(Artifact):
    """What a search found best: `hyperparameters.json`.

    `{"hyperparameters": {name: value}, "trainer": {parameter: value}, "objective", "value", "trial"}`
    """

    FILE = "hyperparameters.json"

    @property
    def values(self) -> dict[str, Any]:
        """For the function or description that builds the model."""
        return self.read_json(self.FILE)["hyperparameters"]

    @property
    def trainer(self) -> dict[str, Any]:
        """For the Trainer's parameters."""
        return self.read_json(self.FILE)["trainer"]


class Evaluation(Artifact):
    """How good a model is: `metrics.json`, described in docs/EVALUATION.md; `metrics.parquet`, its figures as a
    table, a row a metric, slice and output; `predictions/`, what the model says of each row, as Parquet."""

    FILE = "metrics.json"
    TABLE = "metrics.parquet"


class Blessing(Artifact):
    """Whether a model may go out: `blessing.json`.

    `{"blessed": bool, "rules": [{"rule", "output", "metric", "slicing", "slice", "kind": "min|max|max_drop",
    "bound", "confidence", "value", "low", "high", "kept": bool, "why"}]}`
    """

    FILE = "blessing.json"

    @property
    def blessed(self) -> bool:
        return self.read_json(self.FILE)["blessed"]

    def refusals(self) -> list[str]:
        """A short sentence for each rule that was not kept."""
        return [rule["why"] for rule in self.read_json(self.FILE)["rules"] if not rule["kept"]]


class InfraValidation(Artifact):
    """How a model fared behind a server: `validation.json`, and `server.log`, the end of what the server printed.

    `{"version", "blessed", "maybe_the_machine", "server", "checks", "requests", "largest_difference", "latency",
    "problems", "left_out", "ending", "log"}`; docs/VALIDATING.md says what each holds.
    """

    FILE = "validation.json"
    LOG = "server.log"


class Explanation(Artifact):
    """Why a model answers as it does: `explanation.json`, and pictures and sounds in `worst/`.

    `{"version", "split", "rows", "sampled", "seed", "output", "permutation", "integrated_gradients",
    "partial_dependence", "worst"}`; docs/EXPLAINING.md says what each holds.
    """

    FILE = "explanation.json"


class SavedModel(Artifact):
    """A TensorFlow SavedModel: the folder itself is what `tf.saved_model.load` and servers open.

    `kerasline.json` says what it takes and gives, of what it was made, and the SHA-256 of each file beside it;
    docs/EXPORT.md describes it.
    """

    MANIFEST = "kerasline.json"


class ModelForms(Artifact):
    """The same model in other forms: a folder each, and `forms.json`, their sizes, latencies and metrics.

    `{"split", "rows", "reference": {...}, "forms": [{"name", "state": "written|refused", "why", "takes":
    "raw|preprocessed", "megabytes", "latency_ms": {rows: ms}, "largest_difference", "metrics": [...]}]}`
    """

    FILE = "forms.json"

    def form(self, name: str) -> Path:
        """The folder of a form.

        Raises:
            ArtifactError: there is none of that name.
        """
        written = [form["name"] for form in self.read_json(self.FILE)["forms"] if form["state"] == "written"]
        if name not in written:
            raise ArtifactError(f"{self.path}: no form {name!r}; {nearest(name, written)}")
        return self.path / name


class Predictions(Examples):
    """What a model says of each row: Examples whose columns are the model's outputs and those kept beside."""


class PushedModel(Artifact):
    """Where a model was pushed: `pushed.json` with `destination`, `version` and `path`."""

    FILE = "pushed.json"


class Report(Artifact):
    """Files for people: text, tables, pictures."""


def _one_line_text(value: Any) -> str:
    """A value of a vocabulary, so that a line stays a line."""
    text = str(value)
    return text if text.isprintable() else text.encode("unicode_escape").decode()


def load_keras_model(path: Path) -> keras.Model:
    """Opens a `.keras` file.

    Raises:
        ArtifactError: the file is broken, or uses a layer that is not registered.
    """
    import keras

    try:
        return keras.saving.load_model(path)
    except (ValueError, TypeError, OSError) as error:
        raise ArtifactError(
            f"{path}: Keras cannot load it: {error} (a layer of your own needs "
            "@keras.saving.register_keras_serializable in the pipeline's file)"
        ) from error


def needed_inputs(inputs: dict[str, Any], outputs: dict[str, Any]) -> dict[str, Any]:
    """Those of a functional model's inputs that the given outputs depend on."""
    reached: set[int] = set()
    waiting = list(outputs.values())
    while waiting:
        tensor = waiting.pop()
        if id(tensor) not in reached:
            reached.add(id(tensor))
            history = tensor._keras_history
            waiting.extend(history.operation._inbound_nodes[history.node_index].input_tensors)
    return {name: tensor for name, tensor in inputs.items() if id(tensor) in reached}
