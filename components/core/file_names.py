"""File names for columns, layers and labels, whose names may be any text."""

from __future__ import annotations

import re
from collections.abc import Iterable

# Leaves room for prefixes and suffixes: file systems allow 255 bytes, and a character takes up to four.
MAX_CHARACTERS = 50


def file_names(names: Iterable[str]) -> dict[str, str]:
    """Return a file name for each name: the name itself where it is a valid one, else similar to it and unique.

    >>> file_names(["fare", "a/b", "a b", "a_b"])
    {'fare': 'fare', 'a/b': 'a_b_1', 'a b': 'a_b_2', 'a_b': 'a_b'}
    """
    names = list(dict.fromkeys(names))
    found: dict[str, str] = {}
    for number, name in enumerate(names):
        safe = re.sub(r"[^\w.-]", "_", name)[:MAX_CHARACTERS]
        if safe != name:
            safe = f"{safe}_{number}"
            while safe in names or safe in found.values():
                safe += "_"
        found[name] = safe
    return found
