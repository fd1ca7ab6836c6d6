"""The Model section: layers and costs, training, learning curves and hyperparameter search."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kerasline.components.charts import Series, line_chart
from kerasline.pipeline.report.gather import Gathered, Output
from kerasline.pipeline.report.media import data_uri

POINTS = 200  # Most points of a line; more are not visible.
HIDDEN = ("epoch", "phase", "steps", "rows")
MOST_TRIALS = 300


def section(gathered: Gathered) -> dict[str, Any] | None:
    models = [_model(stage.name, output) for stage, output in gathered.outputs("Model")]
    models = [model for model in models if model["summary"] or model["graph"] or model["training"]]
    drawn = [model for model in models if model["graph"]]
    trained = [model for model in models if model["training"]]
    curves = [{"stage": name, **charts} for name, _, charts in learning(gathered)]
    trials = [
        {"stage": stage.name, **_trials(output)}
        for stage, output in gathered.outputs("Report")
        if (output.path / "trials.parquet").exists()
    ]
    best = [
        {"stage": stage.name, "facts": output.json("hyperparameters.json") or {}}
        for stage, output in gathered.outputs("Hyperparameters")
    ]
    if not (models or curves or trials):
        return None
    return {"models": drawn or models[:1], "trained": trained, "curves": curves, "trials": trials, "best": best}


def learning(gathered: Gathered) -> list[tuple[str, list[dict[str, Any]], dict[str, Any]]]:
    """Return, for each Trainer, its name, a dict per epoch, and the charts."""
    found = []
    for stage, output in gathered.outputs("Report"):
        if (output.path / "history.parquet").exists():
            epochs = _read_table(output.path / "history.parquet").to_pylist()
            figures = [*learning_curves({"": epochs}), *_loss_of_steps(output.path / "steps.parquet")]
            found.append((stage.name, epochs, {"epochs": len(epochs), "figures": figures}))
    return found


def learning_curves(histories: dict[str, Sequence[dict[str, Any]]]) -> list[dict[str, str]]:
    """Draw a chart per metric, with training and held-out values of one or several named histories."""
    names = dict.fromkeys(name for epochs in histories.values() for row in epochs for name in row)
    bases = dict.fromkeys(name.removeprefix("val_") for name in names if name not in HIDDEN)
    charts = []
    for base in bases:
        series = [
            Series(
                " ".join(filter(None, (run, split))),
                [row["epoch"] for row in epochs],
                [row.get(key) for row in epochs],
                dashed=bool(run) and key != base,
                color=number if run else 0,
            )
            for number, (run, epochs) in enumerate(histories.items(), start=1)
            for key, split in ((base, "training"), (f"val_{base}", "held out"))
            if any(row.get(key) is not None for row in epochs)
        ]
        constant = base == "learning_rate" and len({y for one in series for y in one.y}) == 1
        if series and not constant:
            svg = line_chart(series, title=f"{base} by epoch", x_label="epoch", y_label=base.replace("_", " "))
            charts.append({"svg": svg, "caption": f"{base.replace('_', ' ')} by epoch"})
    return charts


def _model(stage: str, output: Output) -> dict[str, Any]:
    summary = output.json("summary.json") or {}
    graph = output.path / "graph.svg"
    return {
        "stage": stage,
        "output": output,
        "summary": summary,
        "activation": list((summary.get("activation_bytes") or {}).items()),
        "training": output.json("training.json"),
        "calibration": _calibration(output.json("calibration.json")),
        # An image, because the style of an inlined graph would apply to the charts of the page.
        "graph": data_uri(graph) if graph.exists() else None,
    }


def _calibration(found: dict[str, Any] | None) -> dict[str, str] | None:
    """Draw the probabilities of held-out rows against the observed proportions, before and after calibration."""
    if not found:
        return None
    sides = [(name, found[name]["curve"]) for name in ("before", "after")]
    svg = line_chart(
        [Series(name, curve["x"], curve["y"], dashed=name == "before") for name, curve in sides],
        title="Calibration of the held-out rows: observed against predicted",
        x_label="mean prediction",
        y_label="observed proportion",
        x_within=(0.0, 1.0),
        y_within=(0.0, 1.0),
        diagonal=True,
        height=300,
    )
    errors = [f"{found[name]['calibration_error']:.3f}" for name, _ in sides]
    temperature = "unchanged" if found["temperature"] is None else f"temperature {found['temperature']:.3g}"
    return {"svg": svg, "caption": f"Calibration error before and after: {errors[0]} and {errors[1]} ({temperature})"}


def _loss_of_steps(path: Path) -> list[dict[str, str]]:
    """Draw the loss by step. Many steps are averaged in groups, with a band from minimum to maximum."""
    if not path.exists():
        return []
    import numpy as np

    table = _read_table(path, ["step", "loss"])
    parts = max(min(POINTS, table.num_rows), 1)
    # Not to_numpy(), which imports pandas.
    loss, step = (np.from_dlpack(table[name].combine_chunks()).astype(np.float64) for name in ("loss", "step"))
    losses = np.array_split(loss, parts)
    steps = [float(part.mean()) for part in np.array_split(step, parts) if len(part)]
    low, mean, high = ([float(f(part)) for part in losses if len(part)] for f in (np.min, np.mean, np.max))
    series = Series("loss", steps, mean, *((low, high) if table.num_rows > POINTS else ()))
    svg = line_chart([series], title="loss by step", x_label="step", y_label="loss")
    each = f", means of {table.num_rows // parts} steps" if table.num_rows > POINTS else ""
    return [{"svg": svg, "caption": f"training loss by step{each}"}] if steps else []


def _read_table(path: Path, columns: Sequence[str] | None = None) -> Any:
    """Read a Parquet file without `read_table`, which imports pandas."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        return file.read(columns)


def _trials(output: Output) -> dict[str, Any]:
    rows = _read_table(output.path / "trials.parquet").to_pylist()
    picture = output.path / "trials.svg"
    return {
        "columns": list(rows[0]) if rows else [],
        "rows": rows[:MOST_TRIALS],
        "left_out": max(len(rows) - MOST_TRIALS, 0),
        "picture": data_uri(picture) if picture.exists() else None,
    }
