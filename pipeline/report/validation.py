"""Serving: how the model fared behind a real server, by InfraValidator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kerasline.pipeline.report.gather import Gathered

VERSION = 1


def section(gathered: Gathered) -> dict[str, Any] | None:
    """Each trial as `validation.json` has it, with its stage; None where there was none."""
    found = [(stage, output.json("validation.json")) for stage, output in gathered.outputs("InfraValidation")]
    trials = [{"stage": stage.name, **told, "figures": _figures(told)} for stage, told in found if _readable(told)]
    return {"trials": trials} if trials else None


def _figures(told: Mapping[str, Any]) -> list[tuple[str, Any]]:
    latency = told.get("latency") or {}
    return [
        ("largest difference", told.get("largest_difference")),
        ("median latency of one row (ms)", latency.get("p50_ms")),
        ("p99 latency (ms)", latency.get("p99_ms")),
        ("at most (ms)", latency.get("bound_ms")),
        ("requests timed", latency.get("requests")),
    ]


def _readable(told: Any) -> bool:
    return isinstance(told, dict) and told.get("version") == VERSION
