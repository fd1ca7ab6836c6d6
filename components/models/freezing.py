"""Which weights training may change: frozen layers, and low-rank updates beside frozen kernels."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

import keras
import numpy as np

from kerasline.components.core.errors import ParameterError, nearest


def freeze(model: keras.Model, patterns: Sequence[str]) -> None:
    """Freezes, in place, the layers whose name or path fits a pattern such as `block_1*`.

    Raises:
        ParameterError: a pattern fits no layer.
    """
    for layer in _fitting(model, patterns, "ModelBuilder.freeze"):
        layer.trainable = False


def enable_lora(model: keras.Model, rank: int, patterns: Sequence[str]) -> None:
    """Puts, in place, low-rank updates beside the kernels of layers, and freezes these kernels.

    Hu et al., "LoRA: low-rank adaptation of large language models", ICLR 2022. Keras has it for Dense,
    EinsumDense, Embedding and convolutions. A `.keras` file holds the sum of kernel and update, and an
    update of nothing beside it: see `revive_lora`.

    Args:
        rank: of the update.
        patterns: of names or paths; all layers that can when empty.

    Raises:
        ParameterError: a pattern fits no layer, or one that cannot.
    """
    able = [layer for layer in model._flatten_layers(include_self=False) if hasattr(layer, "enable_lora")]
    if patterns:
        chosen = _fitting(model, patterns, "ModelBuilder.lora_layers")
        for layer in chosen:
            if not hasattr(layer, "enable_lora"):
                raise ParameterError(
                    f"ModelBuilder.lora_layers: {layer.name!r} is a {type(layer).__name__}, for which Keras has no "
                    f"LoRA; it has for: {', '.join(one.name for one in able) or 'none of this model'}"
                )
    else:
        chosen = able
    if not chosen:
        raise ParameterError("ModelBuilder.lora_rank: the model has no layer for which Keras has LoRA")
    for layer in chosen:
        layer.enable_lora(rank)


def revive_lora(model: keras.Model, seed: int) -> None:
    """Draws, in place, the first factor of low-rank updates anew where a file left both factors at zero.

    Of two zeros, neither has a gradient: without this, a model with LoRA that was saved never learns again.
    """
    for layer in model._flatten_layers(include_self=False):
        if getattr(layer, "lora_enabled", False):
            first = getattr(layer, "lora_kernel_a", None)
            first = layer.lora_embeddings_a if first is None else first
            if not np.any(keras.ops.convert_to_numpy(first)):
                first.assign(keras.initializers.HeUniform(seed)(first.shape, dtype=first.dtype))


def _fitting(model: keras.Model, patterns: Sequence[str], where: str) -> list[keras.layers.Layer]:
    layers = model._flatten_layers(include_self=False)
    found = []
    for pattern in patterns:
        fits = [layer for layer in layers if fnmatchcase(layer.name, pattern) or fnmatchcase(layer.path or "", pattern)]
        if not fits:
            names = [layer.name for layer in layers]
            raise ParameterError(f"{where}: no layer fits {pattern!r}; {nearest(pattern, names)}")
        found += fits
    return found
