"""The model card. Facts of the run are filled in; the rest comes from the docstring of the pipeline's file.

The sections and their order follow Mitchell et al., "Model Cards for Model Reporting", 2019.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kerasline.components.charts import number_text, value_text
from kerasline.pipeline.report.evaluation import Evaluated, evaluations
from kerasline.pipeline.report.gather import Gathered
from kerasline.pipeline.report.overview import verdicts
from kerasline.pipeline.report.samples import FILE

MOST_SLICES = 20
MOST_SAMPLES = 3  # of each kind and answer
# The entries that a person writes, by label, with a description of the expected content.
WRITTEN_BY_PEOPLE = {
    "Authors": "who developed the model, and whom to contact about it",
    "License": "the terms under which it may be used",
    "Citation": "papers or pages about it",
    "Intended use": "the purposes that it was developed for",
    "Intended users": "the people or systems meant to use it",
    "Out-of-scope uses": "uses that it is not suitable for",
    "Factors": "groups, instruments and environments that may affect its performance",
    "Data source": "the origin of the data, how it was collected, and its terms of use",
    "Ethical considerations": "sensitive data, possible harms, and mitigations",
    "Caveats and recommendations": "what was not tested, and advice for users",
}


@dataclass(frozen=True)
class Line:
    """A labelled statement; `known` is False if a person has yet to write it."""

    label: str
    text: str
    known: bool = True


@dataclass(frozen=True)
class Part:
    """A section of the card: statements, then an optional table."""

    title: str
    lines: Sequence[Line]
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()


def model_card(gathered: Gathered) -> list[Part]:
    paragraphs = labelled(gathered.docstring)
    found = evaluations(gathered)
    return [
        _details(gathered, paragraphs),
        Part("Intended use", _written(paragraphs, "Intended use", "Intended users", "Out-of-scope uses")),
        Part("Factors", [*_written(paragraphs, "Factors"), *_slicings(found)]),
        Part("Metrics", _metrics(gathered, found)),
        Part("Evaluation data", _evaluation_data(found)),
        Part("Training data", [*_written(paragraphs, "Data source"), *_training_data(gathered)]),
        _quantitative(found),
        *_samples(gathered),
        Part("Ethical considerations", _written(paragraphs, "Ethical considerations")),
        Part("Caveats and recommendations", _caveats(gathered, found, paragraphs)),
    ]


def labelled(docstring: str) -> dict[str, str]:
    """Return the paragraphs that start with a label of `WRITTEN_BY_PEOPLE` and a colon, by label."""
    paragraphs = {}
    for paragraph in re.split(r"\n\s*\n", docstring):
        label, colon, text = " ".join(paragraph.split()).partition(":")
        known = {name.lower(): name for name in WRITTEN_BY_PEOPLE}.get(label.lower())
        if colon and known and text.strip():
            paragraphs[known] = text.strip()
    return paragraphs


def as_markdown(gathered: Gathered, parts: Sequence[Part]) -> str:
    """Return the card as Markdown. Every text is escaped."""
    lines = [f"# Model card: {_escaped(gathered.run.pipeline)}", "", f"Run {_escaped(gathered.run.id)}.", ""]
    for part in parts:
        lines += [f"## {part.title}", ""]
        for line in part.lines:
            text = _escaped(line.text) if line.known else f"**To fill in:** {_escaped(line.text)}"
            lines.append(f"- **{_escaped(line.label)}**: {text}")
        lines += [""] if part.lines else []
        if part.rows:
            lines += [
                _row(part.columns),
                _row(["---"] * len(part.columns), escape=False),
                *map(_row, part.rows),
                "",
            ]
    return "\n".join(lines).rstrip() + "\n"


def _written(paragraphs: Mapping[str, str], *labels: str) -> list[Line]:
    return [Line(label, paragraphs.get(label) or WRITTEN_BY_PEOPLE[label], label in paragraphs) for label in labels]


def _details(gathered: Gathered, paragraphs: Mapping[str, str]) -> Part:
    run = gathered.run
    lines = [Line("Name", run.pipeline), Line("Version", f"run {run.id}"), Line("Date", f"{run.started:%Y-%m-%d}")]
    about = " ".join(gathered.docstring.partition("\n\n")[0].split())
    if about and not labelled(about):
        lines.append(Line("Description", about))
    for stage, output in gathered.outputs("Model"):
        training, summary = output.json("training.json"), output.json("summary.json") or {}
        if training:
            layers, parameters = len(summary.get("layers") or ()), number_text(summary.get("parameters"))
            steps = f"{number_text(training.get('steps'))} steps on {training.get('device')}"
            given = {name: stage.parameters.get(name) for name in ("epochs", "steps", "batch_size", "seed")}
            lines += [
                Line("Type", f"Keras model of {layers} layers, {parameters} parameters"),
                Line("Training algorithm", f"{summary.get('optimizer')}, loss {summary.get('loss')}, {steps}"),
                Line("Training parameters", ", ".join(f"{k} {v}" for k, v in given.items() if v is not None)),
            ]
    for stage, _ in gathered.outputs("PushedModel"):
        lines.append(Line("Pushed to", str(stage.metrics.get("path", ""))))
    return Part("Model details", [*lines, *_written(paragraphs, "Authors", "License", "Citation")])


def _slicings(found: Sequence[Evaluated]) -> list[Line]:
    return [
        Line("Evaluated by", ", ".join(f"{s['name']} ({s['slices']} slices)" for s in evaluated.facts["slicings"]))
        for evaluated in found
        if evaluated.facts.get("slicings")
    ]


def _metrics(gathered: Gathered, found: Sequence[Evaluated]) -> list[Line]:
    lines = []
    for evaluated in found:
        whole = [e for output in evaluated.outputs for e in evaluated.entries(output, whole=True)]
        lines.append(Line("Measures of performance", ", ".join(dict.fromkeys(evaluated.title(e) for e in whole))))
        kinds = sorted({e["interval"] for e in whole if e.get("interval")})
        if kinds:
            lines.append(Line("Uncertainty", f"{evaluated.confidence} intervals ({', '.join(kinds)})"))
    for verdict in verdicts(gathered):
        rules = "; ".join(f"{rule['text']} ({'kept' if rule['kept'] else 'not kept'})" for rule in verdict["rules"])
        outcome = "blessed" if verdict["blessed"] else "refused"
        lines.append(Line("Decision", f"{outcome}: {rules}" if rules else outcome))
    return lines


def _evaluation_data(found: Sequence[Evaluated]) -> list[Line]:
    if not found:
        return [Line("Evaluation", "none in this run")]
    return [
        Line(
            "Split",
            f"{e.facts.get('split')}, {number_text(e.facts.get('rows'))} rows held out"
            + (", weighted" if e.facts.get("weighted") else ""),
        )
        for e in found
    ]


def _training_data(gathered: Gathered) -> list[Line]:
    lines = []
    for _, _, examples in gathered.documents("Examples", "examples.json"):
        splits = examples.get("splits") or {}
        sizes = {split: sum(shard["rows"] for shard in shards) for split, shards in splits.items()}
        lines.append(Line("Rows", ", ".join(f"{split} {number_text(rows)}" for split, rows in sizes.items())))
    for _, _, facts in gathered.documents("Preprocessing", "preprocessing.json"):
        lines.append(Line("Label", value_text(facts.get("label"))))
        states = [str(state.get("layer")) for state in facts.get("state") or ()]
        if states:
            lines.append(Line("Preprocessing", f"adapted on the training rows: {', '.join(states)}"))
    return lines


def _quantitative(found: Sequence[Evaluated]) -> Part:
    """Return the metrics for all rows, and the main metric of each output for the worst slices."""
    rows, notes = [], [] if found else [Line("Evaluation", "none in this run")]
    for evaluated in found:
        for output in evaluated.outputs:
            whole = evaluated.entries(output, whole=True)
            rows += [_result(evaluated, entry) for entry in whole]
            main = whole[0]["metric"] if whole else None
            sliced = [
                e for e in evaluated.entries(output, whole=False) if e["metric"] == main and e["value"] is not None
            ]
            sliced.sort(key=lambda e: e["value"], reverse=bool(sliced) and sliced[0].get("direction") == "down")
            rows += [_result(evaluated, entry) for entry in sliced[:MOST_SLICES]]
        notes += [_gap(gap) for gap in evaluated.facts.get("fairness") or ()]
    return Part("Quantitative analyses", notes, ("group", "metric", "value", "interval", "rows"), rows)


def _samples(gathered: Gathered) -> list[Part]:
    """Return the worst and some random answers, or no part if there are none."""
    rows = []
    for _, _, facts in gathered.documents("Evaluation", FILE):
        for group in facts.get("groups") or ():
            shown = [row for row in group["rows"] if row["answer"] is not None]
            for kind in ("worst", "random"):
                for row in [row for row in shown if row["kind"] == kind][:MOST_SAMPLES]:
                    name, score = f"{kind} {row['row']}", number_text(row["score"])
                    rows.append((group["output"], name, score, row["reference"] or "", row["answer"]))
    return [Part("Samples", [], ("answer", "row", "score", "reference", "answered"), rows)] if rows else []


def _gap(gap: Mapping[str, Any]) -> Line:
    size = f"{number_text(gap['gap'])} ({number_text(gap.get('low'))} to {number_text(gap.get('high'))})"
    return Line(
        "Fairness",
        f"{gap['definition']} by {gap['slicing']}: gap {size}, highest {gap['most']}, lowest {gap['least']}",
    )


def _result(evaluated: Evaluated, entry: Mapping[str, Any]) -> tuple[str, ...]:
    where = f"{entry['slicing']}: {entry['slice']}" if entry.get("slicing") else "all rows"
    known = entry.get("low") is not None and entry.get("high") is not None
    interval = f"{number_text(entry['low'])} to {number_text(entry['high'])}" if known else ""
    count = number_text(entry.get("rows")) + (" (small)" if entry.get("small") else "")
    return where, evaluated.title(entry), number_text(entry["value"]), interval, count


def _caveats(gathered: Gathered, found: Sequence[Evaluated], paragraphs: Mapping[str, str]) -> list[Line]:
    lines = _written(paragraphs, "Caveats and recommendations")
    for evaluated in found:
        lines += [Line("Evaluation note", note) for note in evaluated.facts.get("notes") or ()]
    if gathered.run.state != "succeeded":
        lines.append(Line("Run state", f"{gathered.run.state}; missing entries were not produced"))
    return lines


def _row(cells: Sequence[str], escape: bool = True) -> str:
    return "| " + " | ".join(_escaped(cell) if escape else cell for cell in cells) + " |"


def _escaped(text: str) -> str:
    """Escape a text for Markdown, so that it cannot become markup, HTML or a new line."""
    return re.sub(r"([\\`*_{}\[\]<>#|!~])", r"\\\1", " ".join(str(text).split()))
