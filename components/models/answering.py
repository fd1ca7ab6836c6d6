"""Answering functions, which turn preprocessed features into what a served model returns.

The user writes `answer(model, features)` or `answer(model, features, prepared)` where a model answers otherwise
than it is trained: a translator decodes token by token, a detector suppresses overlapping boxes. Tracing the function
once reveals its answers and which features it reads, so that a served model does not require the others, such as the
target sentence of teacher forcing.
"""

from __future__ import annotations

import functools
import hashlib
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from tensorflow.core.framework import graph_pb2

from kerasline.components.core import malloc
from kerasline.components.core.artifacts import Model, Preprocessing, TensorForm, part_of
from kerasline.components.core.errors import UserCodeError, nearest
from kerasline.components.core.user_code import call, name_of
from kerasline.components.models.prepared import Prepared, takes_argument
from kerasline.components.models.signatures import DEFAULT_SIGNATURE

# Keras's warning that a dict has other keys than the model's inputs. It then pairs them in the order of the names.
OTHER_KEYS = r"The structure of `inputs` doesn't match the expected structure\.\nExpected: \{.*\nReceived: inputs=\{"

# Attributes of operations that hold names with numbers, which vary by process.
NUMBERED = ("container", "shared_name")

Function = Callable[..., Mapping[str, tf.Tensor]]
Tensors = Mapping[str, tf.Tensor]


@dataclass(frozen=True)
class Answering:
    """An answering function with its model.

    Attributes:
        function: the user's `answer(model, features)` or `answer(model, features, prepared)`.
        model: the trained model.
        prepared: the whole preprocessing, whose layers a function may use, such as to decode ids.
        names: names of the features among its outputs.
    """

    function: Function
    model: keras.Model
    prepared: Prepared
    names: tuple[str, ...]

    @functools.cached_property
    def features(self) -> dict[str, tf.TensorSpec]:
        """Specs (rows, ...) of all features."""
        outputs = self.prepared.model.output
        return {name: tf.TensorSpec((None, *outputs[name].shape[1:]), outputs[name].dtype) for name in self.names}

    @property
    def takes_prepared(self) -> bool:
        return takes_argument(self.function, position=2)

    def served_features(self) -> keras.Model:
        """Return the part of the preprocessing that the answers depend on."""
        return part_of(self.prepared.model, self.used)

    @property
    def outputs(self) -> dict[str, tf.TensorSpec]:
        """Specs (rows, ...) of the answers, in the order in which the function returns them."""
        return self._traced.outputs

    @property
    def used(self) -> list[str]:
        """Names of the features that the answers depend on."""
        return self._traced.used

    @property
    def digest(self) -> str:
        """SHA-256 of the computation, without the names that TensorFlow and Keras number."""
        return self._traced.digest

    def __call__(self, features: Tensors) -> dict[str, tf.Tensor]:
        """Return the answers, tensors (rows, ...) by name. Only the features in `used` are needed.

        Raises:
            UserCodeError: the function raised, or did not return a tensor with an entry per row for each answer.
        """
        unused = {name: spec for name, spec in self.features.items() if name not in features}
        rows = tf.shape(next(iter(features.values())))[0]
        zeros = {name: stand_in(rows, spec) for name, spec in unused.items()}
        return self._answers({**features, **zeros})

    def compute(self, features: Tensors) -> Mapping[str, Any]:
        """Return what the function returns, for any or for a fixed number of rows.

        Raises:
            UserCodeError: the function raised.
        """
        name = name_of(self.function)
        try:
            further = [self.prepared] if self.takes_prepared else []
            with warnings.catch_warnings():
                warnings.filterwarnings("error", OTHER_KEYS)
                return call(self.function, self.model, dict(features), *further)
        except UserCodeError as error:
            missing = error.__cause__.args[0] if isinstance(error.__cause__, KeyError) else None
            if isinstance(missing, str) and missing not in features:
                raise UserCodeError(f"{name}: there is no feature {missing!r}; {nearest(missing, features)}") from error
            raise

    def _answers(self, features: Tensors) -> dict[str, tf.Tensor]:
        name, returned = name_of(self.function), self.compute(features)
        if not isinstance(returned, Mapping) or not returned or not all(isinstance(key, str) for key in returned):
            raise UserCodeError(f"{name} must return a dict of tensors by name, it returned {type(returned).__name__}")
        return {key: _checked(name, key, value) for key, value in returned.items()}

    @functools.cached_property
    def _traced(self) -> _Traced:
        order: list[str] = []

        def trace(features: list[tf.Tensor]) -> list[tf.Tensor]:
            answers = self._answers(dict(zip(self.features, features)))
            order.extend(answers)
            return list(answers.values())

        specs = [tf.TensorSpec(spec.shape, spec.dtype) for spec in self.features.values()]
        graph = tf.function(trace, input_signature=[specs], autograph=False).get_concrete_function().graph
        reached_names = reached(graph.outputs)
        used = [name for name, tensor in zip(self.features, graph.inputs) if tensor.op.name in reached_names]
        if not used:
            raise UserCodeError(f"{name_of(self.function)} reads no feature, so the number of rows is unknown")
        outputs = {name: tf.TensorSpec(tensor.shape, tensor.dtype) for name, tensor in zip(order, graph.outputs)}
        return _Traced(outputs, used, _digest([*order, *used], graph.as_graph_def()))


