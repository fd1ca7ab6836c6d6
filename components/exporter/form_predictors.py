"""Predictions of the forms that are not SavedModels, from raw features: the preprocessing runs first."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasline.components.core.artifacts import Preprocessing
from kerasline.components.exporter.forms import LITERT_FILE, ONNX_FILE
from kerasline.components.exporter.served_model import PREPROCESSED
from kerasline.components.models.preprocessed_model import preprocess

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class PreprocessedPredictor:
    """A LiteRT or ONNX file with the preprocessing. Like `SavedModelPredictor` it holds only paths."""

    path: Path
    preprocessing: Path

    @property
    def inputs(self) -> dict[str, keras.KerasTensor]:
        """The raw columns by name."""
        return _features(self.preprocessing).input

    @property
    def answers(self) -> bool:
        """Whether an answering function computes the outputs, of which `Exporter` knows."""
        return False

    def from_logits(self, output: str, default: bool) -> bool:
        return default

    def __call__(self, raw: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Return the outputs by name, given raw columns by name, arrays (rows, ...)."""
        tensors = {name: tf.constant(array) for name, array in raw.items()}
        features = preprocess(_features(self.preprocessing), tensors)
        return self.answer({name: tensor.numpy() for name, tensor in features.items()})

    def answer(self, features: Arrays) -> dict[str, np.ndarray]:
        """Return the outputs by name, given preprocessed features. Features that the model does not use are ignored."""
        return _runner(self.path)(features)


@functools.lru_cache(maxsize=2)
def _features(preprocessing: Path) -> keras.Model:
    return Preprocessing(preprocessing).load_features()


@functools.lru_cache(maxsize=4)
def _runner(folder: Path) -> Callable[[Arrays], dict[str, np.ndarray]]:
    if (folder / LITERT_FILE).exists():
        return _litert(folder / LITERT_FILE)
    return _onnx(folder / ONNX_FILE)


def _litert(file: Path) -> Callable[[Arrays], dict[str, np.ndarray]]:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:  # TensorFlow's own, which is deprecated
        Interpreter = tf.lite.Interpreter
    interpreter = Interpreter(model_path=str(file))
    # A call of the runner itself cannot pass an input named `self`.
    runner = interpreter.get_signature_runner(PREPROCESSED)
    places = {name: details["index"] for name, details in runner.get_input_details().items()}
    outputs = {name: details["index"] for name, details in runner.get_output_details().items()}

    def run(features: Arrays) -> dict[str, np.ndarray]:
        for name, place in places.items():
            interpreter.resize_tensor_input(place, features[name].shape)
        interpreter.allocate_tensors()
        for name, place in places.items():
            interpreter.set_tensor(place, features[name])
        interpreter.invoke()
        return {name: interpreter.get_tensor(place) for name, place in outputs.items()}

    return run


def _onnx(file: Path) -> Callable[[Arrays], dict[str, np.ndarray]]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    inputs = [tensor.name for tensor in session.get_inputs()]
    outputs = [tensor.name for tensor in session.get_outputs()]
    return lambda features: dict(zip(outputs, session.run(outputs, {name: features[name] for name in inputs})))
