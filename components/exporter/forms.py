"""Further forms of a model: half precision, int8, and the formats of other libraries.

To add a form, write a function for it, and add it to `FORMS` and to `FormName` in settings.py.
"""

from __future__ import annotations

import contextlib
import logging
import re
import warnings
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import keras
import tensorflow as tf

from kerasline.components.core.errors import named_cause
from kerasline.components.core.keras_compat import has_graph, mask_of, set_mask, source_operation, write_archive
from kerasline.components.decoding.boxes import portable_operations
from kerasline.components.exporter.input_names import (
    restore_names,
    restore_names_in_onnx,
    unknown_operations,
    with_numbered_names,
)
from kerasline.components.exporter.quantised_convolutions import quantise_convolutions
from kerasline.components.exporter.served_model import PREPROCESSED, ServedModel, write_saved_model
from kerasline.components.models.answering import as_float32

LITERT_FILE, ONNX_FILE = "model.tflite", "model.onnx"
# The size limit of protobuf and FlatBuffers.
MAX_FILE_BYTES = 2**31 - 1
# How LiteRT's converter lists operations that it cannot convert, after a line for each of their uses.
UNSUPPORTED = re.compile(r"(?:TF Select|Custom|Flex) ops: ([^\n]*)")
POLICIES = ("float32", "mixed_float16", "mixed_bfloat16")
# Objects of a serialised model that keep their dtype: inputs, constants, and casts that its author wrote.
PRECISE = ("InputLayer", "__numpy__", "__tensor__", "Cast")


class Refused(Exception):
    """The model has no such form, or the form is not good enough. The message says why."""


@dataclass(frozen=True)
class Form:
    """A kind of form.

    Attributes:
        takes: its inputs: raw features, or preprocessed ones, because LiteRT and ONNX take no texts.
        write: writes it to a folder. Returns the signatures if the form is a SavedModel.
    """

    takes: Literal["raw", "preprocessed"]
    write: Callable[[ServedModel, Path], Any]


def write_form(name: str, serving: ServedModel, folder: Path) -> Any:
    """Write a form to a new folder.

    Returns:
        A `Written` if the form is a SavedModel, else None.

    Raises:
        Refused: the model has no such form.
    """
    folder.mkdir(parents=True)
    try:
        with _quiet():
            return FORMS[name].write(serving, folder)
    except Refused:
        raise
    except Exception as error:  # converters raise all kinds of errors
        raise Refused(named_cause(error)) from error


def _half(dtype: str) -> Callable[[ServedModel, Path], Any]:
    def write(serving: ServedModel, folder: Path) -> Any:
        """Store the weights and compute in half precision. The outputs are float32, for `answer` too.

        Layers without weights that compute outputs, such as the join of boxes and scores, stay float32.
        """
        last = [source_operation(tensor) for tensor in serving.model.outputs] if has_graph(serving.model) else []
        kept = {operation.name for operation in last if not getattr(operation, "weights", [])}
        model = _copy(serving.model, lambda config: _with_policy(config, dtype, kept))
        if not any(variable.dtype == dtype for variable in model.variables):
            raise Refused("no layer takes its precision from Keras's dtype policy")
        model.__class__ = type(type(model).__name__, (_Float32Outputs, type(model)), {})
        return write_saved_model(serving.with_model(model), folder)

    return write


def _int8(serving: ServedModel, folder: Path) -> Any:
    """Quantise weights to int8, and the activations of layers that Keras quantises at each call."""
    model = _copy(serving.model)
    model.quantize("int8")
    return _write_quantised(serving, model, 8, folder)


class _Float32Outputs:
    """Makes a model return float32: pixels above 2,048 and sums of many scores do not fit into half precision."""

    def call(self, *inputs: Any, **options: Any) -> Any:
        return keras.tree.map_structure(_masked_as_float32, super().call(*inputs, **options))  # type: ignore[misc]


def _masked_as_float32(output: Any) -> Any:
    found = as_float32(output)
    if found is not output and mask_of(output) is not None:
        set_mask(found, mask_of(output))
    return found


def _weights_of(bits: int) -> Callable[[ServedModel, Path], Any]:
    def write(serving: ServedModel, folder: Path) -> Any:
        """Quantise weights to 8 or 4 bits (with a scale for each 128 weights), and compute in float32."""
        config = getattr(keras.quantizers, f"Int{bits}QuantizationConfig", None)
        if config is None:
            raise Refused(f"Keras {keras.__version__} quantises activations too; Keras 3.13 is required")
        model = _copy(serving.model)
        model.quantize(config=config(activation_quantizer=None))
        return _write_quantised(serving, model, bits, folder)

    return write


def _write_quantised(serving: ServedModel, model: keras.Model, bits: int, folder: Path) -> Any:
    quantise_convolutions(model, bits)
    if not any(variable.dtype == "int8" for variable in model.variables):
        raise Refused("the model has no layer to quantise: Dense, EinsumDense, Embedding or a convolution")
    return write_saved_model(serving.with_model(model), folder)


