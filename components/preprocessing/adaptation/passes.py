"""Adapt the layers of a functional model over shards: one fold for each pass."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import inspect
import json
import pickle
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import keras
import numpy as np

from kerasline.components.core import keras_files
from kerasline.components.core.artifacts import needed_inputs
from kerasline.components.core.component import Context
from kerasline.components.core.error_places import columns_text, describe_failure
from kerasline.components.core.errors import DataError, KeraslineError, ParameterError, named_cause, nearest
from kerasline.components.data.beam_runners import runs_locally
from kerasline.components.data.fold import fold
from kerasline.components.data.model_inputs import feed_column, rows_per_batch
from kerasline.components.data.partial_results import CachedAccumulate, CountedResult, Part, split_into_parts
from kerasline.components.data.row_weights import checked_weights
from kerasline.components.preprocessing.adaptation import new_state, set_state, takes_label
from kerasline.components.preprocessing.adaptation.graph import adaptation_passes, calls, operations_before

if TYPE_CHECKING:
    import pyarrow as pa

    from kerasline.components.data.accumulators import Accumulator

VERSION = "2"  # raise it whenever the same rows would give other states
FEW_PARTS = 4  # computed in this process if the others are cached: starting Beam takes about as long


@dataclass
class Adapted:
    """The result of adapting a model.

    Attributes:
        states: by the layer's name.
        passes: number of times that the rows were read.
        computed: number of parts of the rows that were read, over all passes.
        remembered: number of parts whose states came from the cache.
    """

    states: dict[str, Accumulator]
    passes: int = 0
    computed: int = 0
    remembered: int = 0


def label_and_weight(
    model: keras.Model, labels: Sequence[str], columns: Collection[str], stage: str
) -> dict[str, dict[str, str]]:
    """Return the label and the weight that layers take beside their inputs, by the layer's name.

    Args:
        model: functional, with outputs by name.
        labels: the outputs or raw columns that Transform learns.
        columns: the raw columns.
        stage: the stage's name, for messages.

    Returns:
        For each layer that takes one or both, an output or raw column by `"label"` or `"sample_weight"`.

    Raises:
        ParameterError: there is no label, the layer does not name one of several, there is no such output or column, or
            it is computed from such a layer.
    """
    found: dict[str, dict[str, str]] = {}
    for layer in model.layers:
        described = f"layer {layer.name!r} ({type(layer).__name__})"
        if takes_label(layer):
            found[layer.name] = {"label": _label_of(layer, described, labels, stage)}
        weight = getattr(layer, "sample_weight", None)
        if isinstance(weight, str) and new_state(layer) is not None:
            known = [*model.output, *columns]
            if weight not in known:
                raise ParameterError(
                    f"{stage}: {described} has sample_weight={weight!r}, which is neither an output of the "
                    f"preprocessing nor a column of the data; {nearest(weight, known)}"
                )
            found.setdefault(layer.name, {})["sample_weight"] = weight
    for name, taken in found.items():
        for role, output in taken.items():
            cyclic = operations_before(model.output[output]) & set(found) if output in model.output else ()
            for other in cyclic:
                raise ParameterError(
                    f"{stage}.label: {output!r} is computed from layer {other!r}, which needs a label or weight "
                    f"itself; it cannot be the {role} of layer {name!r}"
                )
    return found


def _label_of(layer: keras.layers.Layer, described: str, labels: Sequence[str], stage: str) -> str:
    """Return the one of Transform's labels that a layer takes."""
    chosen = getattr(layer, "label", None)
    if not labels:
        raise ParameterError(f"{stage}.label: {described} needs the label to be adapted; pass {stage}(label=...)")
    if chosen is None and len(labels) > 1:
        raise ParameterError(
            f"{stage}.label: {described} takes one label, received {', '.join(labels)}; "
            f"name one: {type(layer).__name__}(label={labels[0]!r})"
        )
    if chosen is not None and chosen not in labels:
        raise ParameterError(
            f"{stage}.label: {described} takes label {chosen!r}, which is not among {', '.join(labels)}"
        )
    return chosen or labels[0]


