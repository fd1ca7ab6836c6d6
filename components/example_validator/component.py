"""ExampleValidator: finds anomalies, which are violations of the schema, skew and drift."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from kerasline.components.core.artifacts import Anomalies, Examples, Schema, Statistics
from kerasline.components.core.component import Component, Context, Input, Output, Parameters
from kerasline.components.core.errors import DataError, ParameterError, check_known, nearest

if TYPE_CHECKING:
    from kerasline.components.example_validator.drift_anomalies import Distance
    from kerasline.components.example_validator.schema_anomalies import Anomaly

LOG = logging.getLogger("kerasline")
MAX_LISTED = 5  # anomalies in the error message; all are logged
Severity = Literal["error", "warning", "ignore"]


@dataclass(frozen=True, kw_only=True)
class ExampleValidatorSettings:
    """The parameters of ExampleValidator, which documents them."""

    environment: str = ""
    severity: dict[str, Severity] = field(default_factory=dict)
    fail_on: Literal["error", "warning", "never"] = "error"
    custom_validation: dict[str, str] = field(default_factory=dict)


class ExampleValidator(Component):
    """Compares the statistics of every split with the schema, and with other data if given.

    Args:
        statistics: the statistics to validate.
        schema: the schema, from `SchemaGen` or `ImportSchemaGen`.
        serving_statistics: statistics of the data that a model receives in serving. The distance of each split from
            them is compared with the schema's `skew_comparator`s. Optional.
        previous_statistics: statistics of an earlier span. The distance of each split from the split of the same name
            is compared with the schema's `drift_comparator`s. Optional.
        examples: the data of the statistics. With them, an anomaly lists the first rows that cause it. Optional.
        custom_validation: conditions that all rows must fulfil, by name, in the syntax of SQL (see `RowExpression`):
            `{"tips are below fares": "tips < fare"}`. A row with a missing value passes, as SQL's CHECK. Needs
            `examples`.
        previous_version_statistics: statistics of an earlier version of the same span. The number of rows is compared
            with the schema's `num_examples_version_comparator`. Optional.
        environment: the schema environment of the data, such as `TRAINING` or `SERVING`. By default any.
        severity: severities (`error`, `warning`, `ignore`) by feature or kind of anomaly, instead of the default ones:
            `{"SCHEMA_NEW_COLUMN": "error", "company": "warning"}`. That of the feature takes precedence.
        fail_on: the lowest severity that fails the stage: `error` (the default), `warning` or `never`.

    Raises:
        DataError: there are anomalies of that severity. The message has the split, the feature, the observed values and
            the fix. The log of the run has all of them.

    Example:

    >>> def statistics(columns, name):
    ...     examples = kl.InMemoryExampleGen(columns, splits={"train": 1}).execute(folder / name).examples
    ...     return kl.StatisticsGen(examples).execute(folder / f"{name}-statistics").statistics
    >>> schema = kl.SchemaGen(statistics({"kind": ["cat", "dog"] * 5}, "good")).execute(folder / "schema").schema
    >>> kl.ExampleValidator(statistics({"kind": ["cat", "cow"]}, "bad"), schema).execute(folder / "out")
    Traceback (most recent call last):
    kerasline.components.core.errors.DataError: train: feature 'kind': 50.0% of the values are not in its domain: ...
    """

    VERSION = "4"

    statistics: Input[Statistics]
    schema: Input[Schema]
    serving_statistics: Input[Statistics] = None
    previous_statistics: Input[Statistics] = None
    examples: Input[Examples] = None
    previous_version_statistics: Input[Statistics] = None
    anomalies: Output[Anomalies]
    settings: Parameters[ExampleValidatorSettings]

    def check(self, inputs: Any) -> None:
        super().check(inputs)
        if self.settings.custom_validation and "examples" not in self.inputs:
            raise ParameterError(f"{self.name}.custom_validation: conditions on rows need the input `examples`; add it")
        if self.settings.custom_validation and inputs.examples is not None:
            from kerasline.components.data.row_expressions import RowExpression

            for name, text in self.settings.custom_validation.items():
                where = f"{self.name}.custom_validation.{name}"
                columns = RowExpression(text, where).columns
                check_known(where, "the data has no column", columns, inputs.examples.schema().names)
        if self.settings.environment and inputs.schema is not None:
            from kerasline.components.example_validator.schema_anomalies import environments

            where, named = f"{self.name}.environment", [self.settings.environment]
            check_known(where, "the schema has no environment", named, environments(inputs.schema.proto()))
        if self.settings.severity and inputs.schema is not None and inputs.statistics is not None:
            from tensorflow_metadata.proto.v0 import anomalies_pb2

            from kerasline.components.example_validator.schema_structure import flattened

            features = {feature.name for feature in flattened(inputs.schema.proto()).feature}
            for dataset in inputs.statistics.proto().datasets:
                features |= {feature.path.step[0] for feature in dataset.features}
            known = {*anomalies_pb2.AnomalyInfo.Type.keys(), *features, "*"}
            for name in self.settings.severity.keys() - known:
                raise ParameterError(
                    f"{self.name}.severity: {name!r} is neither a feature nor a kind of anomaly; {nearest(name, known)}"
                )

    def run(self, inputs: Any, outputs: Any, context: Context) -> Mapping[str, Any]:
        from kerasline.components.example_validator.drift_anomalies import Distance
        from kerasline.components.example_validator.schema_structure import flattened

        schema = flattened(inputs.schema.proto())
        results = list(self._find(inputs, schema))
        distances = [result for result in results if isinstance(result, Distance)]
        anomalies = [
            result.anomaly() if isinstance(result, Distance) else result
            for result in results
            if not isinstance(result, Distance) or result.is_high
        ]
        if inputs.examples is not None:
            from kerasline.components.example_validator.anomalous_rows import with_rows

            anomalies = with_rows(anomalies, self.settings.custom_validation, inputs.examples, schema, context)
        found = [self._with_severity(anomaly) for anomaly in anomalies]
        found = [anomaly for anomaly in found if anomaly.severity != "ignore"]
        for anomaly in found:
            LOG.warning("%s: %s: %s", anomaly.severity, anomaly.kind, anomaly)
        outputs.anomalies.write(_as_proto(found, schema))
        outputs.anomalies.write_json(Anomalies.REPORT, [asdict(anomaly) for anomaly in found])
        outputs.anomalies.write_json(Anomalies.DISTANCES, [asdict(distance) for distance in distances])
        failing = {"error": ("error",), "warning": ("error", "warning"), "never": ()}[self.settings.fail_on]
        failures = [anomaly for anomaly in found if anomaly.severity in failing]
        if failures:
            more = f"; and {len(failures) - MAX_LISTED} more (in the log)" if len(failures) > MAX_LISTED else ""
            raise DataError("; ".join(str(anomaly) for anomaly in failures[:MAX_LISTED]) + more)
        warnings = sum(anomaly.severity == "warning" for anomaly in found)
        metrics = {"anomalies": len(found) - warnings, "warnings": warnings}
        is_compared = inputs.serving_statistics is not None or inputs.previous_statistics is not None
        return {**metrics, "distances": len(distances)} if is_compared else metrics

    def _find(self, inputs: Any, schema: Any) -> Iterator[Anomaly | Distance]:
        from kerasline.components.example_validator.composite_features import composite_anomalies
        from kerasline.components.example_validator.drift_anomalies import CONTROL_NAMES, compare, controls_of
        from kerasline.components.example_validator.schema_anomalies import find_anomalies
        from kerasline.components.example_validator.schema_structure import contradictions, unchecked_parts

        version = inputs.previous_version_statistics.proto().datasets if inputs.previous_version_statistics else []
        serving = inputs.serving_statistics.proto().datasets if inputs.serving_statistics else []
        previous = inputs.previous_statistics.proto().datasets if inputs.previous_statistics else []
        yield from contradictions(schema)
        yield from unchecked_parts(inputs.schema.proto(), compares_versions=bool(version))
        for data, comparator in ((serving, "skew_comparator"), (previous, "drift_comparator")):
            if data and not _has_comparator(schema, comparator):
                yield _not_compared(f"the schema has no {comparator}, so nothing is compared", "add one to a feature")
        for dataset in inputs.statistics.proto().datasets:
            if previous and dataset.name not in [control.name for control in previous]:
                names = ", ".join(control.name for control in previous)
                seen = f"the previous span has no split {dataset.name!r}, so it is not compared; it has {names}"
                yield _not_compared(seen, "give both spans the same splits")
            yield from find_anomalies(dataset, schema, self.settings.environment)
            yield from composite_anomalies(dataset, schema, self.settings.environment)
            if not dataset.num_examples:
                continue
            for comparator, controls in zip(CONTROL_NAMES, (serving, previous, version)):
                for control in controls_of(dataset, comparator, controls):
                    name = CONTROL_NAMES[comparator]
                    name = f"{name} ({control.name})" if comparator == "skew_comparator" else name
                    yield from compare(dataset, control, schema, comparator, name)

    def _with_severity(self, anomaly: Anomaly) -> Anomaly:
        severity = self.settings.severity
        default = severity.get(anomaly.kind, anomaly.severity)
        return replace(anomaly, severity=severity.get(anomaly.feature, default))


def _has_comparator(schema: Any, comparator: str) -> bool:
    constraints = schema.dataset_constraints
    by_rows = comparator == "drift_comparator" and constraints.HasField("num_examples_drift_comparator")
    return by_rows or any(feature.HasField(comparator) for feature in schema.feature)


def _not_compared(seen: str, fix: str) -> Anomaly:
    from kerasline.components.example_validator.schema_anomalies import Anomaly

    return Anomaly("COMPARATOR_CONTROL_DATA_MISSING", seen, fix, "warning", "statistics")


def _as_proto(found: list[Anomaly], schema: Any) -> Any:
    from tensorflow_metadata.proto.v0 import anomalies_pb2

    info = anomalies_pb2.AnomalyInfo
    proto = anomalies_pb2.Anomalies(baseline=schema)
    for anomaly in found:
        of_dataset = anomaly.feature == "*"
        entry = proto.dataset_anomaly_info if of_dataset else proto.anomaly_info[anomaly.feature]
        if not of_dataset:
            entry.path.step[:] = [anomaly.feature]
        entry.severity = max(entry.severity, info.Severity.Value(anomaly.severity.upper()))
        kind = info.Type.Value(anomaly.kind)
        entry.reason.add(type=kind, short_description=anomaly.seen, description=str(anomaly))
        entry.description = "; ".join(reason.description for reason in entry.reason)
        entry.short_description = entry.reason[0].short_description
    return proto
