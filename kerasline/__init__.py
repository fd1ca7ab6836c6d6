"""Pipelines for Keras 3 on TensorFlow, in TFX-style stages chained and run by Apache Beam.

>>> import kerasline as kl
>>> examples = kl.CsvExampleGen("trips.csv")
>>> statistics = kl.StatisticsGen(examples)
>>> kl.Pipeline("trips", [statistics]).order
['ExampleGen', 'StatisticsGen']

The public names are listed in `__init__.pyi`; each is imported when it is first used, so that importing kerasline
imports neither TensorFlow nor Beam.
"""

import importlib
import re
from pathlib import Path
from typing import Any

_STUB = Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8")
_MODULES = {name: module for module, name in re.findall(r"^from (\.\S*) import (\w+) as", _STUB, re.MULTILINE)}
__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used. The standard library suffices, as in the environment of Airflow."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if _MODULES[name] == ".":
        return importlib.import_module(f".{name}", __name__)
    value = getattr(importlib.import_module(_MODULES[name], __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


# In a checkout, components/ and pipeline/ lie beside this folder. An installed kerasline has them within it.
_CHECKOUT = Path(__file__).resolve().parent.parent
if not Path(__file__).with_name("components").is_dir() and (_CHECKOUT / "components").is_dir():
    __path__.append(str(_CHECKOUT))
