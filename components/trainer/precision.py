"""In which precision a model computes; its weights stay float32.

Micikevicius et al., "Mixed precision training", ICLR 2018; Kalamkar et al., "A study of BFLOAT16 for
deep learning training", 2019.
"""

from __future__ import annotations

from typing import Literal

import keras

Precision = Literal["float32", "mixed_bfloat16", "mixed_float16"]


def set_precision(model: keras.Model, precision: Precision) -> None:
    """Sets, in place, the dtype policy of every layer whose author chose none.

    The layers that give the outputs stay float32: a loss wants all digits of a logit. A layer whose
    policy is another than one of these three (float64, a quantised one) is left alone.
    """
    ends = {id(tensor._keras_history.operation) for tensor in _outputs(model)}
    for layer in model._flatten_layers(include_self=False):
        if layer.dtype_policy.name in ("float32", "mixed_bfloat16", "mixed_float16"):
            layer.dtype_policy = "float32" if id(layer) in ends else precision


def _outputs(model: keras.Model) -> list[keras.KerasTensor]:
    """The symbolic outputs; none for a subclassed model, whose last layer nobody can know."""
    return getattr(model, "outputs", None) or []
