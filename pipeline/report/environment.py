"""The Environment section: machine, versions, fingerprints, lineage, settings and parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kerasline.pipeline.environment import here
from kerasline.pipeline.metadata.store import Store
from kerasline.pipeline.report.gather import Gathered


def section(gathered: Gathered, store: Store) -> dict[str, Any]:
    return {
        "recorded": recorded(gathered),
        "here": _flat(here()),
        "settings": dict(gathered.run.settings),
        "stages": gathered.stages,
        "lineage": _lineage(gathered, store),
    }


def recorded(gathered: Gathered) -> dict[str, str]:
    """Return the environment that the stages recorded in their manifests and in `training.json`."""
    facts: dict[str, str] = {}
    for stage in gathered.stages:
        facts |= _flat(stage.manifest.get("environment") or {})
    for _, _, training in gathered.documents("Model", "training.json"):
        facts |= {
            name: str(training[name]) for name in ("tensorflow", "keras", "device", "precision") if training.get(name)
        }
    return facts


def _flat(facts: Mapping[str, Any]) -> dict[str, str]:
    inner = facts.get("libraries") or {}
    return {**{k: str(v) for k, v in facts.items() if k != "libraries"}, **{k: str(v) for k, v in inner.items()}}


def _lineage(gathered: Gathered, store: Store) -> list[dict[str, Any]]:
    """Return the lineage of each final output, one that no other stage of the run reads."""
    from kerasline.pipeline.metadata.lineage import trace

    used = {source for stage in gathered.stages for source in stage.sources}
    ends = [s for s in gathered.stages if s.name not in used and s.run_id == gathered.run.id]
    return [tree for stage in ends for output in stage.outputs.values() for tree in trace(store, output.id)]