def adapt(
    model: keras.Model,
    shards: Sequence[Path],
    context: Context,
    most_counted: int | None = None,
    beside: Mapping[str, Mapping[str, str]] | None = None,
) -> Adapted:
    """Compute the states of all layers that need one, and set them.

    The number of passes is the length of the longest chain of such layers. Each layer is adapted on the real output of
    those before it. A layer that is called on several tensors is adapted on all of them.

    Args:
        model: functional, with inputs by name. Changed in place.
        shards: Parquet files with a column for each input.
        context: its `cache_dir` keeps the states of parts of the rows for later runs.
        most_counted: maximum number of values that a vocabulary counts at once. None counts all.
        beside: see `label_and_weight`.
    """
    rows, adapted = split_into_parts(shards), Adapted({})
    for layers in adaptation_passes(model, beside):
        adapted.passes += 1
        context.report(f"pass {adapted.passes}: {', '.join(layer.name for layer in layers)}")
        plan = _Plan.of(model, layers, context.work_dir, most_counted, beside or {})
        folder = None
        if context.cache_dir is not None:
            folder = context.cache_dir / _plan_digest(plan, model, layers, adapted.states)
        accumulate = CachedAccumulate(functools.partial(_accumulate, plan=plan), plan.columns, folder)
        # The parts are read to know which are missing, so their number is compared first.
        few = runs_locally(context.beam_options) and FEW_PARTS < len(rows) and accumulate.missing(rows) <= FEW_PARTS
        merge = functools.partial(CountedResult.merge, merge_values=_merge)
        done: CountedResult | None = fold(rows, accumulate, merge, context, in_process=few)
        assert done is not None, "a split with rows has parts"
        adapted.computed += done.computed
        adapted.remembered += done.cached
        for layer, state in zip(layers, done.value):
            set_state(layer, state)
            adapted.states[layer.name] = state
    return adapted


class _Spec(NamedTuple):
    """The dtype and shape of an input, rows first."""

    dtype: str
    shape: tuple[int | None, ...]


@dataclass(frozen=True)
class _Plan:
    """One pass, as Beam's workers receive it. Layers go by their place, as Keras numbers names within a process.

    Attributes:
        inputs: the columns that feed the model.
        rows: number of rows in a batch.
        model_file: computes the layers' inputs from these columns, if they are not columns themselves.
        direct: columns that enter layers unchanged, by their key in `calls`.
        calls: for each call of each layer, the keys of its tensors.
        empty: an accumulator for each layer, pickled.
        names: for each layer, its name, for messages.
        beside: for each layer, the keys of its label and weight, by `"label"` and `"sample_weight"`.
        raw_beside: labels and weights that are raw columns, by their key.
    """

    inputs: Mapping[str, _Spec]
    rows: int
    model_file: str | None
    direct: Mapping[str, str]
    calls: Sequence[Sequence[Sequence[str]]]
    empty: bytes
    names: Sequence[str]
    beside: Sequence[Mapping[str, str]]
    raw_beside: Mapping[str, str]

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys([*self.inputs, *self.raw_beside.values()]))

    @classmethod
    def of(
        cls,
        model: keras.Model,
        layers: Sequence[keras.layers.Layer],
        work_dir: Path,
        most: int | None,
        beside: Mapping[str, Mapping[str, str]],
    ) -> _Plan:
        columns = {id(tensor): name for name, tensor in model.input.items()}
        direct: dict[str, str] = {}
        computed: dict[str, Any] = {}
        called: list[list[list[str]]] = []

        def take(key: str, tensor: Any) -> str:
            if id(tensor) in columns:
                direct[key] = columns[id(tensor)]
            else:
                computed[key] = tensor
            return key

        for place, layer in enumerate(layers):
            times = enumerate(calls(model, layer))
            called.append([[take(f"{place}.{time}.{n}", tensor) for n, tensor in enumerate(ts)] for time, ts in times])
        keys_beside: list[dict[str, str]] = []
        raw_beside: dict[str, str] = {}
        for layer in layers:
            keys_beside.append({})
            for role, name in beside.get(layer.name, {}).items():
                keys_beside[-1][role] = key = f"{role} {name}"
                if name in model.output:
                    take(key, model.output[name])
                else:
                    raw_beside[key] = name
        empty = [new_state(layer) for layer in layers]
        for state in empty:
            limit = getattr(state, "limit", None)
            if most is not None and limit is not None:
                limit(most)
        file = None
        used = {name: model.input[name] for name in direct.values()}
        if computed:
            file = str(work_dir / f"before-{uuid.uuid4().hex}.keras")
            before = keras.Model(needed_inputs(model.input, computed), computed)
            keras_files.save(before, Path(file))
            used |= before.input
        specs = {name: _Spec(str(t.dtype), tuple(t.shape)) for name, t in sorted(used.items())}
        rows = rows_per_batch({**specs, **computed})
        names = [layer.name for layer in layers]
        return cls(specs, rows, file, direct, called, pickle.dumps(empty), names, keys_beside, raw_beside)


def _accumulate(part: Part, plan: _Plan) -> list[Accumulator]:
    """Return the layers' states over one part of the rows."""
    import pyarrow.parquet as pq

    states, position = pickle.loads(plan.empty), 0
    with pq.ParquetFile(part.shard) as file:
        for batch in file.iter_batches(plan.rows, list(part.groups), list(plan.columns)):
            entering = _Entering(batch, plan)
            for state, name, times, keys_beside in zip(states, plan.names, plan.calls, plan.beside):
                takes_arrow = getattr(state, "ACCEPTS_ARROW", False)
                options = {role: entering.beside(role, key) for role, key in keys_beside.items()}
                if "label" in options:
                    options["positions"] = np.arange(position, position + batch.num_rows)
                for keys in times:
                    with entering.named_in_errors(name, keys):
                        state.add(*(entering.value(key, takes_arrow) for key in keys), **options)
            position += batch.num_rows
    return states


