"""Saves and loads `.keras` files, so that another process gets the model that was saved.

A `.keras` file names custom classes without saying which module registers them. It holds which layers are frozen, LoRA
ranks and compile arguments only as far as every custom layer and model passes them on. So `NAME.keras` has a record
beside it, `NAME.keras.json`, and loading applies what Keras left out:

    modules      name and file of each module that registers a class or function of the model
    layers       class of each layer, at any depth
    frozen       positions of the layers that are not trainable
    constant     positions of the variables that are not trainable
    lora         rank and alpha of the layers with low-rank updates, by position
    compile      the arguments of `compile`, serialized, or null
"""

from __future__ import annotations

import copy
import hashlib
import importlib
import json
import re
import sys
import tempfile
import threading
import types
import warnings
import zipfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kerasline.components.core import user_code
from kerasline.components.core.errors import ArtifactError, KeraslineError, one_line
from kerasline.components.core.keras_compat import flatten_layers, save_weight_memory, shared_array

if TYPE_CHECKING:
    import keras


def save(model: keras.Model, path: Path) -> None:
    """Write a model to a `.keras` file, and its record beside it."""
    save_weight_memory()
    model.save(path)
    layers = flatten_layers(model, include_self=True)
    record = {
        "modules": [_module_entry(module) for module in _registering_modules(_registered_names(path))],
        "layers": [type(layer).__name__ for layer in layers],
        **trainability(model),
        "lora": _lora(layers),
        "compile": _compile_arguments(model),
    }
    _record_file(path).write_text(json.dumps(record, ensure_ascii=False) + "\n", encoding="utf-8")


def load(path: Path, *, optimizer: bool = False) -> keras.Model:
    """Load a model with everything that its record holds.

    The modules that register its classes are imported, from where they were when it was saved if need be. A `.keras`
    file without a record is loaded as Keras does.

    Args:
        path: the file.
        optimizer: whether to load the state of the optimizer, which may take twice the memory of the weights. Defaults
            to False: the model is compiled, and its optimizer is not built.

    Raises:
        ArtifactError: the file is damaged, a class is not registered, or the loaded model differs from its record.
    """
    import keras

    record_file = _record_file(path)
    record = json.loads(record_file.read_text(encoding="utf-8")) if record_file.exists() else None
    try:
        missing = [name for name in _registered_names(path) if keras.saving.get_registered_object(name) is None]
        _register(missing, record["modules"] if record else [])
        with warnings.catch_warnings():
            if record:  # Keras warns of differences that the record settles
                warnings.filterwarnings("ignore", message=".*(Skipping variable loading|was not called as part of)")
            model = _load(path, compile=optimizer or not record)
    except KeraslineError:
        raise
    except Exception as error:  # any: `from_config` and `build` may be the user's
        raise ArtifactError(f"{path}: Keras cannot load it: {_why(error)}") from error
    if record:
        _restore(model, record, path, optimizer)
    return model


# Keras changes the bases of a model's class when it builds the first one, which another thread must not see half done.
_LOADING = threading.RLock()


def _load(path: Path, *, compile: bool) -> keras.Model:
    import keras

    save_weight_memory()
    with tempfile.TemporaryDirectory(prefix="kerasline-") as folder, _LOADING:
        link = Path(folder, path.name)  # Keras unpacks the weights beside the file, which may be a published one
        link.symlink_to(path.resolve())
        return keras.saving.load_model(link, compile=compile)


def contents(model: keras.Model) -> list[tuple[str, str, str]]:
    """Return name and path of each variable, and a digest of its shape, type and value."""
    return [(variable.name, variable.path, _digest(variable)) for variable in model.variables]


def difference_after_loading(path: Path, before: list[tuple[str, str, str]]) -> str | None:
    """Load a model that was just saved, and return how it differs from the original, or None.

    Compares layers, weights, trainability, LoRA, optimizer, loss and metrics. A difference means that other processes
    would continue with another model than the one that the user built.

    Args:
        path: the file.
        before: the `contents` of the original, which need not be in memory any more.
    """
    if problem := _python_lambda(path) or next(filter(None, map(_unimportable, _custom_objects(path))), None):
        return problem
    try:
        loaded = load(path)
    except ArtifactError as error:
        return f"the model cannot be loaded after it was saved: {str(error).removeprefix(f'{path}: ')}"
    after = loaded.variables
    if len(before) != len(after):
        return f"the saved model has {len(after)} variables after loading, expected {len(before)}; {_SAVING_GUIDE}"
    for (name, variable_path, digest), variable in zip(before, after):
        if name not in _NOT_SAVED and _digest(variable) != digest:
            return f"weight {variable_path!r} has another value after saving and loading; {_SAVING_GUIDE}"
    return None


def _digest(variable: keras.Variable) -> str:
    import numpy as np

    array = shared_array(variable)
    digest = hashlib.sha256(repr((array.shape, array.dtype.name)).encode())
    if array.dtype.kind in "OSU":
        digest.update(repr(array.tolist()).encode())
    else:
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


