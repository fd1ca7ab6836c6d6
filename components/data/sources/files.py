"""Naming files: a path, a glob, or a pattern with spans, versions and dates as TFX has them."""

from __future__ import annotations

import datetime
import glob
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kerasline.components.core.errors import DataError, ParameterError

_DATE = ("{YYYY}", "{MM}", "{DD}")
_PLACES = {
    "{SPAN}": r"(?P<SPAN>\d+)",
    "{VERSION}": r"(?P<VERSION>\d+)",
    "{YYYY}": r"(?P<YYYY>\d{4})",
    "{MM}": r"(?P<MM>\d{2})",
    "{DD}": r"(?P<DD>\d{2})",
}


@dataclass(frozen=True)
class Found:
    """Files, in order, by the span that they belong to: a number, or a date as YYYY-MM-DD; or none."""

    by_span: Mapping[str | None, Sequence[Path]]

    @property
    def files(self) -> list[Path]:
        return [path for files in self.by_span.values() for path in files]

    @property
    def spans(self) -> list[str]:
        return [span for span in self.by_span if span is not None]


def find_files(pattern: str, span: str | None = None) -> Found:
    """The files that a pattern names.

    Args:
        pattern: a path, a glob (`**` reaches into folders), or one with `{SPAN}` or
            `{YYYY}-{MM}-{DD}` and `{VERSION}`. Of several versions the newest is taken.
        span: which spans: the newest by default, one (`7`, `2026-11-03`), a range with both ends
            (`3:7`, `2026-11-01:2026-11-07`), or the newest several (`last 5`).

    Raises:
        DataError: there are none, or it is a folder.
        ParameterError: `span` cannot be read, or the pattern has no place for it.
    """
    if any(place in pattern for place in _PLACES):
        return _of_spans(pattern, span)
    if span is not None:
        raise ParameterError(f"ExampleGen.span: {pattern} has no {{SPAN}} or {{YYYY}}-{{MM}}-{{DD}}")
    path = Path(pattern)
    if path.is_dir():
        raise DataError(f"{pattern}: a folder; name its files, for instance {pattern.rstrip('/')}/*")
    matches = [path] if path.is_file() else [Path(p) for p in sorted(glob.glob(pattern, recursive=True))]
    files = [path for path in matches if path.is_file()]
    if not files:
        raise DataError(f"{pattern}: no such file; set ExampleGen.input to a path or a glob")
    return Found({None: files})


def _of_spans(pattern: str, wanted: str | None) -> Found:
    has_date = [place in pattern for place in _DATE]
    if any(has_date) != all(has_date) or all(has_date) == ("{SPAN}" in pattern):
        raise ParameterError(f"ExampleGen.input: {pattern} needs either {{SPAN}} or all of {{YYYY}}, {{MM}} and {{DD}}")
    by_span: dict[object, dict[int, list[Path]]] = {}
    for path, parts in _matches(pattern):
        span = int(parts["SPAN"]) if "SPAN" in parts else _date(pattern, parts)
        if span is not None:
            versions = by_span.setdefault(span, {})
            versions.setdefault(int(parts.get("VERSION", 0)), []).append(path)
    if not by_span:
        raise DataError(f"{pattern}: no file fits it; set ExampleGen.input to where the spans are")
    chosen = _chosen(sorted(by_span), wanted)
    return Found({str(span): by_span[span][max(by_span[span])] for span in chosen})


def _matches(pattern: str) -> list[tuple[Path, dict[str, str]]]:
    """The files that the pattern fits, with the texts that its places stand for."""
    loose = pattern
    for place in _PLACES:
        loose = loose.replace(place, "*")
    exact = "".join(
        _PLACES.get(part)
        or re.escape(part).replace(r"\*\*/", "(?:.*/)?").replace(r"\*", "[^/]*").replace(r"\?", "[^/]")
        for part in re.split(r"(\{[A-Z]+\})", pattern)
    )
    seen: set[str] = set()
    for place in re.findall(r"\(\?P<(\w+)>", exact):  # a place that stands twice has one value
        if place in seen:
            head, _, tail = exact.rpartition(_PLACES["{" + place + "}"])
            exact = f"{head}(?P={place}){tail}"
        seen.add(place)
    found = []
    for name in sorted(glob.glob(loose, recursive=True)):
        match = re.fullmatch(exact, name)
        if match and Path(name).is_file():
            found.append((Path(name), match.groupdict()))
    return found


def _date(pattern: str, parts: dict[str, str]) -> datetime.date | None:
    try:
        return datetime.date(int(parts["YYYY"]), int(parts["MM"]), int(parts["DD"]))
    except ValueError:  # a folder named 2026-13-45 is no date
        return None


def _chosen(spans: Sequence, wanted: str | None) -> list:
    if wanted is None:
        return [spans[-1]]
    last = re.fullmatch(r"last (\d+)", wanted)
    if last and int(last.group(1)):
        return list(spans[-int(last.group(1)) :])
    read = datetime.date.fromisoformat if isinstance(spans[0], datetime.date) else int
    try:
        ends = [read(end.strip()) for end in wanted.split(":")]
    except ValueError:
        ends = []
    if len(ends) not in (1, 2):
        raise ParameterError(
            f"ExampleGen.span: {wanted!r} is neither a span ({spans[-1]}), a range "
            f"({spans[0]}:{spans[-1]}), nor 'last N'"
        )
    found = [span for span in spans if ends[0] <= span <= ends[-1]]
    if not found:
        raise DataError(f"ExampleGen.span: no span in {wanted}; there are {spans[0]} to {spans[-1]}")
    return found
