"""A drawing of the pipeline, each stage below the stages that it reads from."""

from __future__ import annotations

from kerasline.components.charts.graph import Box, graph
from kerasline.pipeline.report.gather import Gathered, Stage

STATE_COLORS = {"ran": "s3", "cached": "s1", "skipped": "s2", "failed": "s6", "running": "s5"}


def picture(gathered: Gathered) -> str:
    """Return an SVG of the stages with their states, times and edges; empty if there are no stages."""
    boxes = {stage.name: _box(stage) for stage in gathered.stages}
    return graph(boxes, title=f"The stages of {gathered.run.pipeline}", faint=True)


def _box(stage: Stage) -> Box:
    seconds = f" · {stage.seconds:.1f} s" if stage.seconds and stage.state in ("ran", "failed") else ""
    state = "from an earlier run" if stage.state == "earlier" else stage.state
    note = "\n".join(filter(None, [f"{stage.name}: {state}{seconds}", stage.message]))
    return Box((stage.name, state + seconds), tuple(stage.sources), STATE_COLORS.get(stage.state, "plain"), note)
