"""SchemaGen: what the data should look like, inferred or as a person curated it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Optional

from components.artifacts import Schema, Statistics
from components.base import Component, Context, Input, Output, Parameter
from components.errors import DataError

# A text column is taken as categorical up to this many values, seen twice each on average.
MOST_CATEGORIES = 100

# A feature present in fewer rows may be absent from a small split without anything being wrong.
RARE = 0.01


class SchemaGen(Component):
    """Infers a schema from the first split's statistics, or takes a curated one.

    Parameters:
        curated: a `schema.pbtxt` written or edited by a person; it is the schema then.
    """

    statistics: Input[Statistics]
    schema: Output[Schema]
    curated: Parameter[Optional[str]] = None

    def external_inputs(self) -> Sequence[Path | str]:
        return [self._curated_file()] if self.curated else []

    def run(self, inputs: Any, outputs: Any, context: Context) -> Mapping[str, Any]:
        if self.curated:
            proto = _read(self._curated_file())
        else:
            proto = infer(inputs.statistics.proto())
        outputs.schema.write(proto)
        domains = sum(bool(f.domain) or f.HasField("string_domain") for f in proto.feature)
        return {"features": len(proto.feature), "domains": domains}

    def _curated_file(self) -> Path:
        path = Path(self.curated)
        if not path.is_file():
            raise DataError(f"{path}: no such file; set SchemaGen.curated to a schema.pbtxt")
        return path


def infer(statistics: Any) -> Any:
    """A Schema that the statistics' first split fulfils.

    Type and valency as seen; a feature that is never missing is required; a text with few,
    repeated values gets its values as a domain.
    """
    from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

    schema = schema_pb2.Schema()
    for seen in statistics.datasets[0].features:
        kind = statistics_pb2.FeatureNameStatistics.Type.Name(seen.type)
        stats = seen.string_stats if kind == "STRING" else seen.num_stats
        common = stats.common_stats
        feature = schema.feature.add(name=seen.path.step[0])
        feature.type = schema_pb2.FeatureType.Value("BYTES" if kind == "STRING" else kind)
        if common.num_non_missing >= RARE * statistics.datasets[0].num_examples:
            feature.presence.min_count = 1
        if common.num_non_missing:
            feature.value_count.min = common.min_num_values
            feature.value_count.max = common.max_num_values
        if common.num_missing == 0:
            feature.presence.min_fraction = 1.0
        if kind == "STRING" and _categorical(stats, common):
            feature.string_domain.name = feature.name
            values = sorted(bucket.label for bucket in stats.rank_histogram.buckets)
            feature.string_domain.value.extend(values)
    return schema


def _categorical(stats: Any, common: Any) -> bool:
    return 0 < stats.unique <= min(MOST_CATEGORIES, common.tot_num_values / 2)


def _read(path: Path) -> Any:
    from google.protobuf import text_format
    from tensorflow_metadata.proto.v0 import schema_pb2

    try:
        return text_format.Parse(path.read_text(encoding="utf-8"), schema_pb2.Schema())
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a Schema in protobuf's text format: {error}") from None
