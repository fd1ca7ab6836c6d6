"""Generate Python source, formatted as ruff and black format it."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

WIDTH = 115


def call(head: str, arguments: Sequence[str], after: str = "") -> str:
    """Return the source of `head(arguments)`, with line breaks where it is too long for one line."""
    return enclosed(f"{head}(", arguments, f"){after}")


def enclosed(opening: str, items: Sequence[str], closing: str) -> str:
    """Return the source of items between brackets. `opening` begins with the indentation of the line."""
    line = f"{opening}{', '.join(items)}{closing}"
    if len(line) <= WIDTH:
        return line
    margin = " " * (len(opening) - len(opening.lstrip()))
    inner = f"{margin}    {', '.join(items)}"
    is_call = opening.endswith("(") and not opening.endswith("= (")
    if is_call and len(inner) <= WIDTH:
        return f"{opening}\n{inner}\n{margin}{closing}"
    rows = "".join(f"{margin}    {item},\n" for item in items)
    return f"{opening}\n{rows}{margin}{closing}"


def literal(value: Any) -> str:
    """Return the source of a value, with strings in double quotes."""
    if isinstance(value, str):
        return text(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{literal(key)}: {literal(one)}" for key, one in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(literal, value)) + "]"
    return repr(value)


def text(value: str) -> str:
    """Return the source of a string, in the quotes that need fewer escapes. Double quotes are preferred."""
    escaped = value.replace("\\", "\\\\") if value.isprintable() else value.encode("unicode_escape").decode("ascii")
    quote = '"' if value.count('"') <= value.count("'") else "'"
    return quote + escaped.replace(quote, f"\\{quote}") + quote


def shorten(value: str) -> str:
    """Return a text cut to fit on a line of its own."""
    return textwrap.shorten(value, WIDTH - 20, placeholder=" ...")


def below_root(value: str, root: str) -> str:
    """Return the source of a string in which the pipeline root is replaced by the variable ROOT."""
    if root not in value:
        return text(value)
    return "f" + text(value.replace("{", "{{").replace("}", "}}").replace(root, "{ROOT}"))
