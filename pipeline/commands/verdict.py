"""The main figures of a run's evaluations and their verdicts, as tables for the screen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kerasline.components.core.artifacts import Blessing, Evaluation, InfraValidation
from kerasline.components.core.errors import KeraslineError
from kerasline.pipeline.storage import roots

if TYPE_CHECKING:
    from rich.table import Table

    from kerasline.pipeline.metadata.store import Execution


SAMPLES = "samples/samples.json"
SAMPLE = ("row", "score", "reference", "answer")
MOST_SAMPLES = 3  # of each kind


def tables(executions: Sequence[Execution]) -> list[Table]:
    """Return a table for each evaluation, infrastructure validation and blessing. Deleted outputs are left out."""
    from kerasline.pipeline.commands.screen import plain_table

    found = []
    for execution in executions:
        for artifact in execution.outputs.values():
            try:
                if artifact.type == Evaluation.__name__:
                    report = Evaluation(roots.local(artifact.path, Evaluation.FILE)).read_json(Evaluation.FILE)
                    interval = f"{report['confidence']:.0%} interval"
                    columns: tuple[str, ...] = ("metric", "value", interval, "change from the baseline")
                    found.append(plain_table(columns, _figures(report)))
                    found += [plain_table(SAMPLE, rows) for rows in _samples(artifact)]
                elif artifact.type == InfraValidation.__name__:
                    folder = roots.local(artifact.path, InfraValidation.FILE)
                    report = InfraValidation(folder).read_json(InfraValidation.FILE)
                    columns = ("requests", "sent", "answered alike", "refused alike", "wrong")
                    found += [plain_table(columns, _requests(report))] if report["requests"] else []
                elif artifact.type == Blessing.__name__:
                    rules = Blessing(roots.local(artifact.path, Blessing.FILE)).read_json(Blessing.FILE)["rules"]
                    rows = [(rule["rule"], _verdict(rule), rule["why"]) for rule in rules]
                    found += [plain_table(("rule", "verdict", "figure"), rows)] if rows else []
            except (KeraslineError, OSError, ValueError, KeyError):
                continue
    return found


def _samples(artifact: Any) -> list[list[tuple[str, ...]]]:
    """Return the worst and some random answers of an evaluation, a table of rows for each answer."""
    folder = roots.local(artifact.path, SAMPLES)
    if not (folder / SAMPLES).exists():
        return []
    groups = Evaluation(folder).read_json(SAMPLES)["groups"]
    found: list[list[tuple[str, ...]]] = []
    for group in groups:
        shown = [row for row in group["rows"] if row["answer"] is not None]
        kinds = [[row for row in shown if row["kind"] == kind][:MOST_SAMPLES] for kind in ("worst", "random")]
        few = [row for rows in kinds for row in rows]
        score = [f"{group['metric']} {_number(row['score'])}" if group["metric"] else "" for row in few]
        texts: list[tuple[str, ...]] = []
        texts += [
            (f"{r['kind']} {r['row']}", s, str(r["reference"] or ""), str(r["answer"])) for r, s in zip(few, score)
        ]
        found.append(texts)
    return [rows for rows in found if rows]


def _verdict(rule: Mapping[str, Any]) -> str:
    verdict = "kept" if rule["kept"] else "broken"
    return verdict if rule.get("measured", True) else f"{verdict}, not measured"


def _figures(report: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    several = len(report["outputs"]) > 1
    return [
        (
            f"{row['output']}/{row['metric']}" if several and row["output"] else row["metric"],
            _number(row["value"]),
            _span(row["low"], row["high"]),
            _change(row),
        )
        for row in report["metrics"]
        if not row["slicing"]
    ]


def _requests(report: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return the counts of requests of each kind, over all formats."""
    kinds = dict.fromkeys(tally["kind"] for tally in report["requests"])
    counts = ("sent", "answered", "refused", "wrong")
    return [
        (kind, *(str(sum(t[count] for t in report["requests"] if t["kind"] == kind)) for count in counts))
        for kind in kinds
    ]


def _change(row: Mapping[str, Any]) -> str:
    if row["change"] is None:
        return ""
    span = _span(row["change_low"], row["change_high"])
    return f"{row['change']:+.4g}" + (f" ({span})" if span else "")


def _span(low: float | None, high: float | None) -> str:
    return f"{_number(low)} to {_number(high)}" if low is not None and high is not None else ""


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
