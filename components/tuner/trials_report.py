"""The trials of a search, as a table and a chart."""

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
from kerasline.components.tuner.search import EPOCHS, REASON, SECONDS, best_trial
from kerasline.components.tuner.settings import TunerSettings

TABLE, CHART = "trials.parquet", "trials.svg"
WIDTH, HEIGHT = 360, 220


def write(trials: Sequence[FrozenTrial], settings: TunerSettings, folder: Path) -> None:
    """Write `trials.parquet`, one row per trial, and `trials.svg`."""
    pq.write_table(_table(trials, settings), folder / TABLE)
    (folder / CHART).write_text(_chart(trials, settings), encoding="utf-8")


def _table(trials: Sequence[FrozenTrial], settings: TunerSettings) -> pa.Table:
    columns: dict[str, Any] = {
        "trial": [trial.number + 1 for trial in trials],
        "state": [trial.state.name.lower() for trial in trials],
        settings.objective: pa.array([_value(trial) for trial in trials], pa.float64()),
    }
    for name in settings.space:
        values = [trial.params.get(name) for trial in trials]
        is_mixed = len({type(value) for value in values if value is not None}) > 1
        columns[name] = [None if value is None else str(value) for value in values] if is_mixed else values
    columns["epochs"] = pa.array([trial.user_attrs.get(EPOCHS) for trial in trials], pa.int64())
    columns["seconds"] = pa.array([trial.user_attrs.get(SECONDS) for trial in trials], pa.float64())
    columns["reason"] = pa.array([trial.user_attrs.get(REASON) for trial in trials], pa.string())
    return pa.table(columns)


def _value(trial: FrozenTrial) -> float | None:
    """Return the final value of the objective. For a pruned trial it is the last intermediate value."""
    if trial.value is not None:
        return trial.value
    return trial.intermediate_values[max(trial.intermediate_values)] if trial.intermediate_values else None


def _chart(trials: Sequence[FrozenTrial], settings: TunerSettings) -> str:
    """Draw the objective by trial, and by each hyperparameter."""
    best = best_trial(trials, settings)
    drawn = [(trial, value) for trial in trials if finite(value := _value(trial)) and value is not None]
    panels = [_panel("trial", [(trial.number + 1, trial, value) for trial, value in drawn], settings, best)]
    panels += [
        _panel(name, [(trial.params[name], trial, value) for trial, value in drawn], settings, best)
        for name in settings.space
    ]
    return standalone(panels, WIDTH, HEIGHT)


def _panel(
    name: str, points: Sequence[tuple[Any, FrozenTrial, float]], settings: TunerSettings, best: FrozenTrial
) -> str:
    dimension = settings.space.get(name)
    dots = [
        Dot(x, value, f"trial {trial.number + 1}: {settings.objective} {value:.5g}", _style(trial, best))
        for x, trial, value in points
    ]
    return scatter(
        dots,
        title=f"{settings.objective} by {name}",
        x_label=name,
        y_label=settings.objective,
        x_log=bool(dimension and dimension.log),
        choice=bool(dimension and dimension.choice is not None),
        steps=[] if dimension else _best_so_far(dots, settings.minimizes),
        width=WIDTH,
        height=HEIGHT,
    )


def _style(trial: FrozenTrial, best: FrozenTrial) -> str:
    if trial.number == best.number:
        return "strong"
    return "plain" if trial.state == TrialState.COMPLETE else "hollow"


def _best_so_far(dots: Sequence[Dot], minimizes: bool) -> list[tuple[float, float]]:
    values = itertools.accumulate((dot.y for dot in dots), min if minimizes else max)
    return [(dot.x, y) for dot, y in zip(dots, values)]
