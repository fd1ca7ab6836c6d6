"""The Comparison section: metrics, verdicts, settings, times and learning curves of two runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kerasline.pipeline.report import environment, model
from kerasline.pipeline.report.evaluation import evaluations
from kerasline.pipeline.report.gather import Gathered
from kerasline.pipeline.report.overview import verdicts


def comparison(one: Gathered, other: Gathered) -> dict[str, Any]:
    """Compare two runs. `one` is the run of the report; differences are `one` minus `other`."""
    return {
        "other": other.run,
        "metrics": _metrics(one, other),
        "verdicts": [(name, _verdict(one, name), _verdict(other, name)) for name in _blessing_stages(one, other)],
        "parameters": differing(_parameters(one), _parameters(other)),
        "settings": differing(one.run.settings, other.run.settings),
        "versions": differing(environment.recorded(one), environment.recorded(other)),
        "times": _times(one, other),
        "figures": _curves(one, other),
    }


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Return (key, value, other value) of all keys whose values differ. A missing value is None."""
    keys = dict.fromkeys([*one, *other])
    return [(key, one.get(key), other.get(key)) for key in keys if one.get(key) != other.get(key)]


def _metrics(one: Gathered, other: Gathered) -> list[dict[str, Any]]:
    """Return the metrics for all rows of both runs. `overlap` is None unless both have intervals."""
    ours, theirs = _whole(one), _whole(other)
    rows = []
    for key in dict.fromkeys([*ours, *theirs]):
        a, b = ours.get(key), theirs.get(key)
        sides = [side for side in (a, b) if side]
        values = [side["value"] for side in sides if side["value"] is not None]
        difference = values[0] - values[1] if len(values) == 2 else None
        direction = sides[0]["direction"]
        better = None if not difference or direction is None else (difference > 0) == (direction == "up")
        rows.append(
            {
                "title": sides[0]["title"],
                "one": a,
                "other": b,
                "difference": difference,
                "better": better,
                "overlap": _overlap(a, b),
            }
        )
    return rows


def _whole(gathered: Gathered) -> dict[tuple[str, str, str], dict[str, Any]]:
    return {
        (found.stage.name, output, entry["metric"]): {**entry, "title": found.title(entry)}
        for found in evaluations(gathered)
        for output in found.outputs
        for entry in found.entries(output, whole=True)
    }


def _overlap(one: Mapping[str, Any] | None, other: Mapping[str, Any] | None) -> bool | None:
    ends = [side[end] for side in (one, other) if side for end in ("low", "high") if side.get(end) is not None]
    if len(ends) < 4:
        return None
    low, high, other_low, other_high = ends
    return low <= other_high and other_low <= high


def _blessing_stages(one: Gathered, other: Gathered) -> list[str]:
    return list(dict.fromkeys(verdict["stage"] for run in (one, other) for verdict in verdicts(run)))


def _verdict(gathered: Gathered, stage: str) -> str:
    found = [v["blessed"] for v in verdicts(gathered) if v["stage"] == stage]
    return "none" if not found else "blessed" if found[0] else "refused"


def _parameters(gathered: Gathered) -> dict[str, Any]:
    return {f"{stage.name}.{name}": value for stage in gathered.stages for name, value in stage.parameters.items()}


def _times(one: Gathered, other: Gathered) -> list[tuple[str, Any, Any]]:
    """Return (name, stage, other stage) for each name. A missing stage is None."""
    ours, theirs = ({stage.name: stage for stage in run.stages} for run in (one, other))
    return [(name, ours.get(name), theirs.get(name)) for name in dict.fromkeys([*ours, *theirs])]


def _curves(one: Gathered, other: Gathered) -> list[dict[str, str]]:
    ours, theirs = ({name: epochs for name, epochs, _ in model.learning(run)} for run in (one, other))
    return [
        chart
        for name in ours
        if name in theirs
        for chart in model.learning_curves({"this run": ours[name], "other run": theirs[name]})
    ]
