"""SchemaGen infers a schema from statistics; ImportSchemaGen reads a curated one."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kerasline.components.core.artifacts import Artifact, Schema, Statistics
from kerasline.components.core.component import Component, Context, Input, Output, Parameters
from kerasline.components.core.errors import DataError
from kerasline.components.core.parameters import SPLIT, SplitName

if TYPE_CHECKING:
    from tensorflow_metadata.proto.v0 import schema_pb2

LOG = logging.getLogger("kerasline")
# A feature that is present in a smaller share of the rows may be absent from a small split without being an anomaly.
MIN_REQUIRED_SHARE = 0.01
MOST_CATEGORIES = 100


@dataclass(frozen=True, kw_only=True)
class SchemaGenSettings:
    """The parameters of SchemaGen, which documents them."""

    split: SplitName | None = None
    most_categories: int = MOST_CATEGORIES


class SchemaGen(Component):
    """Infers a schema from the statistics of a split, for a person to review and edit.

    A feature gets its type, whether it is required, its shape or number of values if that is the same in all rows, and
    a domain: categories, booleans (0 and 1, or `true` and `false`), integers in texts, or images.

    Args:
        statistics: the statistics.
        split: the split to infer from. By default the first.
        most_categories: largest number of distinct values of a categorical text column. If a text column has at most
            this many, and each occurs twice on average, they become its domain. Defaults to 100.

    Raises:
        ParameterError: there is no such split.

    Example:

    >>> columns = {"kind": ["cat", "dog", "dog", "cat"]}
    >>> examples = kl.InMemoryExampleGen(columns, splits={"train": 1}).execute(folder / "examples").examples
    >>> statistics = kl.StatisticsGen(examples).execute(folder / "statistics").statistics
    >>> schema = kl.SchemaGen(statistics).execute(folder / "schema").schema
    >>> list(schema.proto().feature[0].string_domain.value)
    ['cat', 'dog']
    """

    statistics: Input[Statistics]
    VERSION = "3"

    schema: Output[Schema]
    settings: Parameters[SchemaGenSettings]

    def check(self, inputs: Any) -> None:
        super().check(inputs)
        if inputs.statistics is not None:
            self.check_names(SPLIT, lambda: [dataset.name for dataset in inputs.statistics.proto().datasets])

    def preview(self, inputs: Any) -> Mapping[str, Artifact]:
        return {} if inputs.statistics is None else {"schema": _PlannedSchema(inputs.statistics)}

    def run(self, inputs: Any, outputs: Any, context: Context) -> Mapping[str, Any]:
        datasets = {dataset.name: dataset for dataset in inputs.statistics.proto().datasets}
        split = self.settings.split or next(iter(datasets))
        proto = infer(datasets[split], self.settings.most_categories)
        outputs.schema.write(proto)
        return _metrics(proto)


class _PlannedSchema(Schema):
    """The features of a schema that is not inferred yet. There are no files."""

    def __init__(self, statistics: Statistics) -> None:
        super().__init__("a schema that is not inferred yet")
        self._statistics = statistics

    def proto(self) -> schema_pb2.Schema:
        from tensorflow_metadata.proto.v0 import schema_pb2

        names = {feature.path.step[0] for data in self._statistics.proto().datasets for feature in data.features}
        return schema_pb2.Schema(feature=[schema_pb2.Feature(name=name) for name in sorted(names)])


@dataclass(frozen=True, kw_only=True)
class ImportSchemaGenSettings:
    """The parameters of ImportSchemaGen, which documents them."""

    schema_file: str


class ImportSchemaGen(Component):
    """Reads a schema that a person curated.

    Args:
        schema_file: a tensorflow-metadata `Schema` in protobuf's text format, as `SchemaGen` and TFDV write it.

    Raises:
        DataError: there is no such file.
        ArtifactError: it is not a schema.

    A warning names each contradiction in the schema, and each part that ExampleValidator does not check.

    Example:

    >>> _ = (folder / "schema.pbtxt").write_text('feature { name: "fare" type: FLOAT }')
    >>> kl.ImportSchemaGen(str(folder / "schema.pbtxt")).execute(folder / "schema").metrics
    {'features': 1, 'domains': 0}
    """

    NAME = "SchemaGen"

    schema: Output[Schema]
    settings: Parameters[ImportSchemaGenSettings]

    def external_inputs(self) -> Sequence[Path | str]:
        return [self._file()]

    def check_machine(self) -> None:
        _CuratedSchema(self._file()).proto()

    def preview(self, inputs: Any) -> Mapping[str, Artifact]:
        path = Path(self.settings.schema_file)
        return {"schema": _CuratedSchema(path)} if path.is_file() else {}

    def run(self, inputs: Any, outputs: Any, context: Context) -> Mapping[str, Any]:
        proto = read_schema(self._file())
        _warn(proto)
        outputs.schema.write(proto)
        return _metrics(proto)

    def _file(self) -> Path:
        path = Path(self.settings.schema_file)
        if not path.is_file():
            raise DataError(f"{path}: no such file; set SchemaGen.schema_file to a schema.pbtxt")
        return path


def read_schema(path: Path) -> Any:
    """Return the `Schema` in a file of any name.

    Raises:
        DataError: there is no such file, or it is not a schema.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected a schema in protobuf's text format, such as schema.pbtxt")
    return _CuratedSchema(path).proto()


