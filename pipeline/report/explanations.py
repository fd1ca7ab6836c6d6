"""The Explanations section: importances, attributions, partial dependence and worst rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kerasline.components.charts import Bar, Interval, Series, bar_chart, interval_plot, line_chart
from kerasline.pipeline.report.gather import Gathered
from kerasline.pipeline.report.media import MOST_MEDIA_BYTES, embedded_files

MOST_FEATURES, MOST_PANELS, MOST_WORST, MOST_TOKENS = 30, 24, 40, 1000


def section(gathered: Gathered) -> dict[str, Any] | None:
    found = [
        {"stage": stage.name, "facts": facts, **_shown(facts, output.path)}
        for stage, output, facts in gathered.documents("Explanation", "explanation.json")
    ]
    return {"found": found} if found else None


def _shown(facts: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    return {
        "permutation": _permutation(facts.get("permutation")),
        "gradients": _gradients(facts.get("integrated_gradients")),
        "dependence": _dependence(facts.get("partial_dependence") or ()),
        "worst": _worst(facts.get("worst") or {}, folder),
    }


def _permutation(found: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if not found or not found.get("features"):
        return None
    features = found["features"]
    bars = [Bar(f["feature"], f["importance"], f.get("low"), f.get("high")) for f in features[:MOST_FEATURES]]
    label = f"worsening of {found['metric'].replace('_', ' ')}"
    svg = bar_chart(bars, title="Permutation importance", label=label, width=420)
    return {**found, "svg": svg, "left_out": max(len(features) - MOST_FEATURES, 0)}


def _gradients(found: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if not found or not found.get("features"):
        return None
    features = sorted(found["features"], key=lambda f: -(f.get("mean_absolute") or 0))
    bars = [Bar(f["feature"], f["mean_absolute"]) for f in features[:MOST_FEATURES]]
    figures = [
        {
            "svg": bar_chart(bars, title="Integrated gradients", label="mean absolute attribution", width=420),
            "caption": "Mean absolute attribution by input",
        }
    ]
    for feature in features[:MOST_PANELS]:
        places = feature.get("places") or []
        if len(places) > 1:
            figures.append(_places(feature["feature"], places))
    return {**found, "figures": figures}


def _places(name: str, places: Sequence[float]) -> dict[str, str]:
    if len(places) <= MOST_FEATURES:
        bars = [Bar(str(number), value) for number, value in enumerate(places)]
        svg = bar_chart(bars, title=f"{name} by index", label="mean absolute attribution", row_height=14)
    else:
        line = Series(name, list(range(len(places))), places)
        svg = line_chart([line], title=f"{name} by index", x_label="index", y_label="attribution")
    return {"svg": svg, "caption": f"{name}, by index of its last axis"}


def _dependence(parts: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Draw a chart per numeric feature with a line per class, and a chart per class of each categorical feature."""
    by_feature: dict[str, list[Mapping[str, Any]]] = {}
    for part in parts:
        by_feature.setdefault(part["feature"], []).append(part)
    charts = []
    for name, shown in by_feature.items():
        if shown[0].get("kind") == "category":
            charts += [_by_category(name, part) for part in shown]
        else:
            charts.append(_by_number(name, shown))
    return charts[:MOST_PANELS]


def _by_number(name: str, parts: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    lines = [
        Series(
            str(part.get("class") or "prediction"),
            part["x"],
            part["y"],
            part.get("low") or (),
            part.get("high") or (),
        )
        for part in parts
    ]
    svg = line_chart(lines, title=f"Prediction by {name}", x_label=name, y_label="prediction")
    return {"svg": svg, "caption": name}


def _by_category(name: str, part: Mapping[str, Any]) -> dict[str, str]:
    unknown = [None] * len(part["x"])
    sides = zip(part["x"], part["y"], part.get("low") or unknown, part.get("high") or unknown)
    caption = f"{name}: {part['class']}" if part.get("class") else name
    svg = interval_plot(
        [Interval(str(x), *side) for x, *side in sides],
        title=f"Prediction by {caption}",
        label="prediction",
        width=320,
    )
    return {"svg": svg, "caption": caption}


def _worst(worst: Mapping[str, Any], folder: Path) -> dict[str, Any] | None:
    rows = list(worst.get("rows") or ())[:MOST_WORST]
    if not rows:
        return None
    room = MOST_MEDIA_BYTES
    shown = []
    for row in rows:
        heat = {f"{name}, attribution": file for name, file in (row.get("attribution") or {}).items()}
        files = [pair for one in (row.get("media"), heat, row.get("answer_media")) for pair in (one or {}).items()]
        media, room = embedded_files(folder, files, room)
        answers = {f"answer {name}": value for name, value in (row.get("answers") or {}).items()}
        texts = {name: _strengths(tokens[:MOST_TOKENS]) for name, tokens in (row.get("tokens") or {}).items()}
        shown.append({**row, "media": media, "texts": texts, "columns": {**(row.get("columns") or {}), **answers}})
    columns = list(dict.fromkeys(name for row in shown for name in row["columns"]))
    as_cards = any(row["media"] or row["texts"] for row in shown)
    return {"by": worst.get("by"), "rows": shown, "columns": columns, "as_cards": as_cards}


def _strengths(tokens: Sequence[tuple[str, float]]) -> list[dict[str, Any]]:
    """Return the text of each token, its attribution, and its strength: a percentage of the strongest."""
    strongest = max((abs(value) for _, value in tokens), default=0) or 1.0
    return [{"text": text, "value": value, "percent": round(100 * abs(value) / strongest)} for text, value in tokens]
