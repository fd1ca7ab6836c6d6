"""ExampleValidator: where the data breaks its schema, or is not what it was, and what stops the run."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Literal

from kerasline.components.core.artifacts import Anomalies, Schema, Statistics
from kerasline.components.core.component import Component, Context, Input, Output, Parameter
from kerasline.components.core.errors import DataError

if TYPE_CHECKING:
    from kerasline.components.example_validator.rules import Anomaly

LOG = logging.getLogger("kerasline")
SHOWN = 5
Severity = Literal["error", "warning", "ignore"]


class ExampleValidator(Component):
    """Holds every split's statistics against the schema, and against other data if given.

    Inputs:
        serving_statistics: of the data that a model is served; each split's distance from them is
            held against the schema's `skew_comparator`s.
        previous_statistics: of an earlier span; each split's distance from the split of the same
            name is held against the `drift_comparator`s.

    Parameters:
        environment: which of the schema's environments the data is of (`TRAINING`, `SERVING`).
        severity: other severities than usual, by feature or kind of anomaly:
            `{"SCHEMA_NEW_COLUMN": "error", "company": "warning"}`; a feature's comes first.
        fail_on: the least severity that stops the run.

    Raises:
        DataError: anomalies of that severity, naming split, feature, what was seen and the fix.
            All of them are in the run's log.
    """

    statistics: Input[Statistics]
    schema: Input[Schema]
    serving_statistics: Input[Statistics] = None
    previous_statistics: Input[Statistics] = None
    anomalies: Output[Anomalies]
    environment: Parameter[str] = ""
    severity: Parameter[dict[str, Severity]] = {}
    fail_on: Parameter[Literal["error", "warning", "never"]] = "error"

    def run(self, inputs: Any, outputs: Any, context: Context) -> Mapping[str, Any]:
        schema = inputs.schema.proto()
        found = [self._weighed(anomaly) for anomaly in self._found(inputs, schema)]
        found = [anomaly for anomaly in found if anomaly.severity != "ignore"]
        for anomaly in found:
            LOG.warning("%s: %s: %s", anomaly.severity, anomaly.kind, anomaly)
        outputs.anomalies.write(_as_proto(found, schema))
        report = json.dumps([asdict(anomaly) for anomaly in found], indent=2, ensure_ascii=False)
        (outputs.anomalies.path / Anomalies.REPORT).write_text(report + "\n", encoding="utf-8")
        stops = {"error": ("error",), "warning": ("error", "warning"), "never": ()}[self.fail_on]
        grave = [anomaly for anomaly in found if anomaly.severity in stops]
        if grave:
            more = f"; and {len(grave) - SHOWN} more (in the log)" if len(grave) > SHOWN else ""
            raise DataError("; ".join(str(anomaly) for anomaly in grave[:SHOWN]) + more)
        warnings = sum(anomaly.severity == "warning" for anomaly in found)
        return {"anomalies": len(found) - warnings, "warnings": warnings}

    def _found(self, inputs: Any, schema: Any) -> Iterator[Anomaly]:
        from kerasline.components.example_validator.comparison import compare
        from kerasline.components.example_validator.rules import find_anomalies

        serving = inputs.serving_statistics.proto().datasets if inputs.serving_statistics else []
        previous = inputs.previous_statistics.proto().datasets if inputs.previous_statistics else []
        for dataset in inputs.statistics.proto().datasets:
            yield from find_anomalies(dataset, schema, self.environment)
            if not dataset.num_examples:
                continue
            for control in serving:
                yield from compare(dataset, control, schema, "skew_comparator", f"serving data ({control.name})")
            for control in previous:
                if control.name == dataset.name:
                    yield from compare(dataset, control, schema, "drift_comparator", "the span before")

    def _weighed(self, anomaly: Anomaly) -> Anomaly:
        usual = self.severity.get(anomaly.kind, anomaly.severity)
        return replace(anomaly, severity=self.severity.get(anomaly.feature, usual))


def _as_proto(found: list[Anomaly], schema: Any) -> Any:
    from tensorflow_metadata.proto.v0 import anomalies_pb2

    info = anomalies_pb2.AnomalyInfo
    proto = anomalies_pb2.Anomalies(baseline=schema)
    for anomaly in found:
        whole = anomaly.feature == "*"
        entry = proto.dataset_anomaly_info if whole else proto.anomaly_info[anomaly.feature]
        if not whole:
            entry.path.step[:] = [anomaly.feature]
        entry.severity = max(entry.severity, info.Severity.Value(anomaly.severity.upper()))
        kind = info.Type.Value(anomaly.kind)
        entry.reason.add(type=kind, short_description=anomaly.seen, description=str(anomaly))
        entry.description = "; ".join(reason.description for reason in entry.reason)
        entry.short_description = entry.reason[0].short_description
    return proto
