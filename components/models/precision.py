"""The precision in which a model computes. Its weights stay float32.

Micikevicius et al., "Mixed precision training", ICLR 2018; Kalamkar et al., "A study of BFLOAT16 for deep learning
training", 2019.
"""

from __future__ import annotations

from typing import Literal

import keras

from kerasline.components.core.keras_compat import flatten_layers, source_operation

Precision = Literal["float32", "mixed_bfloat16", "mixed_float16"]


def set_precision(model: keras.Model, precision: Precision) -> None:
    """Set, in place, the dtype policy of the model's layers.

    The layers that compute the outputs stay float32, since a loss needs the full precision of the logits. Their
    identity is unknown in a subclassed model. Layers with any policy other than these three (float64, a quantized
    one) are left unchanged.

    Args:
        model: the model.
        precision: name of the policy.
    """
    last = {id(source_operation(tensor)) for tensor in getattr(model, "outputs", None) or []}
    for layer in flatten_layers(model):
        if layer.dtype_policy.name in ("float32", "mixed_bfloat16", "mixed_float16"):
            layer.dtype_policy = "float32" if id(layer) in last else precision