# A `.keras` file holds the sum of a kernel and its low-rank update, and no state of random number generators.
_NOT_SAVED = ("lora_kernel_a", "lora_kernel_b", "lora_embeddings_a", "lora_embeddings_b", "seed_generator_state")
_SAVING_GUIDE = (
    "each custom layer must create its sublayers and weights in `__init__` or `build`, under distinct names, and "
    "return all arguments from `get_config`"
)


# Modules that register classes and functions

# All modules of kerasline that do. By name, since the core imports nothing of other packages.
_OWN_MODULES = (
    "kerasline.layers",
    "kerasline.losses",
    "kerasline.components.models.compiling",
    "kerasline.components.preprocessing.layers.hub_tokenizer",
    "kerasline.components.trainer.optimizers",
)


def _registered_names(path: Path) -> list[str]:
    """Return the names of the registered classes and functions in a `.keras` file, Keras's own excluded."""
    return sorted({part["registered_name"] for part in _custom_objects(path) if ">" in part["registered_name"]})


def _custom_objects(path: Path) -> list[dict[str, Any]]:
    """Return the configurations in a `.keras` file of objects that are not Keras's own."""
    return [part for part in _parts(path) if part.get("registered_name") and _is_custom(str(part.get("module")))]


def _parts(path: Path) -> Iterator[dict[str, Any]]:
    """Yield all configurations in a `.keras` file, at any depth."""
    with zipfile.ZipFile(path) as archive:
        return _dicts(json.loads(archive.read("config.json")))


def _is_custom(module: str) -> bool:
    return module.split(".")[0] not in ("keras", "builtins")


