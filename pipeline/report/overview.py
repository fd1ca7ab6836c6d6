"""The Overview section: the run, its state, its verdicts and its main metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kerasline.components.charts import number_text
from kerasline.pipeline.report.evaluation import Evaluated, evaluations
from kerasline.pipeline.report.gather import Gathered, Stage

KEY_FIGURES = 4
# Stages that were skipped because another stage failed are only listed in the table of stages.
NOT_RUN = "not run, because"


def overview(gathered: Gathered) -> dict[str, Any]:
    run = gathered.run
    return {
        "run": run,
        "about": gathered.docstring.partition("\n\n")[0],
        "stages": len([stage for stage in gathered.stages if stage.run_id == run.id]),
        "failed": gathered.failed,
        "skipped": [s for s in gathered.stages if s.state == "skipped" and not (s.message or "").startswith(NOT_RUN)],
        "verdicts": verdicts(gathered),
        "figures": [figure for found in evaluations(gathered) for figure in key_figures(found)],
    }


def verdicts(gathered: Gathered) -> list[dict[str, Any]]:
    """Return `stage`, `blessed` and `rules` (with values and bounds) of each stage that blesses a model."""
    return [
        {
            "stage": stage.name,
            "blessed": bool(facts.get("blessed")),
            "rules": [_rule(r) for r in facts.get("rules", ())],
        }
        for stage, _, facts in gathered.documents("Blessing", "blessing.json")
    ]


def key_figures(found: Evaluated) -> list[dict[str, Any]]:
    """Return the main metrics for all rows, a few of each output."""
    figures = []
    for output in found.outputs:
        entries = found.entries(output, whole=True)[:KEY_FIGURES]
        figures += [{**entry, "title": found.title(entry), "split": found.facts.get("split")} for entry in entries]
    return figures


def stage_table(gathered: Gathered) -> dict[str, Any]:
    """Return the stages with their metrics, and whether any has a message or deleted outputs."""
    rows = [{"stage": stage, "metrics": metrics_text(stage), "deleted": _deleted(stage)} for stage in gathered.stages]
    has_messages = any(stage.message for stage in gathered.stages) or any(row["deleted"] for row in rows)
    return {"rows": rows, "has_messages": has_messages}


def metrics_text(stage: Stage) -> str:
    """Format the metrics of a stage: `rows 344, accuracy 0.9855`."""
    return ", ".join(f"{name.replace('_', ' ')} {number_text(value)}" for name, value in stage.metrics.items())


def _deleted(stage: Stage) -> list[str]:
    return [output.name for output in stage.outputs.values() if not output.present]


_BOUNDS = {
    "min": "at least",
    "max": "at most",
    "max_drop": "a drop of at most",
    "max_relative_drop": "a relative drop of at most",
    "max_gap": "a gap of at most",
}


def _rule(rule: Mapping[str, Any]) -> dict[str, Any]:
    kind = _BOUNDS.get(rule.get("kind", ""), "")
    bound = "" if rule.get("bound") is None else number_text(rule["bound"])
    text = rule.get("rule") or f"{rule.get('metric', '')} {kind} {bound}".strip()
    outcome = {"measured": bool(rule.get("measured", True)), "kept": bool(rule.get("kept"))}
    return {**rule, "text": text, "limit": f"{kind} {bound}".strip(), **outcome}