def _litert(serving: ServedModel, folder: Path) -> None:
    _check_size(serving.model, "a LiteRT file")
    archive = keras.export.ExportArchive()
    archive.track(serving.model)
    specs = serving.preprocessed_specs
    saved = folder / "saved_model"
    with portable_operations():
        archive.add_endpoint(PREPROCESSED, _network(serving), [with_numbered_names(specs)])
        write_archive(archive, str(saved))
    restore_names(saved, {PREPROCESSED: specs})
    converter = tf.lite.TFLiteConverter.from_saved_model(str(saved), signature_keys=[PREPROCESSED])
    try:
        content = converter.convert()
    except Exception as error:  # its type is not public
        if found := UNSUPPORTED.search(str(error)):
            raise Refused(f"LiteRT does not have the operations that it uses: {found[1]}") from error
        raise
    (folder / LITERT_FILE).write_bytes(content)
    _remove(saved)


def _onnx(serving: ServedModel, folder: Path) -> None:
    _check_size(serving.model, "an ONNX file")
    specs = serving.preprocessed_specs
    both = sorted(specs.keys() & serving.outputs.keys())
    if both:
        raise Refused(f"an ONNX file cannot have an input and an output of one name: {both[0]!r}")
    if "" in specs:
        raise Refused("an ONNX file cannot have an input without a name")
    file = folder / ONNX_FILE
    with portable_operations():
        Network(serving).export(str(file), format="onnx", input_signature=[with_numbered_names(specs)], verbose=False)
    if unknown := unknown_operations(file):
        raise Refused(f"ONNX does not have the operations that it uses: {', '.join(unknown)}")
    restore_names_in_onnx(file, specs)


class Network(keras.Model):
    """The function from preprocessed features to the answers, as a model, since Keras writes ONNX files of models."""

    def __init__(self, serving: ServedModel) -> None:
        super().__init__()
        self.model, self._function, self.built = serving.model, _network(serving), True

    def call(self, features: Any) -> Any:
        return self._function(features)


FORMS: dict[str, Form] = {
    "float16": Form("raw", _half("float16")),
    "bfloat16": Form("raw", _half("bfloat16")),
    "int8_weights": Form("raw", _weights_of(8)),
    "int4_weights": Form("raw", _weights_of(4)),
    "int8": Form("raw", _int8),
    "litert": Form("preprocessed", _litert),
    "onnx": Form("preprocessed", _onnx),
}


def _network(serving: ServedModel) -> Callable[[Any], Any]:
    """Return the function from preprocessed features to the answers."""
    if serving.answering is not None:
        _check_no_text_inputs(serving)
        return serving.predict
    model = _by_name(serving)
    return lambda features: model(features, training=False)


def _check_no_text_inputs(serving: ServedModel) -> None:
    texts = [name for name, spec in serving.preprocessed_specs.items() if spec.dtype == tf.string]
    if texts:
        raise Refused(f"input {texts[0]!r} of the model is text; move its processing into the preprocessing")


def _by_name(serving: ServedModel) -> keras.Model:
    """Return the model with inputs and outputs by name, whatever structure its own have."""
    if not isinstance(serving.model.input, dict):
        raise Refused("the inputs of the model have no names; build it with the dict that build_model receives")
    _check_no_text_inputs(serving)
    inputs = {name: serving.model.input[name] for name in serving.preprocessed_specs}
    return keras.Model(inputs, dict(serving.outputs))


def _copy(model: keras.Model, change: Callable[[Any], Any] = lambda config: config) -> keras.Model:
    """Return a copy with new layers and the same weights."""
    config = keras.saving.serialize_keras_object(model)
    config.pop("compile_config", None)
    copy = keras.saving.deserialize_keras_object(change(config))
    for variable, source in zip(copy.weights, model.weights, strict=True):
        variable.assign(source)
    return copy


def _with_policy(config: Any, dtype: str, kept: Collection[str]) -> Any:
    """Change the dtype policy of all layers of a serialised model except those in `PRECISE` and `kept`."""
    if isinstance(config, (list, tuple)):
        return type(config)(_with_policy(part, dtype, kept) for part in config)
    if not isinstance(config, dict) or config.get("class_name") in PRECISE:
        return config
    if isinstance(config.get("config"), dict) and config["config"].get("name") in kept:
        return config
    if config.get("class_name") == "DTypePolicy" and config["config"]["name"] in POLICIES:
        return {**config, "config": {**config["config"], "name": dtype}}
    return {
        key: dtype if key == "dtype" and value in POLICIES else _with_policy(value, dtype, kept)
        for key, value in config.items()
    }


def _check_size(model: keras.Model, what: str) -> None:
    size = sum(variable.value.dtype.size * int(tf.size(variable.value, tf.int64)) for variable in model.weights)
    if size > MAX_FILE_BYTES:
        raise Refused(f"its weights take {size / 1e9:.1f} GB, and {what} holds at most 2 GB")


def _remove(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the converters' warnings, some of which appear for every layer."""
    logger = logging.getLogger("tf2onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
