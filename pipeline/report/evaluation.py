"""The results of Evaluators, read from `metrics.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kerasline.pipeline.report.gather import Gathered, Stage

VERSION = 1


@dataclass(frozen=True)
class Evaluated:
    """The content of an Evaluator's `metrics.json`."""

    stage: Stage
    facts: Mapping[str, Any]

    @property
    def outputs(self) -> Sequence[str]:
        return list(self.facts.get("outputs") or {})

    @property
    def confidence(self) -> str:
        return f"{self.facts.get('confidence') or 0.95:.0%}"

    def entries(self, output: str, *, whole: bool) -> list[Mapping[str, Any]]:
        """Return the entries for all rows (`whole`) or for the slices, main metrics first."""
        order = {name: place for place, name in enumerate(self.facts["outputs"][output].get("metrics") or ())}
        found = [
            entry
            for entry in self.facts.get("metrics") or ()
            if entry["output"] == output and (not entry.get("slicing")) == whole
        ]
        return sorted(found, key=lambda entry: order.get(entry["metric"], len(order)))

    def title(self, entry: Mapping[str, Any]) -> str:
        """Return the displayed name of a metric, with its output if there are several."""
        name = entry["metric"]
        return name if len(self.outputs) < 2 else f"{entry['output']}/{name}"


def evaluations(gathered: Gathered) -> list[Evaluated]:
    """Return the results of each Evaluator whose format this report reads."""
    return [
        Evaluated(stage, facts)
        for stage, _, facts in gathered.documents("Evaluation", "metrics.json")
        if facts.get("version") == VERSION and isinstance(facts.get("metrics"), list)
    ]
