"""The parameters of Exporter."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

FormName = Literal["float16", "bfloat16", "int8_weights", "int8", "litert", "onnx"]


@dataclass(frozen=True, kw_only=True)
class ExporterSettings:
    """The parameters of Exporter, which documents them."""

    forms: list[FormName] = field(default_factory=list)
    max_quality_loss: dict[str, float] = field(default_factory=dict)
    split: str = "test"
