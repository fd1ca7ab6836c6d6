"""Sparse and weighted features: columns that belong together must have values in the same rows, and equally many.

Statistics describe columns, not rows. Columns belong together as far as their numbers of rows with values, and the
distributions of the numbers of values in a row, are equal.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from tensorflow_metadata.proto.v0 import schema_pb2

from kerasline.components.example_validator.schema_anomalies import (
    UNCHECKED_STAGES,
    Anomaly,
    common_stats,
    is_in_environment,
)


def composite_anomalies(dataset: Any, schema: Any, environment: str) -> Iterator[Anomaly]:
    """Yield an anomaly for each sparse or weighted feature whose columns do not belong together.

    Args:
        dataset: a `DatasetFeatureStatistics`.
        schema: a schema without structs, see `schema_structure.flattened`.
        environment: features with a column that is not in this environment are left out.
    """
    observed = {feature.path.step[0]: feature for feature in dataset.features}
    absent = {f.name for f in schema.feature if not is_in_environment(f, schema, environment)}
    for sparse in schema.sparse_feature:
        value, indices = sparse.value_feature.name, [index.name for index in sparse.index_feature]
        if _is_checked(sparse) and absent.isdisjoint([value, *indices]):
            for index in indices:
                for found in _compared(observed, value, index, "SPARSE_FEATURE", "VALUE", "INDEX"):
                    yield replace(found, split=dataset.name, feature=sparse.name)
    for weighted in schema.weighted_feature:
        value, weight = ".".join(weighted.feature.step), ".".join(weighted.weight_feature.step)
        if _is_checked(weighted) and absent.isdisjoint([value, weight]):
            for found in _compared(observed, value, weight, "WEIGHTED_FEATURE", "VALUE", "WEIGHT"):
                yield replace(found, split=dataset.name, feature=weighted.name)


def _is_checked(feature: Any) -> bool:
    return schema_pb2.LifecycleStage.Name(feature.lifecycle_stage) not in UNCHECKED_STAGES


def _compared(
    observed: Mapping[str, Any], value: str, other: str, kind: str, value_word: str, other_word: str
) -> Iterator[Anomaly]:
    sides = [common_stats(observed[name]) if name in observed else None for name in (value, other)]
    rows = [side.num_non_missing if side is not None else 0 for side in sides]
    fix = f"give {value!r} and {other!r} values in the same rows, and equally many"
    if rows[0] != rows[1]:
        missing, word = (value, value_word) if rows[0] < rows[1] else (other, other_word)
        seen = f"{missing!r} has values in {min(rows)} rows, the other column in {max(rows)}"
        yield Anomaly(f"{kind}_MISSING_{word}", seen, fix)
    elif all(rows) and _lengths(sides[0]) != _lengths(sides[1]):
        totals = " and ".join(
            f"{name!r} {side.tot_num_values} ({side.min_num_values} to {side.max_num_values} a row)"
            for name, side in zip((value, other), sides)
            if side is not None
        )
        yield Anomaly(f"{kind}_LENGTH_MISMATCH", f"the columns have different numbers of values: {totals}", fix)


def _lengths(common: Any) -> tuple[Any, ...]:
    quantiles = [bucket.high_value for bucket in common.num_values_histogram.buckets]
    return common.tot_num_values, common.min_num_values, common.max_num_values, quantiles
