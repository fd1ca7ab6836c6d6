"""Finding files by a path, a glob, or a pattern with spans, versions and dates, as in TFX."""

from __future__ import annotations

import datetime
import glob
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kerasline.components.core.errors import DataError, ParameterError

_DATE = ("{YYYY}", "{MM}", "{DD}")
_PLACEHOLDERS = {
    "{SPAN}": r"(?P<SPAN>\d+)",
    "{VERSION}": r"(?P<VERSION>\d+)",
    "{YYYY}": r"(?P<YYYY>\d{4})",
    "{MM}": r"(?P<MM>\d{2})",
    "{DD}": r"(?P<DD>\d{2})",
}


@dataclass(frozen=True)
class MatchedFiles:
    """Files by span, in order. A span is a number, a date as YYYY-MM-DD, or None for a pattern without spans."""

    by_span: Mapping[str | None, Sequence[Path]]

    @property
    def files(self) -> list[Path]:
        return [path for files in self.by_span.values() for path in files]

    @property
    def spans(self) -> list[str]:
        return [span for span in self.by_span if span is not None]


def find_files(pattern: str, span: str | None = None) -> MatchedFiles:
    """Return the files that match a pattern.

    Args:
        pattern: a path, a glob (`**` matches nested folders), or either with `{SPAN}` or `{YYYY}-{MM}-{DD}`, and
            `{VERSION}`. Of several versions of a span, the newest is used.
        span: the spans to return: the newest by default, one (`7`, `2026-11-03`), an inclusive range (`3:7`,
            `2026-11-01:2026-11-07`), or the newest few (`last 5`).

    Raises:
        DataError: no file matches, or the pattern is a folder.
        ParameterError: `span` is malformed, or the pattern has no placeholder for it.
    """
    if any(placeholder in pattern for placeholder in _PLACEHOLDERS):
        return _find_spans(pattern, span)
    if span is not None:
        raise ParameterError(f"ExampleGen.span: the pattern {pattern} has no {{SPAN}} and no {{YYYY}}-{{MM}}-{{DD}}")
    path = Path(pattern)
    if path.is_dir():
        raise DataError(f"{pattern}: expected files, received a folder; give for example {pattern.rstrip('/')}/*")
    matches = [path] if path.is_file() else [Path(p) for p in sorted(glob.glob(pattern, recursive=True))]
    files = [path for path in matches if path.is_file()]
    if not files:
        raise DataError(f"{pattern}: no such file; set ExampleGen.input to a path or a glob")
    return MatchedFiles({None: files})


def _find_spans(pattern: str, selection: str | None) -> MatchedFiles:
    has_date = [placeholder in pattern for placeholder in _DATE]
    if any(has_date) != all(has_date) or all(has_date) == ("{SPAN}" in pattern):
        raise ParameterError(f"ExampleGen.input: {pattern} needs either {{SPAN}} or all of {{YYYY}}, {{MM}} and {{DD}}")
    by_span: dict[Any, dict[int, list[Path]]] = {}
    for path, parts in _matches(pattern):
        span = int(parts["SPAN"]) if "SPAN" in parts else _date(pattern, parts)
        if span is not None:
            versions = by_span.setdefault(span, {})
            versions.setdefault(int(parts.get("VERSION", 0)), []).append(path)
    if not by_span:
        raise DataError(f"{pattern}: no file matches the pattern; set ExampleGen.input to the location of the spans")
    selected = _select(sorted(by_span), selection)
    return MatchedFiles({str(span): by_span[span][max(by_span[span])] for span in selected})


def _matches(pattern: str) -> list[tuple[Path, dict[str, str]]]:
    """Return the files that match the pattern, each with the text of every placeholder."""
    loose = pattern
    for placeholder in _PLACEHOLDERS:
        loose = loose.replace(placeholder, "*")
    exact = "".join(
        _PLACEHOLDERS.get(part)
        or re.escape(part).replace(r"\*\*/", "(?:.*/)?").replace(r"\*", "[^/]*").replace(r"\?", "[^/]")
        for part in re.split(r"(\{[A-Z]+\})", pattern)
    )
    seen: set[str] = set()
    for name in re.findall(r"\(\?P<(\w+)>", exact):  # a repeated placeholder must have the same text
        if name in seen:
            head, _, tail = exact.rpartition(_PLACEHOLDERS["{" + name + "}"])
            exact = f"{head}(?P={name}){tail}"
        seen.add(name)
    matches = []
    for path in sorted(glob.glob(loose, recursive=True)):
        match = re.fullmatch(exact, path)
        if match and Path(path).is_file():
            matches.append((Path(path), match.groupdict()))
    return matches


def _date(pattern: str, parts: dict[str, str]) -> datetime.date | None:
    try:
        return datetime.date(int(parts["YYYY"]), int(parts["MM"]), int(parts["DD"]))
    except ValueError:  # such as 2026-13-45
        return None


def _select(spans: Sequence[Any], selection: str | None) -> list[Any]:
    if selection is None:
        return [spans[-1]]
    last = re.fullmatch(r"last (\d+)", selection)
    if last and int(last.group(1)):
        return list(spans[-int(last.group(1)) :])
    parse: Callable[[str], Any] = datetime.date.fromisoformat if isinstance(spans[0], datetime.date) else int
    try:
        ends = [parse(end.strip()) for end in selection.split(":")]
    except ValueError:
        ends = []
    if len(ends) not in (1, 2):
        raise ParameterError(
            f"ExampleGen.span: expected a span ({spans[-1]}), a range ({spans[0]}:{spans[-1]}) or 'last N', "
            f"received {selection!r}"
        )
    found = [span for span in spans if ends[0] <= span <= ends[-1]]
    if not found:
        raise DataError(f"ExampleGen.span: no span in {selection}; the spans are {spans[0]} to {spans[-1]}")
    return found
