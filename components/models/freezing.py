"""Which weights training may change: frozen layers, and low-rank updates (LoRA) of frozen kernels."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import h5py
import keras
import numpy as np

from kerasline.components.core.errors import ParameterError, nearest, some
from kerasline.components.core.keras_compat import flatten_layers, remove_variable, state_variables


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
            first = getattr(layer, _factors(layer)[0])
            if not np.any(keras.ops.convert_to_numpy(first)):
                first.assign(keras.initializers.HeUniform(seed)(first.shape, dtype=first.dtype))


def is_partly_frozen(model: keras.Model) -> bool:
    """Return whether training leaves weights unchanged: a layer is frozen, or has a low-rank update."""
    return any(not layer.trainable or getattr(layer, "lora_enabled", False) for layer in flatten_layers(model))


def save_trained(model: keras.Model, path: Path) -> None:
    """Write the weights that training changes, factors of low-rank updates included, to an HDF5 file.

    `weights/NUMBER` is a weight by its place among all variables of the model, `lora/NUMBER` a layer by its place among
    all layers at any depth, with the attributes `rank` and `alpha`.
    """
    layers = flatten_layers(model)
    changing = {id(variable) for variable in model.trainable_variables}
    changing |= {id(variable) for layer in layers if layer.trainable for variable in state_variables(layer)}
    with h5py.File(path, "w") as file:
        for place, layer in enumerate(layers):
            if getattr(layer, "lora_enabled", False):
                file.create_group(f"lora/{place}").attrs.update(rank=layer.lora_rank, alpha=layer.lora_alpha)
        for place, variable in enumerate(model.variables):
            if id(variable) in changing:
                file[f"weights/{place}"] = keras.ops.convert_to_numpy(variable)
                file[f"weights/{place}"].attrs["path"] = variable.path


def load_trained(model: keras.Model, path: Path) -> None:
    """Give a model the weights in a file of `save_trained`, in place, and add low-rank updates to their kernels.

    Args:
        model: the model before the training.
        path: the file.

    Raises:
        ValueError: they do not fit the model.
        OSError: it is not an HDF5 file.
    """
    layers = flatten_layers(model)
    with h5py.File(path) as file:
        for place, group in file.get("lora", {}).items():
            layer = layers[int(place)] if int(place) < len(layers) else model
            if not hasattr(layer, "lora_enabled"):
                raise ValueError(f"layer {place} of the model, {layer.name!r}, does not support LoRA")
            if not layer.lora_enabled:
                layer.enable_lora(int(group.attrs["rank"]), float(group.attrs["alpha"]))
        variables = model.variables
        for place, weight in file["weights"].items():
            variable = variables[int(place)] if int(place) < len(variables) else None
            if variable is None or tuple(variable.shape) != weight.shape:
                raise ValueError(f"the model has no weight {place} of the shape {weight.shape}, {weight.attrs['path']}")
            variable.assign(weight[()])
    merge_lora(model)


def merge_lora(model: keras.Model) -> None:
    """Add the low-rank updates to their kernels, in place, and remove them."""
    for layer in flatten_layers(model):
        if getattr(layer, "lora_enabled", False):
            names = _factors(layer)
            kernel = names[0].split("_")[1]
            getattr(layer, f"_{kernel}").assign(getattr(layer, kernel))
            layer.lora_enabled, layer.lora_rank = False, None
            for name in names:
                remove_variable(layer, name)


def _factors(layer: keras.layers.Layer) -> tuple[str, str]:
    """Return the names of the factors of a low-rank update."""
    kernel = "kernel" if hasattr(layer, "lora_kernel_a") else "embeddings"
    return f"lora_{kernel}_a", f"lora_{kernel}_b"


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
