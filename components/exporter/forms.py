"""Further forms of a model: of half the precision, of whole numbers, and of other libraries."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import keras
import tensorflow as tf

from kerasline.components.core.errors import ParameterError, one_line
from kerasline.components.exporter.serving import PREPROCESSED, Serving, write_saved_model

Name = Literal["float16", "bfloat16", "int8_weights", "int8", "litert", "onnx"]
LITERT_FILE, ONNX_FILE = "model.tflite", "model.onnx"
# What protobuf and FlatBuffers, hence these two kinds of file, can hold.
MOST_BYTES = 2**31 - 1
POLICIES = ("float32", "mixed_float16", "mixed_bfloat16")


class Refused(Exception):
    """A form cannot be made of this model, and why, in a few words."""


@dataclass(frozen=True)
class Form:
    """A kind of form.

    Attributes:
        takes: raw features, or preprocessed ones: texts cannot enter LiteRT and ONNX.
        write: writes it into a folder; gives the SavedModel's signatures, where it is one.
        needs: modules that must be installed, and the extra that brings them.
    """

    takes: Literal["raw", "preprocessed"]
    write: Callable[[Serving, Path], Any]
    needs: tuple[str, ...] = ()
    extra: str = ""


def check_installed(names: list[str]) -> None:
    """Raises a ParameterError where a form wants a library that is not there."""
    for name in names:
        missing = [module for module in FORMS[name].needs if importlib.util.find_spec(module) is None]
        if missing:
            extra = f"pip install 'kerasline[{FORMS[name].extra}]'"
            raise ParameterError(f"Exporter.forms: {name} needs {' and '.join(missing)}: {extra}")


def write_form(name: str, serving: Serving, folder: Path) -> Any:
    """Writes a form into a new folder.

    Returns:
        A `Written` of a SavedModel, else None.

    Raises:
        Refused: it cannot be made.
    """
    folder.mkdir(parents=True)
    try:
        with _quiet():
            return FORMS[name].write(serving, folder)
    except Refused:
        raise
    except Exception as error:  # converters raise whatever they meet
        raise Refused(f"{type(error).__name__}: {one_line(error, 300)}") from error


def _half(dtype: str) -> Callable[[Serving, Path], Any]:
    def write(serving: Serving, folder: Path) -> Any:
        """Weights of half the size, and layers that compute in it; answers are float32 all the same."""
        model = _copy(serving.model, lambda config: _with_policy(config, dtype))
        if not any(variable.dtype == dtype for variable in model.variables):
            raise Refused("no layer takes its precision from Keras's dtype policy")
        return write_saved_model(replace(serving, model=model), folder)

    return write


def _int8(serving: Serving, folder: Path) -> Any:
    """Weights of a byte, and activations made so at each call: Keras's own quantisation."""
    model = _copy(serving.model)
    model.quantize("int8")
    return _write_quantised(serving, model, folder)


def _int8_weights(serving: Serving, folder: Path) -> Any:
    """Weights of a byte; all is computed in float32."""
    if not hasattr(keras.quantizers, "Int8QuantizationConfig"):
        raise Refused(f"Keras {keras.__version__} quantises activations too; it takes Keras 3.13, hence Python 3.11")
    model = _copy(serving.model)
    model.quantize(config=keras.quantizers.Int8QuantizationConfig(activation_quantizer=None))
    return _write_quantised(serving, model, folder)


def _write_quantised(serving: Serving, model: keras.Model, folder: Path) -> Any:
    if not any(variable.dtype == "int8" for variable in model.variables):
        raise Refused("no layer of the model is one that Keras quantises (Dense, EinsumDense, Embedding)")
    return write_saved_model(replace(serving, model=model), folder)


def _litert(serving: Serving, folder: Path) -> None:
    _check_size(serving.model, "a LiteRT file")
    archive = keras.export.ExportArchive()
    archive.track(serving.model)
    named = _by_name(serving)
    archive.add_endpoint(PREPROCESSED, lambda made: named(made, training=False), [serving.preprocessed_specs])
    saved = folder / "saved_model"
    archive.write_out(str(saved), verbose=False)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(saved), signature_keys=[PREPROCESSED])
    (folder / LITERT_FILE).write_bytes(converter.convert())
    _remove(saved)


def _onnx(serving: Serving, folder: Path) -> None:
    _check_size(serving.model, "an ONNX file")
    model = _by_name(serving)
    specs = serving.preprocessed_specs.items()
    rows = {name: tf.zeros([1, *(n or 1 for n in spec.shape[1:])], spec.dtype) for name, spec in specs}
    model(rows)  # Keras wants one call
    model.export(str(folder / ONNX_FILE), format="onnx", verbose=False)


FORMS: dict[str, Form] = {
    "float16": Form("raw", _half("float16")),
    "bfloat16": Form("raw", _half("bfloat16")),
    "int8_weights": Form("raw", _int8_weights),
    "int8": Form("raw", _int8),
    "litert": Form("preprocessed", _litert),
    "onnx": Form("preprocessed", _onnx, ("tf2onnx", "onnxruntime"), "onnx"),
}


def _by_name(serving: Serving) -> keras.Model:
    """The model with inputs and outputs by name, whatever form its own have."""
    if not isinstance(serving.model.input, dict):
        raise Refused("the model's inputs have no names: build it as keras.Model of the dict that it is given")
    texts = [name for name, spec in serving.preprocessed_specs.items() if spec.dtype == tf.string]
    if texts:
        raise Refused(f"input {texts[0]!r} of the model is text; move what reads it into the preprocessing")
    inputs = {name: serving.model.input[name] for name in serving.preprocessed_specs}
    return keras.Model(inputs, dict(serving.outputs))


def _copy(model: keras.Model, change: Callable[[Any], Any] = lambda config: config) -> keras.Model:
    """The same layers anew, with the same weights."""
    described = keras.saving.serialize_keras_object(model)
    described.pop("compile_config", None)
    copy = keras.saving.deserialize_keras_object(change(described))
    copy.set_weights(model.get_weights())
    return copy


def _with_policy(config: Any, dtype: str) -> Any:
    """A serialised model whose layers have another dtype policy; what enters it keeps its own."""
    if isinstance(config, (list, tuple)):
        return type(config)(_with_policy(part, dtype) for part in config)
    if not isinstance(config, dict) or config.get("class_name") == "InputLayer":
        return config
    if config.get("class_name") == "DTypePolicy" and config["config"]["name"] in POLICIES:
        return {**config, "config": {**config["config"], "name": dtype}}
    return {
        key: dtype if key == "dtype" and value in POLICIES else _with_policy(value, dtype)
        for key, value in config.items()
    }


def _check_size(model: keras.Model, what: str) -> None:
    size = sum(variable.value.dtype.size * int(tf.size(variable.value, tf.int64)) for variable in model.weights)
    if size > MOST_BYTES:
        raise Refused(f"its weights take {size / 1e9:.1f} GB, and {what} holds 2 GB")


def _remove(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the converters' warnings, of which some are given for every layer."""
    logger = logging.getLogger("tf2onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
