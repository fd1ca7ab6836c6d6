"""Metrics: all figures of the whole set, against a baseline, across forms, and between groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kerasline.pipeline.report import curves, slices
from kerasline.pipeline.report.gather import Gathered, Stage

VERSION = 1


@dataclass(frozen=True)
class Evaluated:
    """What an Evaluator found: `metrics.json` as it is, with a few ways to look at it."""

    stage: Stage
    facts: Mapping[str, Any]

    @property
    def outputs(self) -> Sequence[str]:
        return list(self.facts.get("outputs") or {})

    @property
    def confidence(self) -> str:
        return f"{self.facts.get('confidence') or 0.95:.0%}"

    def entries(self, output: str, *, whole: bool) -> list[Mapping[str, Any]]:
        """Of the whole set, or of the slices; main metrics first."""
        order = {name: place for place, name in enumerate(self.facts["outputs"][output].get("metrics") or ())}
        found = [
            entry
            for entry in self.facts.get("metrics") or ()
            if entry["output"] == output and (not entry.get("slicing")) == whole
        ]
        return sorted(found, key=lambda entry: order.get(entry["metric"], len(order)))

    def title(self, entry: Mapping[str, Any]) -> str:
        """The name of a metric for people; with its output where there are several."""
        name = entry["metric"]
        return name if len(self.outputs) < 2 else f"{entry['output']}/{name}"


def evaluations(gathered: Gathered) -> list[Evaluated]:
    """Of each Evaluator, in the form that this report reads."""
    found = ((stage, output.json("metrics.json")) for stage, output in gathered.outputs("Evaluation"))
    return [Evaluated(stage, facts) for stage, facts in found if _readable(facts)]


def section(gathered: Gathered) -> dict[str, Any] | None:
    found = evaluations(gathered)
    every = [stage.name for stage, _ in gathered.outputs("Evaluation")]
    unread = [name for name in every if name not in {e.stage.name for e in found}]
    made = _made_by_exporters(gathered)
    return {"evaluations": [_shown(e, made) for e in found], "unread": unread} if every else None


def _readable(facts: Any) -> bool:
    return isinstance(facts, dict) and facts.get("version") == VERSION and isinstance(facts.get("metrics"), list)


def _shown(found: Evaluated, made: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    facts = found.facts
    whole = [entry for output in found.outputs for entry in found.entries(output, whole=True)]
    return {
        "stage": found.stage.name,
        "facts": facts,
        "confidence": found.confidence,
        "whole": [{**entry, "title": found.title(entry)} for entry in whole],
        "compared": facts.get("baseline") or any(entry.get("baseline") is not None for entry in whole),
        "slices": slices.shown(found),
        "curves": curves.shown(found),
        "fairness": facts.get("fairness") or [],
        "forms": _forms(found, made),
        "latency": facts.get("latency") or {},
        "notes": facts.get("notes") or [],
    }


def _made_by_exporters(gathered: Gathered) -> list[Mapping[str, Any]]:
    """The smaller forms that Exporters wrote and measured, in the form in which evaluations tell theirs."""
    told = [output.json("forms.json") or {} for _, output in gathered.outputs("ModelForms")]
    return [{**form, "rows": one.get("rows")} for one in told for form in one.get("forms") or () if form.get("metrics")]


def _forms(found: Evaluated, made: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The error budget: how far each exported form is from the model, by metric."""
    rows = []
    for form in (*(found.facts.get("forms") or ()), *made):
        metrics = [{**m, "title": found.title(m)} for m in form.get("metrics") or ()]
        rows.append({**form, "metrics": sorted(metrics, key=lambda m: -abs(m.get("difference") or 0))})
    return rows
