"""Adapts the layers of a functional model over shards: one fold a pass."""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import pickle
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import keras

from kerasline.components.core.artifacts import needed_inputs
from kerasline.components.core.component import Context
from kerasline.components.data.feed import column, rows_a_batch
from kerasline.components.data.fold import fold
from kerasline.components.data.partial_results import Counted, Part, Remembering, parts
from kerasline.components.preprocessing.adaptation import new_state, set_state
from kerasline.components.preprocessing.adaptation.graph import adaptation_passes, calls

if TYPE_CHECKING:
    from kerasline.components.data.accumulators import Accumulator

VERSION = "1"  # raised whenever the same rows would give other states


@dataclass
class Adapted:
    """What adapting a model came to.

    Attributes:
        states: by the layer's name.
        passes: how often the rows were read.
        computed: parts of the rows read, over all passes.
        remembered: parts whose states an earlier run had kept.
    """

    states: dict[str, Accumulator]
    passes: int = 0
    computed: int = 0
    remembered: int = 0


def adapt(model: keras.Model, shards: Sequence[Path], context: Context, most_counted: int | None = None) -> Adapted:
    """Computes the states of all layers that need one, and sets them.

    Layers that feed each other are adapted in as many passes as the longest such chain, each on the
    real output of those before it; all others in one. A layer called on several tensors is adapted
    on all of them.

    Args:
        model: functional, with inputs by name; changed in place.
        shards: Parquet files with a column for each input.
        context: its `cache_dir` keeps the states of parts of the rows for later runs.
        most_counted: how many values a vocabulary counts at once; None counts all.
    """
    rows, adapted = parts(shards), Adapted({})
    for layers in adaptation_passes(model):
        adapted.passes += 1
        context.report(f"pass {adapted.passes}: {', '.join(layer.name for layer in layers)}")
        plan = _Plan.of(model, layers, context.work_dir, most_counted)
        folder = None
        if context.cache_dir is not None:
            folder = context.cache_dir / _plan_digest(plan, model, layers, adapted.states)
        accumulate = Remembering(functools.partial(_accumulate, plan=plan), tuple(plan.inputs), folder)
        done: Counted = fold(rows, accumulate, functools.partial(Counted.merged, merge=_merge), context)
        adapted.computed += done.computed
        adapted.remembered += done.remembered
        for layer, state in zip(layers, done.value):
            set_state(layer, state)
            adapted.states[layer.name] = state
    return adapted


class _Spec(NamedTuple):
    """The dtype and shape of an input, rows first: what feeding needs to know of it."""

    dtype: str
    shape: tuple[int | None, ...]


@dataclass(frozen=True)
class _Plan:
    """One pass, as Beam's workers get it: layers by their place, as Keras's names count up.

    Attributes:
        inputs: the columns that are read.
        rows: how many rows are taken at a time.
        model_file: from these inputs to what enters the layers, where that is not an input itself.
        direct: inputs that enter layers as they are, by the key under which calls name them.
        calls: for each layer, for each time that it is called: the keys of the tensors.
        empty: an accumulator for each layer, pickled.
    """

    inputs: Mapping[str, _Spec]
    rows: int
    model_file: str | None
    direct: Mapping[str, str]
    calls: Sequence[Sequence[Sequence[str]]]
    empty: bytes

    @classmethod
    def of(cls, model: keras.Model, layers: Sequence[keras.layers.Layer], work_dir: Path, most: int | None) -> _Plan:
        names = {id(tensor): name for name, tensor in model.input.items()}
        direct, computed, called = {}, {}, []
        for place, layer in enumerate(layers):
            called.append([])
            for time, tensors in enumerate(calls(model, layer)):
                keys = [f"{place}.{time}.{part}" for part in range(len(tensors))]
                called[-1].append(keys)
                for key, tensor in zip(keys, tensors):
                    if id(tensor) in names:
                        direct[key] = names[id(tensor)]
                    else:
                        computed[key] = tensor
        empty = [new_state(layer) for layer in layers]
        for state in empty:
            if most is not None and hasattr(state, "limit"):
                state.limit(most)
        file = None
        used = {name: model.input[name] for name in direct.values()}
        if computed:
            file = str(work_dir / f"before-{uuid.uuid4().hex}.keras")
            before = keras.Model(needed_inputs(model.input, computed), computed)
            before.save(file)
            used |= before.input
        specs = {name: _Spec(str(t.dtype), tuple(t.shape)) for name, t in sorted(used.items())}
        rows = rows_a_batch({**specs, **computed})
        return cls(specs, rows, file, direct, called, pickle.dumps(empty))