def _dicts(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        for inner in value.values():
            yield from _dicts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _dicts(inner)


def _registering_modules(names: list[str]) -> list[types.ModuleType]:
    import keras

    objects = [keras.saving.get_registered_object(name) for name in names]
    modules = dict.fromkeys(one.__module__ for one in objects if one is not None)
    return [sys.modules[name] for name in modules if name in sys.modules]


def _module_entry(module: types.ModuleType) -> dict[str, str | None]:
    file = getattr(module, "__file__", None)
    return {"name": module.__name__, "file": str(Path(file).resolve()) if file else None}


def _register(missing: list[str], modules: list[dict[str, Any]]) -> None:
    """Import the modules that register the missing names."""
    if not missing:
        return
    if any(name.startswith("kerasline>") for name in missing):
        for module_name in _OWN_MODULES:
            importlib.import_module(module_name)
    for module in modules:
        if not module["name"].startswith("kerasline."):
            _import_module(module["name"], module["file"])


def _import_module(name: str, file: str | None) -> None:
    """Import a module by its name, or else from the file that it had in the process that saved the model."""
    if name in sys.modules and name != "__main__":
        return
    path = Path(file) if file else None
    is_importable_name = name != "__main__" and (path is None or user_code.module_name(path) != name)
    if is_importable_name:
        try:
            importlib.import_module(name)
            return
        except ModuleNotFoundError as error:
            if error.name is None or not (name == error.name or name.startswith(f"{error.name}.")):
                raise
    if path is None or not path.exists():
        raise ImportError(f"module {name!r}, which registers its classes, is not installed, and {file} does not exist")
    if not is_importable_name:
        user_code.import_file(path)
        return
    depth = len(name.split(".")) + (path.name == "__init__.py")
    sys.path.append(str(path.parents[depth - 1]))
    importlib.import_module(name)


def _unimportable(config: dict[str, Any]) -> str | None:
    """Return why another process cannot find the class or function of a configuration, or None."""
    import keras

    registered_name = config["registered_name"]
    if ">" not in registered_name:
        return _unregistered(config["config"] if config.get("class_name") == "function" else config["class_name"])
    found: Any = keras.saving.get_registered_object(registered_name)
    if found is not None and "<locals>" in getattr(found, "__qualname__", ""):
        function = found.__qualname__.split(".<locals>")[0]
        return (
            f"{found.__name__} is defined inside {function}(), where other processes cannot import it; "
            "move it to the top level of its file"
        )
    return None


def _unregistered(name: str) -> str:
    return (
        f"{name} is not registered with Keras, which cannot load it therefore; put "
        "@keras.saving.register_keras_serializable() on it, at the top level of its file"
    )


def _python_lambda(path: Path) -> str | None:
    for part in _parts(path):
        function = part["config"]["function"] if part.get("class_name") == "Lambda" else None
        if isinstance(function, dict) and function.get("class_name") == "__lambda__":
            return (
                f"layer {part['config']['name']!r} is a Lambda layer with a Python lambda, which Keras refuses to "
                "load; call keras.ops functions in the model itself, or pass a function with "
                "@keras.saving.register_keras_serializable()"
            )
    return None


def _why(error: Exception, guide: str = _SAVING_GUIDE) -> str:
    """Return the cause of a failure to load in one line, and what the user can do about it, `guide` unless known."""
    text = str(error)
    if unknown := re.search(r"Could not locate (?:class|function) '([^']+)'", text):
        return _unregistered(unknown[1])
    if "lambda" in text:
        return (
            "Keras does not load Python lambdas; use keras.ops in the model itself, or a named function with "
            "@keras.saving.register_keras_serializable()"
        )
    if isinstance(error, (OSError, zipfile.BadZipFile)):
        return one_line(error)
    return f"{type(error).__name__}: {one_line(error)}; {guide}"


# Trainability, LoRA and compile arguments


def _restore(model: keras.Model, record: dict[str, Any], path: Path, optimizer: bool) -> None:
    """Apply to a loaded model, in place, what its record holds and Keras did not restore."""
    layers = flatten_layers(model, include_self=True)
    classes = [type(layer).__name__ for layer in layers]
    if classes != record["layers"]:
        raise ArtifactError(
            f"{path}: the model has other layers after loading: {_first_difference(record['layers'], classes)}; "
            f"{_SAVING_GUIDE}"
        )
    variables_before = _trainable_places(model)
    _freeze_layers(layers, record["frozen"])
    lora = {int(place): arguments for place, arguments in record["lora"].items()}
    for place, arguments in lora.items():
        if not getattr(layers[place], "lora_enabled", False):
            layers[place].enable_lora(**arguments)
    _freeze_variables(model, record["constant"])
    is_changed = _trainable_places(model) != variables_before
    if record["compile"] is not None and (is_changed or not _same_arguments(model, record["compile"])):
        _compile(model, record["compile"], path)
        if optimizer:
            model.optimizer.build(model.trainable_variables)


def trainability(model: keras.Model) -> dict[str, list[int]]:
    """Return the places of the layers (`frozen`) and variables (`constant`) of a model that are not trainable."""
    layers = flatten_layers(model, include_self=True)
    return {
        "frozen": [place for place, layer in enumerate(layers) if not layer.trainable],
        "constant": [place for place, variable in enumerate(model.variables) if not variable.trainable],
    }


def set_trainability(model: keras.Model, trainability: Mapping[str, Collection[int]]) -> None:
    """Make exactly the layers and variables trainable, in place, that were so when `trainability` was determined."""
    _freeze_layers(flatten_layers(model, include_self=True), trainability["frozen"])
    _freeze_variables(model, trainability["constant"])


def _freeze_layers(layers: list[Any], frozen: Collection[int]) -> None:
    frozen = set(frozen)
    for place, layer in enumerate(layers):  # parents come first: they set their children too
        if layer.trainable == (place in frozen):
            layer.trainable = place not in frozen


def _freeze_variables(model: keras.Model, constant: Collection[int]) -> None:
    constant = set(constant)
    for place, variable in enumerate(model.variables):
        if variable.trainable == (place in constant):
            variable.trainable = place not in constant


def _compile(model: keras.Model, arguments: dict[str, Any], path: Path) -> None:
    import keras

    try:
        if type(model).compile_from_config is keras.Model.compile_from_config:  # which would build the optimizer
            copied = copy.deepcopy(arguments)  # an optimizer replaces the configuration of its schedule in place
            model.compile(**keras.saving.deserialize_keras_object(copied))
        else:
            model.compile_from_config(arguments)
    except (TypeError, ValueError) as error:
        raise ArtifactError(f"{path}: the model cannot be compiled as it was: {_why(error, _COMPILE)}") from error
    if not _same_arguments(model, arguments):
        raise ArtifactError(f"{path}: the model has other compile arguments after loading; {_COMPILE}")


_COMPILE = "a model with its own `compile` must implement `get_compile_config` and `compile_from_config`"


def _trainable_places(model: keras.Model) -> list[int]:
    trainable = {id(variable) for variable in model.trainable_variables}
    return [place for place, variable in enumerate(model.variables) if id(variable) in trainable]


def _lora(layers: list[Any]) -> dict[int, dict[str, Any]]:
    return {
        place: {"rank": layer.lora_rank, "lora_alpha": layer.lora_alpha}
        for place, layer in enumerate(layers)
        if getattr(layer, "lora_enabled", False)
    }


def _compile_arguments(model: keras.Model) -> dict[str, Any] | None:
    return model.get_compile_config() if getattr(model, "compiled", False) else None


def _same_arguments(model: keras.Model, arguments: dict[str, Any]) -> bool:
    return _canonical(_compile_arguments(model)) == _canonical(arguments)


def _canonical(value: Any) -> Any:
    """Return JSON-like values with numbers in float32, the precision in which optimizers hold them."""
    import numpy as np

    if isinstance(value, dict):
        return {key: _canonical(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_canonical(inner) for inner in value]
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(np.float32(value))
    return value


def _first_difference(expected: list[str], received: list[str]) -> str:
    for place, (one, other) in enumerate(zip(expected, received)):
        if one != other:
            return f"layer {place} is a {other}, expected a {one}"
    return f"{len(received)} layers, expected {len(expected)}"


def _record_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")