@dataclass(frozen=True)
class _Traced:
    outputs: dict[str, tf.TensorSpec]
    used: list[str]
    digest: str


@dataclass(frozen=True)
class PlannedAnswers:
    """What an answering function reads and returns.

    Attributes:
        inputs: the raw columns that it depends on, by name.
        outputs: its answers by name. The shape is None if even the rank is unknown.
    """

    inputs: dict[str, TensorForm]
    outputs: dict[str, TensorForm]


def functions_by_signature(answer: Function | Mapping[str, Function] | None) -> dict[str, Function]:
    """Return the answering functions by signature. A single one answers `serving_default`."""
    if answer is None:
        return {}
    return dict(answer) if isinstance(answer, Mapping) else {DEFAULT_SIGNATURE: answer}


def answering_with(function: Function, model: keras.Model, preprocessing: Preprocessing) -> Answering:
    """Return an answering function with its model and preprocessing, which is loaded."""
    prepared = Prepared(preprocessing.load(), preprocessing.facts["class_names"])
    return Answering(function, model, prepared, tuple(preprocessing.features))


def plan_answers(function: Function, preprocessing: Preprocessing, model: Model) -> PlannedAnswers:
    """Trace an answering function with a model, which need not be trained.

    Raises:
        UserCodeError: the function raised or returned something else than declared.
    """
    written = (model.path / Model.FILE).stat().st_mtime_ns
    return _planned(function, preprocessing.path, model.path, written)


@functools.lru_cache(maxsize=8)
def _planned(function: Function, preprocessing: Path, model: Path, written: int) -> PlannedAnswers:
    artifact = Model(model)
    answering = answering_with(function, artifact.load(), Preprocessing(preprocessing))
    inputs = answering.served_features().input
    planned = PlannedAnswers(
        {name: TensorForm(tensor.dtype, tuple(tensor.shape)) for name, tensor in inputs.items()},
        {name: TensorForm(spec.dtype.name, shape_of(spec)) for name, spec in answering.outputs.items()},
    )
    del answering, inputs
    malloc.release_model(artifact.summary.get("bytes", 0))
    return planned


def as_float32(answer: tf.Tensor) -> tf.Tensor:
    """Cast half precision to float32: JSON has no half precision and NumPy no bfloat16."""
    return tf.cast(answer, tf.float32) if answer.dtype in (tf.float16, tf.bfloat16) else answer


def shape_of(tensor: Any) -> tuple[int | None, ...] | None:
    """Return the shape of a spec or symbolic tensor, or None if even the rank is unknown."""
    shape = tf.TensorShape(tensor.shape)
    return None if shape.rank is None else tuple(shape.as_list())


def _checked(function: str, name: str, value: Any) -> tf.Tensor:
    """Return an answer as a tensor with an entry per row, half precision as float32."""
    if isinstance(value, (tf.RaggedTensor, tf.SparseTensor)):
        raise UserCodeError(f"{function}: answer {name!r} is a {type(value).__name__}; expected a dense tensor")
    try:
        tensor = tf.convert_to_tensor(value)
    except (ValueError, TypeError) as error:
        raise UserCodeError(f"{function}: answer {name!r} is no tensor but {type(value).__name__}") from error
    rank, rows = tensor.shape.rank, tensor.shape[0] if tensor.shape.rank else None
    if rank == 0 or rows is not None:
        raise UserCodeError(
            f"{function}: answer {name!r} is of shape {tensor.shape}; expected one entry per row, (None, ...)"
        )
    return as_float32(tensor)


def stand_in(rows: tf.Tensor, spec: tf.TensorSpec) -> tf.Tensor:
    """Return a stand-in for a feature on which no answer depends."""
    return tf.zeros([rows, *(size or 1 for size in spec.shape[1:])], spec.dtype)


def reached(outputs: list[tf.Tensor]) -> set[str]:
    """Return the names of the operations that the values of some tensors of a graph depend on."""
    names: set[str] = set()
    waiting = [tensor.op for tensor in outputs]
    while waiting:
        operation = waiting.pop()
        if operation.name not in names:
            names.add(operation.name)
            waiting.extend(tensor.op for tensor in operation.inputs)
    return names


def _digest(names: list[str], graph: graph_pb2.GraphDef) -> str:
    """Return the SHA-256 of a graph. Operations are identified by their places, functions by their content."""
    bodies = sorted(_nodes_digest(function.node_def) for function in graph.library.function)
    return hashlib.sha256(repr([names, _nodes_digest(graph.node), bodies]).encode()).hexdigest()


def _nodes_digest(nodes: Any) -> str:
    places = {node.name: place for place, node in enumerate(nodes)}
    digest = hashlib.sha256()
    for node in nodes:
        edges = [places.get(edge.lstrip("^").partition(":")[0], edge) for edge in node.input]
        digest.update(repr([node.op, edges]).encode())
        for name, value in sorted(node.attr.items()):
            is_numbered = name.startswith("_") or name in NUMBERED or value.HasField("func") or value.list.func
            if not is_numbered:
                digest.update(name.encode() + value.SerializeToString(deterministic=True))
    return digest.hexdigest()