class _Entering:
    """The tensors that enter layers, for one batch. Each is computed once."""

    def __init__(self, batch: Any, plan: _Plan) -> None:
        self._batch, self._direct, self._raw_beside = batch, plan.direct, plan.raw_beside
        self._model_file = plan.model_file
        self._columns = {name: feed_column(batch, name, spec) for name, spec in plan.inputs.items()}
        self._dense = functools.cache(lambda name: self._columns[name].dense())
        self._computed: dict[str, Any] = {}
        if plan.model_file is not None:
            import tensorflow as tf

            model = _loaded(plan.model_file)
            given = {name: tf.convert_to_tensor(self._dense(name)) for name in model.input}
            try:
                self._computed = model(given, training=False)
            except tf.errors.OpError:  # once more, as a graph, whose errors name the layer
                try:
                    tf.function(functools.partial(model, training=False), autograph=False)(given)
                except tf.errors.OpError as error:
                    raise DataError(describe_failure(error, model)) from error
                raise

    @contextlib.contextmanager
    def named_in_errors(self, layer: str, keys: Sequence[str]) -> Iterator[None]:
        """Name a layer and the columns of its tensors in an error that its accumulator raises."""
        try:
            yield
        except KeraslineError:
            raise
        except Exception as error:
            tensors = {key: _loaded(self._model_file).output[key] for key in keys if key not in self._direct}
            before = needed_inputs(_loaded(self._model_file).input, tensors) if self._model_file and tensors else {}
            columns = list(dict.fromkeys([*(self._direct[key] for key in keys if key in self._direct), *before]))
            raise DataError(f"layer {layer!r}{columns_text(columns)}: {named_cause(error)}") from error

    def value(self, key: str, takes_arrow: bool) -> Any:
        if key not in self._direct:
            return self._computed[key].numpy()
        held = self._columns[self._direct[key]]
        # Arrow's own texts, where a row is one, are ten times as fast as Python's objects.
        if takes_arrow and held.lengths is None and held.shape in ((), (1,)) and hasattr(held.values, "buffers"):
            return held.values
        return self._dense(self._direct[key])

    def beside(self, role: str, key: str) -> np.ndarray:
        """Return a label or weight for each row."""
        if key not in self._raw_beside:
            values, where = self.value(key, takes_arrow=False), f"output {key.removeprefix(role + ' ')!r}"
        else:
            name = self._raw_beside[key]
            values, where = _one_a_row(self._batch.column(name), name, role), f"column {name!r}"
        return checked_weights(values, where) if role == "sample_weight" else values


def _one_a_row(values: pa.Array, name: str, role: str) -> np.ndarray:
    """Return a raw label or weight as an array (rows,) in which a missing one is NaN or None."""
    import pyarrow as pa

    if pa.types.is_nested(values.type) or isinstance(values.type, pa.BaseExtensionType):
        raise DataError(
            f"column {name!r}, the {role.replace('sample_', '')}, is {values.type}; a layer takes one number or text "
            "per row"
        )
    return (values.cast(pa.int8()) if pa.types.is_boolean(values.type) else values).to_numpy(zero_copy_only=False)


@functools.lru_cache(maxsize=2)
def _loaded(model_file: str) -> keras.Model:
    """Return the model, loaded once in a process."""
    return keras_files.load(Path(model_file))


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
    """Return a digest of everything that decides the states of a pass, except the rows."""
    text = json.dumps({**model.get_config(), "name": ""}, sort_keys=True, default=str)
    for place, operation in enumerate(model.operations):
        text = text.replace(json.dumps(operation.name), f'"operation {place}"')
    digest = hashlib.sha256(f"{VERSION} {keras.__version__} {text}".encode())
    digest.update(repr([plan.inputs, [model.layers.index(layer) for layer in layers]]).encode())
    if any(plan.beside):
        digest.update(repr([plan.beside, plan.raw_beside]).encode())
    digest.update(plan.empty)
    digest.update(pickle.dumps(list(before.values())))
    for weight in model.weights:
        digest.update(weight.numpy().tobytes())
    for layer in model.layers:
        if hasattr(layer, "get_vocabulary"):  # once adapted, neither in its configuration nor in its weights
            digest.update(repr(layer.get_vocabulary()).encode())
        functions = [value for value in layer.get_config().values() if inspect.isfunction(value)]
        code: Any
        for code in (type(layer), *functions):
            if not code.__module__.startswith(("keras.", "kerasline.components.preprocessing.layers.")):
                digest.update(inspect.getsource(inspect.getmodule(code) or code).encode())
    return digest.hexdigest()[:32]
