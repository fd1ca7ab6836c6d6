"""Python source in the form that ruff and black give it."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

WIDTH = 115


def call(head: str, arguments: Sequence[str], after: str = "") -> str:
    """`head(arguments)`: on one line, or the arguments on a line of their own, or on one each."""
    return enclosed(f"{head}(", arguments, f"){after}")


def enclosed(opening: str, items: Sequence[str], closing: str) -> str:
    """The items between brackets; the opening begins with the line's indentation."""
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
    """A value as source, its texts in double quotes."""
    if isinstance(value, str):
        return text(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{literal(key)}: {literal(one)}" for key, one in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(literal, value)) + "]"
    return repr(value)


def text(value: str) -> str:
    """A text as source, in the quotes that want fewer escapes: double ones where it is the same."""
    escaped = value.replace("\\", "\\\\") if value.isprintable() else value.encode("unicode_escape").decode("ascii")
    quote = '"' if value.count('"') <= value.count("'") else "'"
    return quote + escaped.replace(quote, f"\\{quote}") + quote


def shorten(value: str) -> str:
    """A text that fits in a line of its own."""
    return textwrap.shorten(value, WIDTH - 20, placeholder=" ...")


def below_root(value: str, root: str) -> str:
    """A text as source in which the pipeline root is the variable ROOT."""
    if root not in value:
        return text(value)
    return "f" + text(value.replace("{", "{{").replace("}", "}}").replace(root, "{ROOT}"))
