"""Output of commands: a table on the screen, or JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kerasline.components.core.atomic_files import atomic_write
from kerasline.components.core.errors import KeraslineError


def show_table(json_file: Path | None, columns: Sequence[str], rows: Sequence[Sequence[str]], value: Any) -> None:
    if json_file:
        write_json(json_file, value)
        return
    from kerasline.pipeline.commands.screen import console, plain_table

    console().print(plain_table(columns, rows))


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON; `-` is the screen."""
    text = json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n"
    if str(path) == "-":
        sys.stdout.write(text)
        return
    write_text(path, text, f"--json {path}")


def write_text(path: Path, text: str, target: str) -> None:
    """Write to a temporary file and rename it, so that readers never see a partial file."""
    try:
        with atomic_write(path) as aside:
            aside.write_text(text, encoding="utf-8")
    except OSError as error:
        raise KeraslineError(f"{target}: {error.strerror}") from error


def complain(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
