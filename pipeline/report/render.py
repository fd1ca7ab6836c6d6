"""Render the templates, and write the HTML report and the Markdown model card."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kerasline.components.charts import STYLE, number_text, value_text
from kerasline.components.core.atomic_files import atomic_write
from kerasline.components.core.errors import KeraslineError
from kerasline.pipeline.metadata.store import Run, Store, now
from kerasline.pipeline.report import (
    card,
    compare,
    data,
    environment,
    explanations,
    graph,
    metrics,
    model,
    preprocessing,
    samples,
    validation,
)
from kerasline.pipeline.report.gather import Gathered, gather
from kerasline.pipeline.report.overview import overview, stage_table, verdicts

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Written:
    """The files written, with a summary of their content. `sections` names the sections of the page."""

    run_id: str
    report: Path
    card: Path
    size_bytes: int
    sections: list[str]
    verdicts: list[dict[str, Any]]
    figures: list[dict[str, Any]]
    comparison: dict[str, Any] | None

    def as_json(self) -> dict[str, Any]:
        """Return the report's summary as `--json` writes it."""
        compared = self.comparison and {
            "run_id": self.comparison["other"].id,
            "metrics": self.comparison["metrics"],
            **{key: [list(row) for row in self.comparison[key]] for key in ("parameters", "settings", "versions")},
        }
        return {**dataclasses.asdict(self), "comparison": compared}


def write_report(store: Store, run: Run, path: Path, against: Run | None = None) -> Written:
    """Write the report of a run to `path`, and its model card next to it with the suffix `.md`.

    Args:
        run: the run, with its state as displayed to people.
        against: another run to compare with. Optional.

    Raises:
        KeraslineError: the files cannot be written.
    """
    card_path = path.with_suffix(".md")
    if card_path == path:
        raise KeraslineError(
            f"report {path}: expected a name ending in .html; the model card is written to the same name with .md"
        )
    gathered = gather(store, run)
    compared = compare.comparison(gathered, gather(store, against)) if against else None
    parts = card.model_card(gathered)
    sections = _sections(gathered, store, compared, parts)
    html = _page(gathered, sections)
    _write(path, html)
    _write(card_path, card.as_markdown(gathered, parts))
    head = sections[0].context
    return Written(
        run.id,
        path,
        card_path,
        len(html.encode()),
        [section.name for section in sections],
        verdicts(gathered),
        head["figures"],
        compared,
    )


@dataclass(frozen=True)
class Section:
    """One part of the page: `templates/NAME.html.j2` with its context."""

    name: str
    title: str
    context: Mapping[str, Any]


def _sections(gathered: Gathered, store: Store, compared: Any, parts: list[card.Part]) -> list[Section]:
    candidates = [
        ("overview", "Overview", overview(gathered)),
        ("compare", "Comparison", compared),
        ("stages", "Pipeline", {"picture": graph.picture(gathered), **stage_table(gathered)}),
        ("data", "Data", data.section(gathered)),
        ("preprocessing", "Preprocessing", preprocessing.section(gathered)),
        ("model", "Model", model.section(gathered)),
        ("metrics", "Metrics", metrics.section(gathered)),
        ("samples", "Samples", samples.section(gathered)),
        ("explanations", "Explanations", explanations.section(gathered)),
        ("validation", "Serving", validation.section(gathered)),
        ("environment", "Environment", environment.section(gathered, store)),
        ("card", "Model card", {"parts": parts}),
    ]
    return [Section(name, title, context) for name, title, context in candidates if context is not None]


def _page(gathered: Gathered, sections: list[Section]) -> str:
    import jinja2

    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.ChainableUndefined,  # Values that an artifact lacks are blank.
    )
    templates.filters |= {
        "number": number_text,
        "seconds": _seconds,
        "size": _size,
        "spaced": _spaced,
        "value": value_text,
    }
    templates.globals["without_empty_columns"] = _without_empty_columns
    script = (HERE / "report.js").read_text(encoding="utf-8")
    return templates.get_template("page.html.j2").render(
        run=gathered.run,
        sections=sections,
        style=STYLE + (HERE / "style.css").read_text(encoding="utf-8"),
        script=script,
        # The only script that the page may run. Names in the data cannot add another.
        script_digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        written=now(),
    )


def _seconds(value: float | None) -> str:
    if value is None:
        return "–"
    if value < 120:
        return f"{value:.1f} s"
    minutes, seconds = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"


def _size(size_bytes: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if size_bytes < 1000 or unit == "GB":
            return f"{size_bytes:.3g} {unit}" if unit != "bytes" else f"{size_bytes:.0f} bytes"
        size_bytes /= 1000
    raise AssertionError


def _spaced(name: str) -> str:
    return str(name).replace("_", " ")


@dataclass(frozen=True)
class _Table:
    columns: Sequence[str]
    body: str


def _without_empty_columns(columns: Sequence[str], body: str) -> _Table:
    """Leave out the columns of a table in which every cell is empty or a dash. The first column always stays."""
    from markupsafe import Markup

    rows = [_CELL.findall(row) for row in _ROW.findall(body)]
    if not rows or any(len(row) != len(columns) for row in rows):
        return _Table(columns, body)
    kept = [i for i in range(len(columns)) if i == 0 or any(_TAG.sub("", row[i]).strip(" –\n") for row in rows)]

    def cut(row: re.Match[str]) -> str:
        cells = _CELL.findall(row[0])
        return row[0][: row[0].index(cells[0])] + "".join(cells[i] for i in kept) + "</tr>"

    return _Table([columns[i] for i in kept], Markup(_ROW.sub(cut, body)))


# Tables do not nest, and text in cells is escaped.
_ROW = re.compile(r"<tr\b.*?</tr>", re.DOTALL)
_CELL = re.compile(r"<td\b.*?</td>|<th\b.*?</th>", re.DOTALL)
_TAG = re.compile(r"<(?!img|audio|svg)[^>]*>")


def _write(path: Path, text: str) -> None:
    """Write atomically, so that a reader never sees a partial file."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as aside:
            aside.write_text(text, encoding="utf-8")
    except OSError as error:
        raise KeraslineError(f"report {path}: {error.strerror}; choose another path with -o") from error
