"""Run a recipe as a process, and return its nodes with their outputs, metrics and seconds."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

PROGRAM = [sys.executable, str(Path(__file__).resolve().parent.parent / "run_pipeline.py"), "run"]


class RecipeRun(NamedTuple):
    """The nodes of a run as `--json` writes them, by name, and the seconds it took."""

    nodes: dict[str, dict[str, Any]]
    seconds: float


def run_recipe(recipe: str, root: Path, settings: Iterable[str], *, last: str | None = None) -> RecipeRun:
    """Run a recipe, whose progress is printed to stderr.

    Args:
        root: the artifact root.
        settings: values of `--set`, such as `Trainer.epochs=2`.
        last: the last node to run. By default all run.
    """
    root.mkdir(parents=True, exist_ok=True)
    summary = root / "benchmark.json"
    command = [*PROGRAM, recipe, "--root", str(root), "--json", str(summary)]
    command += ["--to", last] if last else []
    command += [part for setting in settings for part in ("--set", setting)]
    subprocess.run(command, check=True, stdout=sys.stderr)
    result = json.loads(summary.read_text())
    return RecipeRun({node["name"]: node for node in result["nodes"]}, result["seconds"])
