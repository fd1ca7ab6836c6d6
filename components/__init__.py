"""The stages, one file each, and the contract that they keep.

Importing this package imports no stage: `from components import Trainer` loads what it needs.
"""

from __future__ import annotations

import importlib
from typing import Any

_MODULES = {
    "base": ("Channel", "Component", "Context", "Input", "LastBlessed", "Output", "Parameter", "component"),
    "example_gen": (
        "CsvExampleGen", "ParquetExampleGen", "TfRecordExampleGen", "JsonExampleGen",
        "MediaExampleGen", "SqlExampleGen", "InMemoryExampleGen", "TfdsExampleGen",
    ),
    "statistics_gen": ("StatisticsGen",),
    "schema_gen": ("SchemaGen", "ImportSchemaGen"),
    "example_validator": ("ExampleValidator",),
    "transform": ("Transform",),
    "model_builder": ("ModelBuilder",),
    "tuner": ("Tuner",),
    "trainer": ("Trainer",),
    "evaluator": ("Evaluator",),
    "explainer": ("Explainer",),
    "exporter": ("Exporter",),
    "infra_validator": ("InfraValidator",),
    "pusher": ("Pusher",),
    "bulk_inferrer": ("BulkInferrer",),
}  # fmt: skip
_HOME = {name: module for module, names in _MODULES.items() for name in names}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'components' has no attribute {name!r}")
    return getattr(importlib.import_module(f"components.{_HOME[name]}"), name)