def _warn(proto: Any) -> None:
    from kerasline.components.example_validator.schema_structure import contradictions, flattened, unchecked_parts

    for anomaly in (*contradictions(flattened(proto)), *unchecked_parts(proto, compares_versions=True)):
        LOG.warning("%s", anomaly)


class _CuratedSchema(Schema):
    """A schema in a file of any name."""

    def file(self, name: str) -> Path:
        return self.path


def infer(dataset: Any, most_categories: int = MOST_CATEGORIES) -> Any:
    """Infer the `Schema` that a `DatasetFeatureStatistics` satisfies.

    Types are those observed. A feature that is never missing is required. If all rows have the same number of values,
    it is the feature's shape, or, if some have none, its value count. Otherwise their number has no upper bound.
    """
    from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

    schema = schema_pb2.Schema()
    for observed in dataset.features:
        kind = statistics_pb2.FeatureNameStatistics.Type.Name(observed.type)
        stats = observed.string_stats if kind == "STRING" else observed.num_stats
        common = stats.common_stats
        feature = schema.feature.add(name=observed.path.step[0])
        feature.type = schema_pb2.FeatureType.Value("BYTES" if kind == "STRING" else kind)
        if common.num_non_missing >= MIN_REQUIRED_SHARE * dataset.num_examples:
            feature.presence.min_count = 1
        if common.num_missing == 0:
            feature.presence.min_fraction = 1.0
        if common.num_non_missing:
            _set_shape(feature, observed, common)
            _set_domain(feature, observed, stats, most_categories)
    return schema


def _set_shape(feature: Any, observed: Any, common: Any) -> None:
    is_constant = common.min_num_values == common.max_num_values
    if is_constant and common.num_missing == 0:
        shape = [custom.str for custom in observed.custom_stats if custom.name == "shape"]
        for size in map(int, shape[0].split(",")) if shape else [common.max_num_values]:
            feature.shape.dim.add(size=size)
        return
    feature.value_count.min = common.min_num_values
    if is_constant:
        feature.value_count.max = common.max_num_values


def _set_domain(feature: Any, observed: Any, stats: Any, most_categories: int) -> None:
    """Set the domain of images, sound, booleans, categories, or integers in texts."""
    from tensorflow_metadata.proto.v0 import schema_pb2

    from kerasline.components.statistics_gen.statistics_proto import image_count, sound_count

    if observed.HasField("num_stats"):
        if feature.type == schema_pb2.INT and (stats.min, stats.max) == (0, 1):
            feature.bool_domain.SetInParent()
        return
    values = [bucket.label for bucket in stats.rank_histogram.buckets]
    if 2 * image_count(observed) > stats.common_stats.tot_num_values:
        feature.image_domain.minimum_supported_image_fraction = 1.0
    elif 2 * sound_count(observed) > stats.common_stats.tot_num_values:
        feature.audio_domain.SetInParent()
    elif sorted(value.lower() for value in values) == ["false", "true"]:
        feature.bool_domain.false_value, feature.bool_domain.true_value = sorted(values, key=str.lower)
    elif stats.invalid_utf8_count:
        return  # bytes
    elif 0 < stats.unique <= min(most_categories, stats.common_stats.tot_num_values / 2):
        feature.string_domain.name = feature.name
        feature.string_domain.value.extend(sorted(values))
    elif values and all(re.fullmatch(r"-?[0-9]+", value) for value in values):
        feature.int_domain.SetInParent()


def _metrics(proto: Any) -> dict[str, int]:
    domains = sum(bool(f.domain) or f.WhichOneof("domain_info") is not None for f in proto.feature)
    return {"features": len(proto.feature), "domains": domains}
