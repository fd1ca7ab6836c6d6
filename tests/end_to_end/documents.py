"""Read the documents: their code blocks, and their commands as words to execute."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

from tests.conftest import REPOSITORY

PROGRAM = [sys.executable, str(REPOSITORY / "run_pipeline.py")]


def blocks(path: Path, language: str) -> list[str]:
    """Return the code blocks of a language."""
    return re.findall(rf"```{language}\n(.*?)```", path.read_text(encoding="utf-8"), re.S)


def commands(path: Path) -> list[str]:
    """Return the lines of the bash blocks, without blank lines and comments."""
    lines = (line for block in blocks(path, "bash") for line in block.splitlines())
    return [line for line in lines if line.strip() and not line.startswith("#")]


def calls_kerasline(command: str) -> bool:
    """Return whether a command calls kerasline or one of its modules, in any of the documented ways."""
    return re.match(r"kerasline |python -m kerasline|python run_pipeline\.py ", command) is not None


def as_words(command: str) -> list[str]:
    """Return the words to execute: kerasline by this interpreter, anything else as it stands."""
    words = shlex.split(command, comments=True)
    if words[0] == "kerasline":
        return [*PROGRAM, *words[1:]]
    if words[:2] == ["python", "run_pipeline.py"]:
        return [*PROGRAM, *words[2:]]
    return [sys.executable, *words[1:]] if words[0] == "python" else words
