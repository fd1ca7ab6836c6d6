"""The parameters of Exporter."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from kerasline.components.core.errors import ParameterError
from kerasline.components.core.parameters import PositiveFloat, SplitName
from kerasline.components.evaluator.settings import BoxFormat, EvaluatorSettings
from kerasline.components.models.signatures import DEFAULT_SIGNATURE

FormName = Literal["float16", "bfloat16", "int8_weights", "int4_weights", "int8", "litert", "onnx"]


@dataclass(frozen=True, kw_only=True)
class ExporterSettings:
    """The parameters of Exporter, which documents them."""

    answer: Callable[..., Any] | dict[str, Callable[..., Any]] | None = None
    stream: bool = False
    forms: list[FormName] = field(default_factory=list)
    max_quality_loss: dict[str, float] = field(default_factory=dict)
    task: str | dict[str, str] | None = None
    reference: str | dict[str, str] | None = None
    detection_columns: dict[str, str] = field(default_factory=dict)
    box_format: BoxFormat = "xyxy"
    split: SplitName = "test"
    op_libraries: list[str] = field(default_factory=list)
    measure_seconds: PositiveFloat = 5.0

    @property
    def judging(self) -> EvaluatorSettings:
        """How the forms are judged, as Evaluator does."""
        return EvaluatorSettings(
            task=self.task,
            reference=self.reference,
            detection_columns=self.detection_columns,
            box_format=self.box_format,
            split=self.split,
            replicates=0,
        )


# Signatures that Exporter writes for `serving_default` too.
DERIVED_SIGNATURES = ("serve_tf_examples", "predict_preprocessed", "transform_features")


def check_signatures(names: Iterable[str]) -> None:
    """Raise a ParameterError if answering functions by signature lack the default one or have a reserved name."""
    if DEFAULT_SIGNATURE not in names:
        raise ParameterError(
            f"Exporter.answer: expected a function for {DEFAULT_SIGNATURE!r} among the signatures, received "
            f"{', '.join(map(repr, names)) or 'none'}"
        )
    for name in set(DERIVED_SIGNATURES) & set(names):
        raise ParameterError(
            f"Exporter.answer: {name!r} is written for {DEFAULT_SIGNATURE!r} already; give that function another name"
        )


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
