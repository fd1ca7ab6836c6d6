"""What a search leaves for people: its trials as a table and as a picture."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from optuna.trial import FrozenTrial, TrialState

from kerasline.components.charts import Dot, scatter, standalone
from kerasline.components.charts.numbers import finite
from kerasline.components.tuner.search import EPOCHS, REASON, SECONDS, Search, best

TABLE, PICTURE = "trials.parquet", "trials.svg"
WIDTH, HEIGHT = 360, 220


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
    shown = [trial for trial in trials if finite(_value(trial))]
    panels = [_panel("trial", [trial.number + 1 for trial in shown], shown, search, found)]
    panels += [_panel(name, [trial.params[name] for trial in shown], shown, search, found) for name in search.space]
    return standalone(panels, WIDTH, HEIGHT)


def _panel(name: str, values: Sequence[Any], shown: Sequence[FrozenTrial], search: Search, found: FrozenTrial) -> str:
    dimension = search.space.get(name)
    dots = [Dot(value, _value(trial), _told(trial, search), _kind(trial, found)) for value, trial in zip(values, shown)]
    return scatter(
        dots,
        title=f"{search.objective} by {name}",
        x_label=name,
        y_label=search.objective,
        x_log=bool(dimension and dimension.log),
        choice=bool(dimension and dimension.choice is not None),
        steps=[] if dimension else _best_so_far(dots, search.less),
        width=WIDTH,
        height=HEIGHT,
    )


def _told(trial: FrozenTrial, search: Search) -> str:
    return f"trial {trial.number + 1}: {search.objective} {_value(trial):.5g}"


def _kind(trial: FrozenTrial, found: FrozenTrial) -> str:
    if trial.number == found.number:
        return "strong"
    return "plain" if trial.state == TrialState.COMPLETE else "hollow"


def _best_so_far(dots: Sequence[Dot], less: bool) -> list[tuple[float, float]]:
    reached = itertools.accumulate((dot.y for dot in dots), min if less else max)
    return [(dot.x, y) for dot, y in zip(dots, reached)]
