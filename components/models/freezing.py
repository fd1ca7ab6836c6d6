"""Which weights training may change: frozen layers, and low-rank updates (LoRA) of frozen kernels."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

import keras
import numpy as np

from kerasline.components.core.errors import ParameterError, nearest, some
from kerasline.components.core.keras_compat import flatten_layers


def freeze(model: keras.Model, patterns: Sequence[str], where: str) -> None:
    """Freeze, in place, the layers whose name or path matches a pattern such as `block_1*`.

    Args:
        model: the model.
        patterns: shell-style patterns.
        where: the parameter that holds them, for error messages.

    Raises:
        ParameterError: a pattern matches no layer.
    """
    for layer in _matching_layers(model, patterns, where):
        layer.trainable = False


def enable_lora(model: keras.Model, rank: int, patterns: Sequence[str]) -> None:
    """Add low-rank updates to the kernels of layers, in place, and freeze these kernels.

    Hu et al., "LoRA: low-rank adaptation of large language models", ICLR 2022. Keras implements it for Dense,
    EinsumDense, Embedding and convolutions. A `.keras` file holds the sum of kernel and update, beside an update of
    zeros: see `restart_lora`.

    Args:
        model: the model.
        rank: rank of the updates.
        patterns: patterns of names or paths of layers. If empty, all layers that support it.

    Raises:
        ParameterError: a pattern matches no layer, or a layer that does not support LoRA.
    """
    # KerasHub's backbones have a method `enable_lora` too, for the layers inside them.
    supported = [layer for layer in flatten_layers(model) if hasattr(layer, "lora_enabled")]
    chosen = _matching_layers(model, patterns, "ModelBuilder.lora_layers") if patterns else supported
    for layer in chosen:
        if layer not in supported:
            raise ParameterError(
                f"ModelBuilder.lora_layers: layer {layer.name!r} is a {type(layer).__name__}, which does not support "
                f"LoRA in Keras; layers that do: {some(one.name for one in supported) or 'none in this model'}"
            )
    if not chosen:
        raise ParameterError("ModelBuilder.lora_rank: no layer of the model supports LoRA in Keras")
    for layer in dict.fromkeys(chosen):  # a layer may match several patterns
        if not layer.lora_enabled:
            layer.enable_lora(rank)


def restart_lora(model: keras.Model, seed: int) -> None:
    """Initialize, in place, the first factor of low-rank updates that were loaded as zeros.

    If both factors are zero, the gradients of both are zero: a saved model with LoRA could never be trained again.

    Args:
        model: the model.
        seed: seed of the initial values.
    """
    for layer in flatten_layers(model):
        if getattr(layer, "lora_enabled", False):
            first = getattr(layer, "lora_kernel_a", None)
            first = layer.lora_embeddings_a if first is None else first
            if not np.any(keras.ops.convert_to_numpy(first)):
                first.assign(keras.initializers.HeUniform(seed)(first.shape, dtype=first.dtype))


def _matching_layers(model: keras.Model, patterns: Sequence[str], where: str) -> list[keras.layers.Layer]:
    layers = flatten_layers(model)
    found = []
    for pattern in patterns:
        matches = [
            layer for layer in layers if fnmatchcase(layer.name, pattern) or fnmatchcase(layer.path or "", pattern)
        ]
        if not matches:
            names = [layer.name for layer in layers]
            raise ParameterError(f"{where}: no layer matches {pattern!r}; {nearest(pattern, names)}")
        found += matches
    return found
