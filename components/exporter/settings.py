"""The parameters of Exporter."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from kerasline.components.core.errors import ParameterError
from kerasline.components.core.parameters import SplitName

FormName = Literal["float16", "bfloat16", "int8_weights", "int8", "litert", "onnx"]


@dataclass(frozen=True, kw_only=True)
class ExporterSettings:
    """The parameters of Exporter, which documents them."""

    forms: list[FormName] = field(default_factory=list)
    max_quality_loss: dict[str, float] = field(default_factory=dict)
    split: SplitName = "test"
    op_libraries: list[str] = field(default_factory=list)


def check_installed(forms: Iterable[str], op_libraries: Iterable[str]) -> None:
    """Raise a ParameterError if a form or the model needs a library that is not installed."""
    for package in op_libraries:
        if importlib.util.find_spec(package) is None:
            raise ParameterError(
                f"Exporter.op_libraries: {package!r} is not installed: pip install {package.replace('_', '-')}"
            )
    missing = [module for module in ("tf2onnx", "onnxruntime") if importlib.util.find_spec(module) is None]
    if "onnx" in forms and missing:
        raise ParameterError(f"Exporter.forms: onnx needs {' and '.join(missing)}: pip install 'kerasline[onnx]'")
