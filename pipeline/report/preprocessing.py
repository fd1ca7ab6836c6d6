"""The Preprocessing section: the state that layers learned from the training rows."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from kerasline.components.charts import Bar, bar_chart, number_text
from kerasline.components.core.json_files import read_object
from kerasline.pipeline.report.gather import Gathered, Output

TOP, LONGEST, MOST_CLASSES = 15, 12, 30


def section(gathered: Gathered) -> dict[str, Any] | None:
    found = [
        {
            "stage": stage.name,
            "roles": _roles(facts),
            "layers": [_layer(output, state) for state in facts.get("state") or ()],
        }
        for stage, output, facts in gathered.documents("Preprocessing", "preprocessing.json")
    ]
    return {"found": found} if found else None


def _roles(facts: dict[str, Any]) -> list[tuple[str, Any]]:
    """Return the label, the sample weight and the names of the classes of each label."""
    names = facts.get("class_names") or {}
    by_label = names if isinstance(names, dict) else {"": names}
    classes = [
        (f"class names of {label}" if label else "class names", ", ".join(map(str, classes)))
        for label, classes in by_label.items()
        if classes and len(classes) <= MOST_CLASSES
    ]
    return [("label", facts.get("label")), ("sample weight", facts.get("sample_weight")), *classes]


def _layer(output: Output, state: dict[str, Any]) -> dict[str, Any]:
    """Return `figures` (truncated values by name) and `svg`, a chart of the most frequent values of a vocabulary."""
    known = {key: value for key, value in state.items() if key not in ("layer", "kind", "file")}
    file = _inside(output.path, str(state.get("file", "")))
    svg = ""
    if file is not None and file.suffix == ".txt":
        svg = _vocabulary(file, str(state.get("layer")))
    elif file is not None:
        known = {**read_object(file), **known}
    figures = {name: _cut(value) for name, value in known.items() if value not in (None, [], 0) or name != "too_low_by"}
    return {"layer": state.get("layer"), "kind": state.get("kind"), "figures": figures, "svg": svg}


def _vocabulary(file: Path, layer: str) -> str:
    """Draw the most frequent values. Each line of the file is a value, a tab and its count, the most frequent first."""
    with file.open(encoding="utf-8") as lines:
        pairs = [line.rstrip("\n").rpartition("\t") for line in itertools.islice(lines, TOP)]
    bars = [Bar(value, float(count)) for value, _, count in pairs if _is_number(count)]
    return bar_chart(bars, title=f"{layer}: most frequent values", width=320, row_height=18) if bars else ""


def _cut(value: Any) -> str:
    if not isinstance(value, list):
        return number_text(value)
    more = f", … {len(value):,} in total" if len(value) > LONGEST else ""
    return ", ".join(_cut(item) for item in value[:LONGEST]) + more


def _inside(folder: Path, name: str) -> Path | None:
    """Return the path of a file of the folder, or None if it is missing or outside of the folder."""
    path = (folder / name).resolve()
    return path if path.is_file() and path.is_relative_to(folder.resolve()) else None


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).isdigit()
