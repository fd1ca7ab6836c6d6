"""Where child processes import kerasline and the user's modules from."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import sys
from pathlib import Path

import kerasline


@functools.cache
def package_root() -> str | None:
    """The folder to put on `PYTHONPATH` for another process to import this kerasline; None where it is installed."""
    try:
        importlib.metadata.distribution("kerasline")
    except importlib.metadata.PackageNotFoundError:
        return str(Path(kerasline.__file__).resolve().parents[1])
    return None


def search_path() -> list[str]:
    """Where this process looks for modules, in order, as entries for another process's `PYTHONPATH`."""
    entries = [*sys.path, *os.environ.get("PYTHONPATH", "").split(os.pathsep), package_root()]
    return list(dict.fromkeys(entry for entry in entries if entry))


def source_folders() -> tuple[Path, ...]:
    """The folders that hold kerasline's own source files."""
    import kerasline.components
    import kerasline.pipeline

    packages = (kerasline, kerasline.components, kerasline.pipeline)
    return tuple(Path(package.__path__[0]).resolve() for package in packages)
