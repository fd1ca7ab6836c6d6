"""Copies weights into a new model: from an earlier model, a weights file, or a preset folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import keras

from kerasline.components.core import keras_files
from kerasline.components.core.artifacts import Model
from kerasline.components.core.errors import ParameterError, nearest, one_line, some
from kerasline.components.core.keras_compat import flatten_layers, sublayers
from kerasline.components.models.freezing import load_trained
from kerasline.components.models.presets import load_backbone

WARM_START, WEIGHTS = "ModelBuilder.warm_start", "ModelBuilder.weights"
Layers = Mapping[str, keras.layers.Layer]


def warm_start(model: keras.Model, source: keras.Model, layers: Literal["all", "matching"] | dict[str, str]) -> str:
    """Copy weights into a model, in place, by the names and shapes of its layers.

    A layer inside a nested model or custom layer is named by its path, such as `backbone/block_1/dense`. A layer
    matches the layer of the same path. A nested model also matches an earlier model that is this nested model itself,
    and the other way round: the paths are the same except for the name of the nested model.

    Args:
        model: receives the weights.
        source: the earlier model.
        layers: "all" requires a match for every layer with weights. "matching" copies the layers that match. A dict
            maps layers of the model, at any depth, to layers of the earlier model.

    Returns:
        The number of layers that received weights, such as "3 of 4 layers".

    Raises:
        ParameterError: a layer does not exist or has other shapes, or no layer matches.
    """
    if isinstance(layers, dict):
        return _copy_by_map(model, source, layers)
    new, old = dict(_layers_with_own_weights(model)), dict(_layers_with_own_weights(source))
    times = Counter(_inner(path) for path in old)
    by_inner_path = {_inner(path): path for path in old if times[_inner(path)] == 1}
    copied = 0
    for path, layer in new.items():
        candidates = (path, _inner(path), by_inner_path.get(path))
        origin = next((one for one in candidates if one in old and _shapes(old[one]) == _shapes(layer)), None)
        if origin is not None:
            _copy(_own_weights(layer), _own_weights(old[origin]))
            copied += 1
        elif layers == "all":
            raise ParameterError(f"{WARM_START}: {_mismatch(path, layer, old)}")
    if not copied:
        raise ParameterError(
            f"{WARM_START}: no layer of the model matches the name and shapes of a layer of the earlier model, whose "
            f"layers with weights are {some(old)}; map the layers with a dict"
        )
    return f"{copied} of {len(new)} layers"


def load_weights(model: keras.Model, files: str | Mapping[str, str]) -> str:
    """Load weights from disk into a model, in place.

    Args:
        model: receives the weights.
        files: path of a `.weights.h5`, `.keras` or `trained.h5` file or of a KerasHub preset folder, or a dict of paths
            by the layer or nested model that receives the weights.

    Returns:
        What received weights, for display.

    Raises:
        ParameterError: a file cannot be read or does not fit, or a layer does not exist.
    """
    if isinstance(files, str):
        return _load_into(model, Path(files), WEIGHTS, nested=[path for path, _ in _nested_models(model)])
    all_layers = dict(_all_layers(model))
    for name, file in files.items():
        where = f"{WEIGHTS}.{name}"
        if name not in all_layers:
            raise ParameterError(f"{where}: the model has no such layer; {nearest(name, all_layers)}")
        _load_into(all_layers[name], Path(file), where)
    return ", ".join(files)


def _load_into(layer: keras.layers.Layer, path: Path, where: str, nested: Sequence[str] = ()) -> str:
    if not isinstance(layer, keras.Model):
        raise ParameterError(
            f"{where}: a file has the weights of a whole model, this layer is a {type(layer).__name__}"
        )
    if path.is_dir() or path.suffix == ".keras":
        return warm_start(layer, load_backbone(path, where) if path.is_dir() else keras_files.load(path), "matching")
    try:
        if path.name == Model.TRAINED:
            load_trained(layer, path)
            return "trained weights"
        layer.load_weights(path)
    except (ValueError, OSError, KeyError) as error:
        hint = f'; for a nested model pass {{"{nested[0]}": {str(path)!r}}}' if nested else ""
        raise ParameterError(
            f"{where}: the weights of {path} do not fit the model: {one_line(error, 200)}{hint}"
        ) from error
    return "all layers"


def _copy_by_map(model: keras.Model, source: keras.Model, layers: Mapping[str, str]) -> str:
    new, old = dict(_all_layers(model)), dict(_all_layers(source))
    for target, origin in layers.items():
        if target not in new:
            raise ParameterError(f"{WARM_START}: the model has no layer {target!r}; {nearest(target, new)}")
        if origin not in old:
            raise ParameterError(f"{WARM_START}: the earlier model has no layer {origin!r}; {nearest(origin, old)}")
        weights = new[target].weights, old[origin].weights
        shapes = [[tuple(weight.shape) for weight in one] for one in weights]
        if shapes[0] != shapes[1]:
            raise ParameterError(f"{WARM_START}: {_different_shapes(target, origin, *shapes)}")
        _copy(*weights)
    return f"{len(layers)} of {sum(1 for _ in _layers_with_own_weights(model))} layers"


def _inner(path: str) -> str:
    """Return a path without the nested model that it starts with, or "" for a layer of the model itself."""
    return path.partition("/")[2]


def _mismatch(path: str, layer: keras.layers.Layer, old: Layers) -> str:
    if path in old:
        return _different_shapes(path, path, _shapes(layer), _shapes(old[path]))
    return f"the earlier model has no layer {path!r} with weights; {nearest(path, old)}"


def _different_shapes(target: str, origin: str, expected: list[tuple], received: list[tuple]) -> str:
    for place, (one, other) in enumerate(zip(expected, received)):
        if one != other:
            return f"weight {place} of layer {target!r} has shape {one}, of {origin!r} of the earlier model {other}"
    return f"layer {target!r} has {len(expected)} weights, {origin!r} of the earlier model has {len(received)}"


def _all_layers(layer: keras.layers.Layer, prefix: str = "") -> Iterator[tuple[str, keras.layers.Layer]]:
    """Yield each layer inside a layer, at any depth, with its path."""
    for inner in layer.layers if isinstance(layer, keras.Model) else sublayers(layer):
        yield f"{prefix}{inner.name}", inner
        yield from _all_layers(inner, f"{prefix}{inner.name}/")


def _nested_models(model: keras.Model) -> Iterator[tuple[str, keras.layers.Layer]]:
    return ((path, layer) for path, layer in _all_layers(model) if isinstance(layer, keras.Model))


def _layers_with_own_weights(model: keras.Model) -> Iterator[tuple[str, keras.layers.Layer]]:
    return ((path, layer) for path, layer in _all_layers(model) if _own_weights(layer))


def _own_weights(layer: keras.layers.Layer) -> list[keras.Variable]:
    """Return the weights of a layer that are not those of a layer inside it."""
    inner = {id(weight) for child in flatten_layers(layer) for weight in child.weights}
    return [weight for weight in layer.weights if id(weight) not in inner]


def _shapes(layer: keras.layers.Layer) -> list[tuple]:
    return [tuple(weight.shape) for weight in _own_weights(layer)]


def _copy(targets: Sequence[keras.Variable], origins: Sequence[keras.Variable]) -> None:
    for target, origin in zip(targets, origins, strict=True):
        target.assign(origin)
