"""The environment of a stage: Python, the machine and versions of the relevant libraries."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
from typing import Any

LIBRARIES = (
    "kerasline",
    "tensorflow",
    "tensorflow-cpu",
    "keras",
    "apache-beam",
    "pyarrow",
    "numpy",
    "tensorflow-datasets",
    "tensorflow-metadata",
    "SQLAlchemy",
    "optuna",
)


@functools.cache
def here() -> dict[str, Any]:
    """Describe this process: `python`, `operating system`, `processors` and `libraries` by name. Imports none."""
    libraries = {}
    for name in LIBRARIES:
        try:
            libraries[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "python": platform.python_version(),
        "operating system": platform.platform(terse=True),
        "processors": os.cpu_count(),
        "libraries": libraries,
    }
