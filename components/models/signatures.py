"""The signatures of a SavedModel: what it takes and gives. They are read from its file, without loading it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kerasline.components.core.errors import ArtifactError

DEFAULT_SIGNATURE = "serving_default"
# Signatures that set a model up and are not for clients.
INTERNAL = ("__saved_model_init_op", "__saved_model_train_op")


@dataclass(frozen=True)
class TensorSpec:
    """A named input or output.

    Attributes:
        tensor: its name in the graph.
        data_type: the number of its `tensorflow.DataType`.
        dtype: NumPy's dtype; `object` for strings.
        shape: None where a dimension may be any; None as a whole where even the rank may.
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
        """As Keras and TensorFlow call it: `string` for strings."""
        return "string" if self.is_string else self.dtype.name

    @property
    def is_batched(self) -> bool:
        return bool(self.shape) and self.shape[0] is None

    def text(self) -> str:
        if self.shape is None:
            return "[...]"
        return "[" + ",".join("?" if size is None else str(size) for size in self.shape) + "]"


@dataclass(frozen=True)
class Signature:
    """Inputs and outputs by name, in the order of the names; `method` is the SignatureDef's."""

    name: str
    method: str
    inputs: dict[str, TensorSpec]
    outputs: dict[str, TensorSpec]

    @property
    def is_batchable(self) -> bool:
        """Whether rows of several requests can be put together and taken apart again."""
        return all(spec.is_batched for spec in (*self.inputs.values(), *self.outputs.values()))


def read_definitions(folder: Path) -> Mapping[str, Any]:
    """The SignatureDef protos for clients, by name.

    Raises:
        ArtifactError: there is no such file, it is damaged, or it holds no graph for serving.
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
            return for_clients(graph.signature_def)
    raise ArtifactError(f"{binary} holds no graph with the tag 'serve'")


def for_clients(definitions: Mapping[str, Any]) -> dict[str, Any]:
    return {name: definition for name, definition in definitions.items() if name not in INTERNAL}


def signatures(definitions: Mapping[str, Any]) -> dict[str, Signature]:
    """By name, of the SignatureDef protos by name."""
    return {name: _signature(name, definition) for name, definition in definitions.items()}


def _signature(name: str, definition: Any) -> Signature:
    return Signature(
        name,
        definition.method_name,
        {key: _spec(definition.inputs[key]) for key in sorted(definition.inputs)},
        {key: _spec(definition.outputs[key]) for key in sorted(definition.outputs)},
    )


def _spec(info: Any) -> TensorSpec:
    import tensorflow as tf

    dtype = tf.as_dtype(info.dtype)
    shape = None
    if not info.tensor_shape.unknown_rank:
        shape = tuple(None if dim.size < 0 else dim.size for dim in info.tensor_shape.dim)
    numpy_dtype = object if dtype == tf.string else dtype.as_numpy_dtype
    return TensorSpec(info.name, info.dtype, np.dtype(numpy_dtype), shape)
