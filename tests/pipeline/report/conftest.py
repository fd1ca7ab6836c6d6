"""Reports of real runs and of a built one, each made once in a session; and their pages as trees."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import html5lib
import pytest

from tests import forking
from tests.conftest import REPOSITORY
from tests.pipeline.report.builders import build

QUICK = REPOSITORY / "tests" / "pipeline" / "quick.py"


@dataclass(frozen=True)
class Made:
    """A written report: its files, the content of its `--json` file, and its page as a tree."""

    html: Path
    card: Path
    summary: dict
    tree: object

    def section(self, name: str):
        (found,) = [e for e in self.tree.iter("section") if e.get("id") == name]
        return found

    def text(self, name: str) -> str:
        return text_of(self.section(name))

    def table(self, caption: str) -> list[list[str]]:
        """Return the rows of a table body as texts."""
        for table in self.tree.iter("table"):
            if any(text_of(e) == caption for e in table.iter("caption")):
                return [[text_of(cell) for cell in row] for row in table.find("tbody")]
        raise AssertionError(f"no table {caption!r}")


def text_of(element) -> str:
    return " ".join(" ".join(element.itertext()).split())


def call(*arguments) -> subprocess.CompletedProcess:
    command = [sys.executable, str(REPOSITORY / "run_pipeline.py"), *map(str, arguments)]
    return forking.run(command, capture_output=True, text=True, timeout=600)


def report(root: Path, *arguments) -> Made:
    """Write a report with the command line."""
    path = root / f"report-{os.getpid()}.json"
    result = call("report", *arguments, "--root", root, "--json", path)
    assert result.returncode == 0, result.stderr
    summary = json.loads(path.read_text())
    page = Path(summary["report"])
    assert result.stdout.splitlines() == [summary["report"]]
    # Strict: a page that HTML5 calls wrong raises.
    parser = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False)
    return Made(page, Path(summary["card"]), summary, parser.parse(page.read_text(encoding="utf-8")))


def made_once(tmp_path_factory, name: str, make: Callable[[Path], None]) -> Path:
    """Return the folder that `make` fills, once for all processes that run the tests."""
    own = tmp_path_factory.getbasetemp()
    root = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / name
    with open(f"{root}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (mark := root.with_suffix(".made")).exists():
            make(root)
            mark.touch()
    return root


@pytest.fixture(scope="session")
def penguins(tmp_path_factory) -> Made:
    """Return a real run of the main job."""

    def make(root: Path) -> None:
        arguments = ["--set", "Trainer.epochs=2", "--set", "Evaluator.thresholds={}"]
        result = call("run", "--root", root, "--run-id", "one", *arguments)
        assert result.returncode == 0, result.stderr

    return report(made_once(tmp_path_factory, "reported-penguins", make), "one")


@pytest.fixture(scope="session")
def rich_root(tmp_path_factory) -> Path:
    def make(root: Path) -> None:
        build(root, "rich")
        build(root, "weaker", strength=0.001, epochs=6)

    return made_once(tmp_path_factory, "reported-rich", make)


@pytest.fixture(scope="session")
def rich(rich_root) -> Made:
    """Everything that a report can show, and a comparison."""
    return report(rich_root, "rich", "--against", "weaker")
