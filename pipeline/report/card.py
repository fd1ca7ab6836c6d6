"""The model card: what is known filled in, what only a human can say taken from the docstring or left open.

Sections and their order are those of Mitchell et al., "Model Cards for Model Reporting", 2019.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kerasline.components.charts import number_text
from kerasline.pipeline.report.evaluation import Evaluated, evaluations
from kerasline.pipeline.report.gather import Gathered
from kerasline.pipeline.report.overview import verdicts

MOST_SLICES = 20
# What people say, by the label that begins a paragraph of the docstring, and what to write there.
TO_SAY = {
    "Authors": "who made the model, and whom to ask about it",
    "License": "under what terms it may be used",
    "Citation": "papers or pages about it",
    "Intended use": "what it is made for",
    "Intended users": "who is meant to use it",
    "Out-of-scope uses": "what it should not be used for",
    "Factors": "groups, instruments and surroundings that may matter for how well it works",
    "Data source": "where the data comes from, how it was collected, and under what terms",
    "Ethical considerations": "sensitive data, harms, and what was done about them",
    "Caveats and recommendations": "what was not tested, and what a user should know",
}


@dataclass(frozen=True)
class Line:
    """A labelled statement; `known` is False where a human has yet to write it."""

    label: str
    text: str
    known: bool = True


@dataclass(frozen=True)
class Part:
    """A section of the card: statements, then a table if there is one."""

    title: str
    lines: Sequence[Line]
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()


def model_card(gathered: Gathered) -> list[Part]:
    said = labelled(gathered.docstring)
    found = evaluations(gathered)
    return [
        _details(gathered, said),
        Part("Intended use", _asked(said, "Intended use", "Intended users", "Out-of-scope uses")),
        Part("Factors", [*_asked(said, "Factors"), *_slicings(found)]),
        Part("Metrics", _metrics(gathered, found)),
        Part("Evaluation data", _evaluation_data(found)),
        Part("Training data", [*_asked(said, "Data source"), *_training_data(gathered)]),
        _quantitative(found),
        Part("Ethical considerations", _asked(said, "Ethical considerations")),
        Part("Caveats and recommendations", _caveats(gathered, found, said)),
    ]


def labelled(docstring: str) -> dict[str, str]:
    """Paragraphs that begin with a label of `TO_SAY` and a colon, by label."""
    said = {}
    for paragraph in re.split(r"\n\s*\n", docstring):
        label, colon, text = " ".join(paragraph.split()).partition(":")
        known = {name.lower(): name for name in TO_SAY}.get(label.lower())
        if colon and known and text.strip():
            said[known] = text.strip()
    return said


def as_markdown(gathered: Gathered, parts: Sequence[Part]) -> str:
    """The card as a Markdown file; every text is escaped."""
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


def _asked(said: Mapping[str, str], *labels: str) -> list[Line]:
    return [Line(label, said.get(label) or TO_SAY[label], label in said) for label in labels]


def _details(gathered: Gathered, said: Mapping[str, str]) -> Part:
    run = gathered.run
    lines = [Line("Name", run.pipeline), Line("Version", f"run {run.id}"), Line("Date", f"{run.started:%Y-%m-%d}")]
    about = " ".join(gathered.docstring.partition("\n\n")[0].split())
    if about and not labelled(about):
        lines.append(Line("Description", about))
    for stage, output in gathered.outputs("Model"):
        training, summary = output.json("training.json"), output.json("summary.json") or {}
        if training:
            layers = len(summary.get("layers") or ())
            lines.append(
                Line("Type", f"Keras model of {layers} layers, {number_text(summary.get('parameters'))} parameters")
            )
            lines.append(
                Line(
                    "Training algorithm",
                    f"{summary.get('optimizer')}, loss {summary.get('loss')}, "
                    f"{number_text(training.get('steps'))} steps on {training.get('device')}",
                )
            )
            given = {
                k: v
                for k, v in stage.parameters.items()
                if k in ("epochs", "steps", "batch_size", "seed") and v is not None
            }
            lines.append(Line("Training parameters", ", ".join(f"{k} {v}" for k, v in given.items())))
    for stage, _ in gathered.outputs("PushedModel"):
        lines.append(Line("Pushed to", str(stage.metrics.get("path", ""))))
    return Part("Model details", [*lines, *_asked(said, "Authors", "License", "Citation")])


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
        rules = "; ".join(f"{rule['said']} ({'kept' if rule['kept'] else 'not kept'})" for rule in verdict["rules"])
        lines.append(
            Line("Decision", f"{'blessed' if verdict['blessed'] else 'refused'}{': ' + rules if rules else ''}")
        )
    return lines


def _evaluation_data(found: Sequence[Evaluated]) -> list[Line]:
    if not found:
        return [Line("Evaluation", "the run has none")]
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
    for stage, output in gathered.outputs("Examples"):
        splits = (output.json("examples.json") or {}).get("splits") or {}
        sizes = {split: sum(shard["rows"] for shard in shards) for split, shards in splits.items()}
        lines.append(Line("Rows", ", ".join(f"{split} {number_text(rows)}" for split, rows in sizes.items())))
    for stage, output in gathered.outputs("Preprocessing"):
        facts = output.json("preprocessing.json") or {}
        lines.append(Line("Learned", f"{facts.get('label')}"))
        states = [str(state.get("layer")) for state in facts.get("state") or ()]
        if states:
            lines.append(Line("Preprocessing", f"adapted to the training rows: {', '.join(states)}"))
    return lines


def _quantitative(found: Sequence[Evaluated]) -> Part:
    """Unitary results: the main metric of each output, of all rows and of the slices that do worst."""
    rows, notes = [], [] if found else [Line("Evaluation", "the run has none")]
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


def _gap(gap: Mapping[str, Any]) -> Line:
    size = f"{number_text(gap['gap'])} ({number_text(gap.get('low'))} to {number_text(gap.get('high'))})"
    return Line(
        "Fairness",
        f"{gap['definition']} by {gap['slicing']}: gap {size}, most {gap['most']}, least {gap['least']}",
    )


def _result(evaluated: Evaluated, entry: Mapping[str, Any]) -> tuple[str, ...]:
    where = f"{entry['slicing']}: {entry['slice']}" if entry.get("slicing") else "all rows"
    known = entry.get("low") is not None and entry.get("high") is not None
    interval = f"{number_text(entry['low'])} to {number_text(entry['high'])}" if known else ""
    count = number_text(entry.get("rows")) + (" (few)" if entry.get("small") else "")
    return where, evaluated.title(entry), number_text(entry["value"]), interval, count


def _caveats(gathered: Gathered, found: Sequence[Evaluated], said: Mapping[str, str]) -> list[Line]:
    lines = _asked(said, "Caveats and recommendations")
    for evaluated in found:
        lines += [Line("Note of the evaluation", note) for note in evaluated.facts.get("notes") or ()]
    if gathered.run.state != "succeeded":
        lines.append(Line("The run", f"{gathered.run.state}; what is missing here was not made"))
    return lines


def _row(cells: Sequence[str], escape: bool = True) -> str:
    return "| " + " | ".join(_escaped(cell) if escape else cell for cell in cells) + " |"


def _escaped(text: str) -> str:
    """As plain text of Markdown: no markup, HTML or new line can come of it."""
    return re.sub(r"([\\`*_{}\[\]<>#|!~])", r"\\\1", " ".join(str(text).split()))
