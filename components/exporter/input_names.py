"""Inputs of a SavedModel under the names of the columns, whatever characters these have.

TensorFlow traces a signature only with argument names that it accepts as names of operations (ASCII letters, digits and
underscores, and no keyword of Python), and writes these names into the SavedModel. The file format itself accepts any
text. Therefore signatures are traced with numbered names, which are then replaced in the file.
"""

from __future__ import annotations

import keyword
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.saved_model.fingerprinting_utils import write_fingerprint

Specs = Mapping[str, tf.TensorSpec]


def with_numbered_names(specs: Specs) -> dict[str, tf.TensorSpec]:
    """Return specs by the same keys, with argument names that TensorFlow accepts."""
    return {name: tf.TensorSpec(specs[name].shape, specs[name].dtype, own) for own, name in _numbered(specs).items()}


def restore_names(folder: Path, inputs: Mapping[str, Iterable[str]]) -> None:
    """Replace the argument names of `with_numbered_names` in a SavedModel by the names of the inputs.

    Args:
        folder: folder of the SavedModel.
        inputs: names of the inputs, by signature.
    """
    file = folder / "saved_model.pb"
    saved = saved_model_pb2.SavedModel()
    saved.ParseFromString(file.read_bytes())
    (graph,) = saved.meta_graphs
    objects = graph.object_graph_def
    functions = _children(objects, _children(objects, 0)["signatures"])
    for signature, names in inputs.items():
        own = _numbered(names)
        _rename(graph.signature_def[signature].inputs, own)
        compared = _as_compared(own.values())
        if len(compared) < len(own) or "self" in compared:
            continue  # no call of `tf.saved_model.load(folder).signatures` could tell these names apart
        function = objects.nodes[functions[signature]].bare_concrete_function
        function.argument_keywords[:] = [own[name] for name in function.argument_keywords]
        if not any(map(keyword.iskeyword, compared)):  # loading would fail
            function.ClearField("function_spec")  # has the numbered names as the parameters of a Python function
            arguments = objects.concrete_functions[function.concrete_function_name].canonicalized_input_signature
            _rename(arguments.tuple_value.values[1].dict_value.fields, own)
    file.write_bytes(saved.SerializeToString())
    write_fingerprint(str(folder))  # it has a checksum of the file; TensorFlow has no public way to renew it


def restore_names_in_onnx(file: Path, names: Iterable[str]) -> None:
    """Replace the argument names of `with_numbered_names` in an ONNX file by the names of the inputs."""
    import onnx

    model, own = onnx.load(str(file)), _numbered(names)
    passed_on = []
    for tensor in model.graph.input:
        if tensor.name in own:
            passed_on.append(onnx.helper.make_node("Identity", [own[tensor.name]], [tensor.name]))
            tensor.name = own[tensor.name]
    nodes = [*passed_on, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, str(file))


def unknown_operations(file: Path) -> list[str]:
    """Return the names of the operations of an ONNX file that ONNX does not define, as converters pass them through."""
    import onnx

    def of_graph(graph: onnx.GraphProto) -> Iterator[str]:
        for node in graph.node:
            if not onnx.defs.has(node.op_type, node.domain):
                yield node.op_type
            for attribute in node.attribute:
                yield from of_graph(attribute.g)

    return sorted(set(of_graph(onnx.load(str(file)).graph)))


def _numbered(names: Iterable[str]) -> dict[str, str]:
    """Return the names by numbered ones, none of which is itself one of the names.

    Both sort alike, as TensorFlow passes arguments in the order of their names.
    """
    names = sorted(names)
    digits = len(str(len(names)))
    prefix = "input_"
    while any(name.startswith(prefix) for name in names):
        prefix += "x_"
    return {f"{prefix}{number:0{digits}}": name for number, name in enumerate(names)}


def _as_compared(names: Iterable[str]) -> set[str]:
    """Return keyword arguments as TensorFlow compares them. An empty name, with which it fails, is left out."""
    compared = ("".join(c if c.isalnum() else "_" for c in name) for name in names)
    return {name if name[0].isalpha() else f"arg_{name}" for name in compared if name}


def _children(objects: Any, node: int) -> dict[str, int]:
    return {child.local_name: child.node_id for child in objects.nodes[node].children}


def _rename(entries: MutableMapping[str, Any], own: Mapping[str, str]) -> None:
    """Rename the keys of a map field of protobuf messages, which can only be changed in place."""
    renamed = {own[key]: type(value).FromString(value.SerializeToString()) for key, value in entries.items()}
    entries.clear()
    for name, value in renamed.items():
        entries[name].CopyFrom(value)
