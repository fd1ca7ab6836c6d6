"""The main figures of a run's evaluations and their verdicts, as tables for the screen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kerasline.components.core.artifacts import Blessing, Evaluation, InfraValidation
from kerasline.components.core.errors import KeraslineError

if TYPE_CHECKING:
    from rich.table import Table

    from kerasline.pipeline.metadata.store import Execution
    from kerasline.pipeline.storage.publishing import ArtifactRoot


def tables(executions: Sequence[Execution], root: ArtifactRoot) -> list[Table]:
    """Of each evaluation its figures over all rows, of each trial behind a server its requests, of each verdict its
    rules. What is gone is left out."""
    from kerasline.pipeline.commands.screen import plain_table

    found = []
    for execution in executions:
        for artifact in execution.outputs.values():
            try:
                if artifact.type == Evaluation.__name__:
                    told = Evaluation(root.local(artifact.path, Evaluation.FILE)).read_json(Evaluation.FILE)
                    columns = ("metric", "value", f"{told['confidence']:.0%} interval", "change from the baseline")
                    found.append(plain_table(columns, _figures(told)))
                elif artifact.type == InfraValidation.__name__:
                    folder = root.local(artifact.path, InfraValidation.FILE)
                    told = InfraValidation(folder).read_json(InfraValidation.FILE)
                    columns = ("requests", "sent", "answered alike", "refused alike", "wrong")
                    found += [plain_table(columns, _requests(told))] if told["requests"] else []
                elif artifact.type == Blessing.__name__:
                    rules = Blessing(root.local(artifact.path, Blessing.FILE)).read_json(Blessing.FILE)["rules"]
                    rows = [(r["rule"], "kept" if r["kept"] else "broken", r["why"]) for r in rules]
                    found += [plain_table(("rule", "verdict", "figure"), rows)] if rows else []
            except (KeraslineError, OSError, ValueError, KeyError):
                continue
    return found


def _figures(told: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    several = len(told["outputs"]) > 1
    return [
        (
            f"{row['output']}/{row['metric']}" if several and row["output"] else row["metric"],
            _number(row["value"]),
            _span(row["low"], row["high"]),
            _change(row),
        )
        for row in told["metrics"]
        if not row["slicing"]
    ]


def _requests(told: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The requests of each kind, in whatever form they were sent."""
    kinds = dict.fromkeys(tally["kind"] for tally in told["requests"])
    counts = ("sent", "answered", "refused", "wrong")
    return [
        (kind, *(str(sum(t[count] for t in told["requests"] if t["kind"] == kind)) for count in counts))
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
