"""Recipes with other settings, through the command line."""

from __future__ import annotations

import pytest


def run_recipe(cli, recipe, folder, settings, *more):
    """Run a recipe. Return the nodes of its summary by name.

    Args:
        cli: the fixture.
        folder: where the root and summary.json are written.
        settings: values of `--set`, by stage and parameter.
        *more: further arguments of `run`.
    """
    arguments = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
    result = cli("run", recipe, "--root", folder / "root", "--json", folder / "summary.json", *arguments, *more)
    assert result.returncode == 0, result.stderr
    return {node["name"]: node for node in result.summary["nodes"]}


def require_language_libraries():
    """Skip the tests of a module without what the recipes of language import."""
    for library in ("keras_hub", "tensorflow_text", "sentencepiece"):
        pytest.importorskip(
            library, reason="the libraries of language are not installed: pip install 'kerasline[language]'"
        )
