"""What a stage ran in: Python, the machine, the versions of the libraries that matter."""

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
    """Of this process: `python`, `operating system`, `processors`, and `libraries` by name; imports none of them."""
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
