"""What a search leaves for people: its trials as a table and as a picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from optuna.trial import FrozenTrial, TrialState

from components.tuning.search import EPOCHS, REASON, SECONDS, Search, best

TABLE, PICTURE = "trials.parquet", "trials.svg"
WIDTH, HEIGHT, MARGIN = 360, 220, 44
STYLE = """
svg { font: 11px system-ui, sans-serif; background: #fff } text { fill: #1c2430 }
.axis { stroke: #8a94a6; fill: none } .trial { fill: #5b7db1 } .pruned { fill: none; stroke: #b0763a }
.best { fill: #c2452d } .line { stroke: #c2452d; fill: none; stroke-width: 1.5 }
@media (prefers-color-scheme: dark) { svg { background: #14181f } text { fill: #e6eaf0 } .trial { fill: #8fb1e6 } }
"""


def write(trials: Sequence[FrozenTrial], search: Search, folder: Path) -> None:
    """Writes `trials.parquet`, a row a trial, and `trials.svg`."""
    pq.write_table(_table(trials, search), folder / TABLE)
    (folder / PICTURE).write_text(_picture(trials, search), encoding="utf-8")


def _table(trials: Sequence[FrozenTrial], search: Search) -> pa.Table:
    columns: dict[str, Any] = {
        "trial": [trial.number + 1 for trial in trials],
        "state": [trial.state.name.lower() for trial in trials],
        search.objective: pa.array([_value(trial) for trial in trials], pa.float64()),
    }
    for name in search.space:
        values = [trial.params.get(name) for trial in trials]
        mixed = len({type(value) for value in values if value is not None}) > 1
        columns[name] = [None if value is None else str(value) for value in values] if mixed else values
    columns["epochs"] = pa.array([trial.user_attrs.get(EPOCHS) for trial in trials], pa.int64())
    columns["seconds"] = pa.array([trial.user_attrs.get(SECONDS) for trial in trials], pa.float64())
    columns["reason"] = pa.array([trial.user_attrs.get(REASON) for trial in trials], pa.string())
    return pa.table(columns)


def _value(trial: FrozenTrial) -> float | None:
    """The objective at the end; of one that was pruned, what it had reached."""
    if trial.value is not None:
        return trial.value
    return trial.intermediate_values[max(trial.intermediate_values)] if trial.intermediate_values else None


def _picture(trials: Sequence[FrozenTrial], search: Search) -> str:
    """A panel of the objective by trial, and one of it by each hyperparameter."""
    found = best(list(trials), search.less)
    shown = [(trial, _value(trial)) for trial in trials if _value(trial) is not None]
    panels = [_panel("trial", [trial.number + 1 for trial, _ in shown], shown, search, found, line=True)]
    panels += [_panel(name, [trial.params[name] for trial, _ in shown], shown, search, found) for name in search.space]
    across = min(3, len(panels))
    down = math.ceil(len(panels) / across)
    placed = [
        f'<g transform="translate({number % across * WIDTH} {number // across * HEIGHT})">{panel}</g>'
        for number, panel in enumerate(panels)
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {across * WIDTH} {down * HEIGHT}" '
        f'width="{across * WIDTH}" height="{down * HEIGHT}"><style>{STYLE}</style>{"".join(placed)}</svg>\n'
    )


def _panel(
    name: str, values: Sequence[Any], shown: Sequence[tuple[FrozenTrial, float]], search: Search,
    found: FrozenTrial, line: bool = False,
) -> str:  # fmt: skip
    dimension = search.space.get(name)
    across, ticks = _scale(values, bool(dimension and dimension.log), bool(dimension and dimension.choice is not None))
    up, heights = _scale([value for _, value in shown], False, False)
    points = []
    for value, (trial, objective) in zip(values, shown):
        kind = "best" if trial.number == found.number else "pruned" if trial.state != TrialState.COMPLETE else "trial"
        x, y = MARGIN + across(value) * (WIDTH - MARGIN - 16), HEIGHT - MARGIN - up(objective) * (HEIGHT - MARGIN - 16)
        told = escape(f"trial {trial.number + 1}: {search.objective} {objective:.5g}")
        points.append((x, y, f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" class="{kind}"><title>{told}</title></circle>'))
    return (
        f'<path class="axis" d="M{MARGIN} 16V{HEIGHT - MARGIN}H{WIDTH - 16}"/>'
        f'<text x="{WIDTH / 2}" y="{HEIGHT - 8}" text-anchor="middle">{escape(name)}</text>'
        f'<text x="{MARGIN}" y="11">{escape(search.objective)}</text>'
        + "".join(
            f'<text x="{MARGIN + place * (WIDTH - MARGIN - 16):.1f}" y="{HEIGHT - MARGIN + 14}" '
            f'text-anchor="middle">{escape(text)}</text>' for place, text in ticks
        )
        + "".join(
            f'<text x="{MARGIN - 4}" y="{HEIGHT - MARGIN - place * (HEIGHT - MARGIN - 16) + 4:.1f}" '
            f'text-anchor="end">{escape(text)}</text>' for place, text in heights
        )
        + (_best_so_far(points, search.less) if line else "")
        + "".join(point for _, _, point in points)
    )  # fmt: skip


def _best_so_far(points: Sequence[tuple[float, float, str]], less: bool) -> str:
    """A line of steps; less of an objective is lower down."""
    path, reached = "", None
    for x, y, _ in points:
        better = reached is None or (y > reached if less else y < reached)
        path += f"{'M' if reached is None else 'H'}{x:.1f}" + (f" {y:.1f}" if reached is None else f"V{y:.1f}" if better else "")
        reached = y if better else reached
    return f'<path class="line" d="{path}"/>'


def _scale(values: Sequence[Any], log: bool, choice: bool) -> tuple[Any, list[tuple[float, str]]]:
    """From values to 0..1, and what to write where."""
    if choice:
        kinds = sorted(set(values), key=str)
        last = max(len(kinds) - 1, 1)
        return lambda value: kinds.index(value) / last, [(n / last, str(kind)) for n, kind in enumerate(kinds)]
    low, high = min(values), max(values)

    def place(value: float) -> float:
        if low == high:
            return 0.5
        if log:
            return math.log(value / low) / math.log(high / low)
        return (value - low) / (high - low)

    return place, [(place(value), f"{value:.3g}") for value in dict.fromkeys((low, high))]
