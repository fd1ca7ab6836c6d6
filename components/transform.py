"""Transform: the user's Keras preprocessing, adapted over a whole split with Beam."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

from components.artifacts import Examples, Preprocessing, Schema, needed_inputs
from components.base import Component, Context, Input, Output, Parameter
from components.errors import DataError, UserCodeError, nearest
from components.user_code import call, name_of

if TYPE_CHECKING:
    import keras

    from components.columnar.adapt import LayerState


class Transform(Component):
    """Computes the state of every preprocessing layer and saves the model that has it.

    Parameters:
        function: returns a functional `keras.Model` from raw features to model inputs, both dicts
            by name. It may compute the label too.
        label: the output of that model, or else the raw column, that is learned.
        split: the rows over which layers are adapted.

    Layers that feed each other are adapted in as many passes as the longest such chain, each on
    the real output of those before it; all others in one. A layer called on several tensors is
    adapted on all of them.

    Raises:
        UserCodeError: the function raised, or did not return such a model.
        DataError: no column feeds an input, or its values cannot; the split has no rows.
    """

    LIBRARIES = ("tensorflow", "keras")

    examples: Input[Examples]
    schema: Input[Schema] = None
    preprocessing: Output[Preprocessing]
    function: Parameter[Callable]
    label: Parameter[Optional[str]] = None
    split: Parameter[str] = "train"

    def run(self, inputs: Any, outputs: Any, context: Context) -> Mapping[str, Any]:
        examples: Examples = inputs.examples
        model = self._built(examples)
        if not examples.rows(self.split):
            raise DataError(f"Transform.split: {self.split!r} has no rows to adapt layers on")
        folder = outputs.preprocessing.path
        passes = 0
        states: dict[str, LayerState] = {}
        for layers in adaptation_passes(model):
            passes += 1
            context.report(f"pass {passes}: {', '.join(layer.name for layer in layers)}")
            states |= _adapt(model, layers, examples.whole_shards(self.split), context)
        model.save(folder / Preprocessing.FILE)
        outputs.preprocessing.write_json(Preprocessing.FACTS, self._facts(model, examples))
        _write_states(folder / "state", states)
        return {"adapted_layers": len(states), "passes": passes}

    def _built(self, examples: Examples) -> keras.Model:
        import keras

        model = call(self.function)
        if not isinstance(model, keras.Model) or not isinstance(getattr(model, "input", None), dict):
            raise UserCodeError(
                f"{name_of(self.function)} must return a functional keras.Model whose inputs are a "
                f"dict by column name, it returned {type(model).__name__}"
            )
        if not isinstance(model.output, dict):
            raise UserCodeError(f"{name_of(self.function)}: the model's outputs must be a dict by name")
        hidden = _hidden_needy(model)
        if hidden is not None:
            raise UserCodeError(
                f"{name_of(self.function)}: layer {hidden[1]!r} wants adapting but lies inside layer "
                f"{hidden[0]!r}, out of reach; call it in the model itself, or give it its state"
            )
        unsavable = _unsavable(model)
        if unsavable is not None:
            raise UserCodeError(
                f"{name_of(self.function)}: layer {unsavable!r}: Keras {keras.__version__} cannot load "
                "a TF-IDF lookup that it saved; Keras 3.14 can, on Python 3.11 or later"
            )
        columns = examples.schema().names
        for name in model.input:
            if name not in columns:
                raise DataError(
                    f"the data has no column {name!r}, which {name_of(self.function)} wants; "
                    f"{nearest(name, columns)}"
                )
        if self.label is not None and self.label not in [*model.output, *columns]:
            raise DataError(
                f"Transform.label: {self.label!r} is neither an output of {name_of(self.function)} "
                f"nor a column of the data; {nearest(self.label, [*model.output, *columns])}"
            )
        return model

    def _facts(self, model: keras.Model, examples: Examples) -> dict[str, Any]:
        is_output = self.label in model.output
        names = None
        if is_output:
            layer = model.output[self.label]._keras_history.operation
            if hasattr(layer, "get_vocabulary") and getattr(layer, "num_oov_indices", 1) == 0:
                names = [str(value) for value in layer.get_vocabulary()]
        elif self.label is not None:
            names = examples.class_names(self.label)
        return {"label": self.label, "label_is_output": is_output, "class_names": names}


def adaptation_passes(model: keras.Model) -> list[list[Any]]:
    """The layers that need data, in rows: those of a row depend on layers of earlier rows only."""
    from components.columnar.adapt import new_state

    needy = [layer for layer in model.layers if new_state(layer) is not None]
    depth: dict[str, int] = {}
    for layer in needy:  # model.layers is in the order of the graph
        upstream = _ancestors(layer)
        depth[layer.name] = 1 + max((depth[n] for n in depth if n in upstream), default=-1)
    rows: list[list[Any]] = [[] for _ in range(1 + max(depth.values(), default=-1))]
    for layer in needy:
        rows[depth[layer.name]].append(layer)
    return rows


def _hidden_needy(model: keras.Model) -> tuple[str, str] | None:
    """A layer that needs data but lies inside another: the names of the other and of it."""
    import keras

    from components.columnar.adapt import new_state

    for outer in model.layers:
        whole = isinstance(outer, keras.layers.TextVectorization) or new_state(outer) is not None
        for inner in () if whole else outer._flatten_layers(include_self=False):
            if new_state(inner) is not None:
                return outer.name, inner.name
    return None


def _unsavable(model: keras.Model) -> str | None:
    """The name of a layer that Keras before 3.14 saves, but fails to load."""
    import keras

    if tuple(int(part) for part in keras.__version__.split(".")[:2]) >= (3, 14):
        return None
    lookups = (layer for layer in model.layers if getattr(layer, "output_mode", None) == "tf_idf")
    return next((layer.name for layer in lookups), None)


def _ancestors(layer: Any) -> set[str]:
    found: set[str] = set()
    waiting = [layer]
    while waiting:
        for node in waiting.pop()._inbound_nodes:
            for tensor in node.input_tensors:
                operation = tensor._keras_history.operation
                if operation.name not in found:
                    found.add(operation.name)
                    waiting.append(operation)
    return found


def _adapt(
    model: keras.Model, layers: Sequence[Any], shards: Sequence[Path], context: Context
) -> dict[str, LayerState]:
    import keras

    from components.columnar.adapt import new_state
    from components.columnar.beam import fold

    # From the raw features to what enters each layer, through the layers adapted before. Keras
    # 3.12 does not load a model whose output is an input itself, hence the Identity.
    entering = {
        f"{place}:{layer.name}": keras.layers.Identity()(tensor)
        for layer in layers
        for place, tensor in enumerate(_entering(model, layer))
    }
    file = context.work_dir / f"before-{layers[0].name}.keras"
    keras.Model(needed_inputs(model.input, entering), entering).save(file)
    empty = {layer.name: new_state(layer) for layer in layers}
    accumulate = functools.partial(_accumulate, model_file=str(file), empty=empty)
    states = fold([str(shard) for shard in shards], accumulate, _merge, context)
    for layer in layers:
        states[layer.name].apply(layer)
    return states


def _entering(model: keras.Model, layer: Any) -> list[Any]:
    """What the layer is called on in the model: a tensor a call."""
    nodes = [node for row in model._nodes_by_depth.values() for node in row]
    return [tensor for node in nodes if node.operation is layer for tensor in node.input_tensors]


def _accumulate(shard: str, model_file: str, empty: dict[str, Any]) -> dict[str, Any]:
    """The layers' states over one shard."""
    import pyarrow.parquet as pq
    import tensorflow as tf

    from components.columnar.feed import feed, rows_a_batch

    model, states = _loaded(model_file), copy.deepcopy(empty)
    rows = rows_a_batch(model.input)
    with pq.ParquetFile(shard) as file:
        for batch in file.iter_batches(batch_size=rows, columns=list(model.input)):
            arrays = {n: tf.convert_to_tensor(v) for n, v in feed(batch, model.input).items()}
            for key, tensor in model(arrays).items():
                states[key.partition(":")[2]].add(tensor.numpy())
    return states


@functools.lru_cache(maxsize=2)
def _loaded(model_file: str) -> keras.Model:
    """The model, loaded once in a process."""
    import keras

    return keras.saving.load_model(model_file)


def _merge(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    for name, state in theirs.items():
        ours[name].merge(state)
    return ours


def _write_states(folder: Path, states: Mapping[str, LayerState]) -> None:
    import json

    folder.mkdir()
    for name, state in states.items():
        readable = state.readable()
        if isinstance(readable, dict):
            text = json.dumps(readable, indent=2)
            (folder / f"{name}.json").write_text(text + "\n", encoding="utf-8")
        else:
            lines = "".join(f"{value}\t{count}\n" for value, count in readable)
            (folder / f"{name}.txt").write_text(lines, encoding="utf-8")
