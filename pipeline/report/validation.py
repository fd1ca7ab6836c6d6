"""The Serving section: the results of InfraValidator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kerasline.pipeline.report.gather import Gathered

VERSION = 1


def section(gathered: Gathered) -> dict[str, Any] | None:
    """Return each `validation.json` with its stage, or None if there is none."""
    trials = [
        {"stage": stage.name, **facts, "figures": _figures(facts)}
        for stage, _, facts in gathered.documents("InfraValidation", "validation.json")
        if facts.get("version") == VERSION
    ]
    return {"trials": trials} if trials else None


def _figures(facts: Mapping[str, Any]) -> list[tuple[str, Any]]:
    latency = facts.get("latency") or {}
    return [
        ("largest difference", facts.get("largest_difference")),
        ("median latency of one row (ms)", latency.get("p50_ms")),
        ("p99 latency (ms)", latency.get("p99_ms")),
        ("latency bound (ms)", latency.get("bound_ms")),
        ("requests timed", latency.get("requests")),
    ]