def _accumulate(part: Part, plan: _Plan) -> list[Accumulator]:
    """The layers' states over one part of the rows."""
    import pyarrow.parquet as pq

    states = pickle.loads(plan.empty)
    with pq.ParquetFile(part.shard) as file:
        for batch in file.iter_batches(plan.rows, list(part.groups), list(plan.inputs)):
            entering = _Entering(batch, plan)
            for state, times in zip(states, plan.calls):
                takes_arrow = getattr(state, "TAKES_ARROW", False)
                for keys in times:
                    state.add(*(entering.value(key, takes_arrow) for key in keys))
    return states


class _Entering:
    """What enters layers, of one batch, each computed once."""

    def __init__(self, batch: Any, plan: _Plan) -> None:
        self._direct = plan.direct
        self._columns = {name: column(batch, name, spec) for name, spec in plan.inputs.items()}
        self._dense = functools.cache(lambda name: self._columns[name].dense())
        self._computed: dict[str, Any] = {}
        if plan.model_file is not None:
            import tensorflow as tf

            model = _loaded(plan.model_file)
            given = {name: tf.convert_to_tensor(self._dense(name)) for name in model.input}
            self._computed = model(given, training=False)

    def value(self, key: str, takes_arrow: bool) -> Any:
        if key not in self._direct:
            return self._computed[key].numpy()
        held = self._columns[self._direct[key]]
        # Arrow's own texts, where a row is one: ten times as fast as objects of Python's.
        if takes_arrow and held.lengths is None and held.shape in ((), (1,)) and hasattr(held.values, "buffers"):
            return held.values
        return self._dense(self._direct[key])


@functools.lru_cache(maxsize=2)
def _loaded(model_file: str) -> keras.Model:
    """The model, loaded once in a process."""
    return keras.saving.load_model(model_file)


def _merge(ours: list[Accumulator], theirs: list[Accumulator]) -> list[Accumulator]:
    for state, other in zip(ours, theirs):
        state.merge(other)
    return ours


def _plan_digest(
    plan: _Plan,
    model: keras.Model,
    layers: Sequence[keras.layers.Layer],
    before: Mapping[str, Accumulator],
) -> str:
    """What decides the states of a pass, besides the rows."""
    text = json.dumps({**model.get_config(), "name": ""}, sort_keys=True, default=str)
    for place, operation in enumerate(model.operations):
        text = text.replace(json.dumps(operation.name), f'"operation {place}"')
    digest = hashlib.sha256(f"{VERSION} {keras.__version__} {text}".encode())
    digest.update(repr([plan.inputs, [model.layers.index(layer) for layer in layers]]).encode())
    digest.update(plan.empty)
    digest.update(pickle.dumps(list(before.values())))
    for weight in model.weights:
        digest.update(weight.numpy().tobytes())
    for layer in model.layers:
        if hasattr(layer, "get_vocabulary"):  # neither in its configuration nor in weights, once adapted
            digest.update(repr(layer.get_vocabulary()).encode())
        if not type(layer).__module__.startswith(("keras.", "kerasline.components.preprocessing.layers.")):
            digest.update(inspect.getsource(inspect.getmodule(type(layer))).encode())
    return digest.hexdigest()[:32]
