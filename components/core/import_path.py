"""Where child processes import kerasline and the user's modules from."""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import os
import sys
from pathlib import Path

import kerasline


@functools.cache
def package_root() -> str | None:
    """Return the folder to put on `PYTHONPATH` for a child to import this kerasline, or None if it is installed."""
    try:
        importlib.metadata.distribution("kerasline")
    except importlib.metadata.PackageNotFoundError:
        return str(Path(kerasline.__file__).resolve().parents[1])
    return None


def search_path() -> list[str]:
    """Return the folders in which this process looks for modules, in order, for the `PYTHONPATH` of a child."""
    entries = [*sys.path, *os.environ.get("PYTHONPATH", "").split(os.pathsep), package_root()]
    return list(dict.fromkeys(entry for entry in entries if entry))


def source_folders() -> tuple[Path, ...]:
    """Return the folders that hold kerasline's own source files."""
    specs = (importlib.util.find_spec(f"kerasline{part}") for part in ("", ".components", ".pipeline"))
    folders = (next(iter(spec.submodule_search_locations or ())) for spec in specs if spec is not None)
    return tuple(Path(folder).resolve() for folder in folders)
