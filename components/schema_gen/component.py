"""SchemaGen: what the data should look like, inferred, or as a person curated it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kerasline.components.core.artifacts import Schema, Statistics
from kerasline.components.core.component import Component, Context, Input, Output, Parameter
from kerasline.components.core.errors import DataError

# A feature present in fewer rows may be absent from a small split without anything being wrong.
RARE = 0.01


class SchemaGen(Component):
    """Infers a schema from a split's statistics, for a person to read and edit.

    Parameters:
        split: the split; the first one by default.
        most_categories: a text column is taken as categorical, with its values as domain, up to
            this many values that occur twice each on average.
    """

    statistics: Input[Statistics]
    schema: Output[Schema]
    split: Parameter[str] = ""
    most_categories: Parameter[int] = 100

    def run(self, inputs: Any, outputs: Any, context: Context) -> Mapping[str, Any]:
        datasets = {dataset.name: dataset for dataset in inputs.statistics.proto().datasets}
        split = self.split or next(iter(datasets))
        if split not in datasets:
            raise DataError(f"SchemaGen.split: no split {split!r}; there are {', '.join(datasets)}")
        proto = infer(datasets[split], self.most_categories)
        outputs.schema.write(proto)
        return _counted(proto)


class ImportSchemaGen(Component):
    """Takes a schema that a person curated.

    Parameters:
        schema_file: a tensorflow-metadata `Schema` in protobuf's text form, such as `SchemaGen`
            or TFDV write it.

    Raises:
        DataError: no such file, or not such a schema.
    """

    NAME = "SchemaGen"

    schema_file: Parameter[str]
    schema: Output[Schema]

    def external_inputs(self) -> Sequence[Path | str]:
        return [self._file()]

    def run(self, inputs: Any, outputs: Any, context: Context) -> Mapping[str, Any]:
        from google.protobuf import text_format
        from tensorflow_metadata.proto.v0 import schema_pb2

        path = self._file()
        try:
            proto = text_format.Parse(path.read_text(encoding="utf-8"), schema_pb2.Schema())
        except (text_format.ParseError, UnicodeDecodeError) as error:
            raise DataError(f"{path}: not a Schema in protobuf's text format: {error}") from None
        outputs.schema.write(proto)
        return _counted(proto)

    def _file(self) -> Path:
        path = Path(self.schema_file)
        if not path.is_file():
            raise DataError(f"{path}: no such file; set SchemaGen.schema_file to a schema.pbtxt")
        return path


def infer(dataset: Any, most_categories: int) -> Any:
    """A Schema that a `DatasetFeatureStatistics` fulfils.

    Type and valency as seen; a feature that is never missing is required; a text with few,
    repeated values gets its values as a domain; images a domain of their own.
    """
    from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

    schema = schema_pb2.Schema()
    for seen in dataset.features:
        kind = statistics_pb2.FeatureNameStatistics.Type.Name(seen.type)
        stats = seen.string_stats if kind == "STRING" else seen.num_stats
        common = stats.common_stats
        feature = schema.feature.add(name=seen.path.step[0])
        feature.type = schema_pb2.FeatureType.Value("BYTES" if kind == "STRING" else kind)
        if common.num_non_missing >= RARE * dataset.num_examples:
            feature.presence.min_count = 1
        if common.num_non_missing:
            feature.value_count.min = common.min_num_values
            feature.value_count.max = common.max_num_values
        if common.num_missing == 0:
            feature.presence.min_fraction = 1.0
        if any(custom.name == "height" for custom in seen.custom_stats):
            feature.image_domain.minimum_supported_image_fraction = 1.0
        elif kind == "STRING" and 0 < stats.unique <= min(most_categories, common.tot_num_values / 2):
            feature.string_domain.name = feature.name
            values = sorted(bucket.label for bucket in stats.rank_histogram.buckets)
            feature.string_domain.value.extend(values)
    return schema


def _counted(proto: Any) -> dict[str, int]:
    domains = sum(bool(f.domain) or f.WhichOneof("domain_info") is not None for f in proto.feature)
    return {"features": len(proto.feature), "domains": domains}
