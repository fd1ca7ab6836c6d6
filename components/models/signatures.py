"""The signatures of a SavedModel, read from its file without loading the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kerasline.components.core.artifacts import TensorForm
from kerasline.components.core.errors import ArtifactError

DEFAULT_SIGNATURE = "serving_default"
# Signatures that initialize a model. Clients do not call them.
INTERNAL = ("__saved_model_init_op", "__saved_model_train_op")
# Signatures of a model whose answers can be streamed, which the server calls itself. See answer_stream.py.
STREAM_START, STREAM_STEP, STREAM_ANSWERS = STREAM = ("__stream_start", "__stream_step", "__stream_answers")
# Prefixes of their inputs and outputs: raw columns, and the state of a slot.
RAW_COLUMN, STATE = "raw_", "state_"


@dataclass(frozen=True)
class TensorSpec:
    """An input or output of a signature.

    Attributes:
        tensor: its name in the graph.
        data_type: the number of its `tensorflow.DataType`.
        dtype: NumPy dtype; `object` for strings.
        shape: None for a dimension of any size. None as a whole if even the rank is unknown, or no shape is declared.
    """

    tensor: str
    data_type: int
    dtype: Any
    shape: tuple[int | None, ...] | None

    @property
    def is_string(self) -> bool:
        return self.dtype == object

    @property
    def dtype_name(self) -> str:
        """The name in Keras and TensorFlow, such as `float32` or `string`."""
        return "string" if self.is_string else self.dtype.name

    @property
    def is_batched(self) -> bool:
        """Whether the first dimension is the number of rows, and may be any."""
        return self.shape is not None and self.shape[:1] == (None,)

    def text(self) -> str:
        """Return the shape as text, such as `[?,3]`, or `[...]` if the rank is unknown."""
        if self.shape is None:
            return "[...]"
        return "[" + ",".join("?" if size is None else str(size) for size in self.shape) + "]"


@dataclass(frozen=True)
class Signature:
    """A signature.

    Attributes:
        method: the method name of its SignatureDef.
        inputs, outputs: specs by name, in alphabetical order.
        defaults: arrays by name for inputs that a request may leave out.
    """

    name: str
    method: str
    inputs: dict[str, TensorSpec]
    outputs: dict[str, TensorSpec]
    defaults: dict[str, Any] = field(default_factory=dict, compare=False)

    @property
    def is_batchable(self) -> bool:
        """Whether rows of several requests can be joined for one call and their answers separated.

        A default has as many rows as its author chose, not as many as the request.
        """
        has_rows = bool(self.inputs) and not self.defaults
        return has_rows and self.answers_by_row and all(spec.is_batched for spec in self.inputs.values())

    @property
    def answers_by_row(self) -> bool:
        """Whether every output has one entry for each row."""
        return all(spec.is_batched for spec in self.outputs.values())

    @property
    def input_specs(self) -> dict[str, TensorForm]:
        return {name: TensorForm(spec.dtype_name, spec.shape) for name, spec in self.inputs.items()}


def read_definitions(folder: Path) -> Mapping[str, Any]:
    """Read the SignatureDef protos that clients may call, by name.

    Raises:
        ArtifactError: the file does not exist, is damaged, or contains no graph for serving.
    """
    return for_clients(read_meta_graph(folder).signature_def)


def read_meta_graph(folder: Path) -> Any:
    """Read the MetaGraphDef for serving from the file of a SavedModel. Nothing of the model is executed.

    Raises:
        ArtifactError: the file does not exist, is damaged, or contains no graph for serving.
    """
    from google.protobuf import text_format
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2

    binary, text = folder / "saved_model.pb", folder / "saved_model.pbtxt"
    saved = saved_model_pb2.SavedModel()
    try:
        if binary.is_file():
            saved.ParseFromString(binary.read_bytes())
        elif text.is_file():
            text_format.Parse(text.read_text(encoding="utf-8"), saved)
        else:
            raise ArtifactError(f"{folder} has no saved_model.pb")
    except (DecodeError, text_format.ParseError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{binary} is damaged: {error}") from error
    for graph in saved.meta_graphs:
        if "serve" in graph.meta_info_def.tags:
            return graph
    raise ArtifactError(f"{binary} contains no graph with the tag 'serve'")


def for_clients(definitions: Mapping[str, Any]) -> dict[str, Any]:
    """Return the SignatureDef protos that clients may call."""
    return {name: definition for name, definition in definitions.items() if name not in INTERNAL + STREAM}


def signatures(definitions: Mapping[str, Any]) -> dict[str, Signature]:
    """Return the signatures by name, given SignatureDef protos by name."""
    return {name: _signature(name, definition) for name, definition in definitions.items()}


def _signature(name: str, definition: Any) -> Signature:
    import tensorflow as tf

    return Signature(
        name,
        definition.method_name,
        {key: _spec(definition.inputs[key]) for key in sorted(definition.inputs)},
        {key: _spec(definition.outputs[key]) for key in sorted(definition.outputs)},
        {key: tf.make_ndarray(definition.defaults[key]) for key in sorted(definition.defaults)},
    )


def _spec(info: Any) -> TensorSpec:
    import numpy as np
    import tensorflow as tf

    dtype = tf.as_dtype(info.dtype).base_dtype  # without `_ref`, which only a graph of TensorFlow 1 has
    shape: tuple[int | None, ...] | None = None
    if info.HasField("tensor_shape") and not info.tensor_shape.unknown_rank:
        shape = tuple(None if dim.size < 0 else dim.size for dim in info.tensor_shape.dim)
    numpy_dtype = object if dtype == tf.string else dtype.as_numpy_dtype
    return TensorSpec(info.name, dtype.as_datatype_enum, np.dtype(numpy_dtype), shape)
