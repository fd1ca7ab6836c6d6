"""Adapting Keras layers: the state that Keras's `adapt()` computes in one process, computed over shards with Beam.

A custom layer is adapted too if it has two methods::

    def new_state(self) -> Accumulator | None    # empty; None if the layer needs no data
    def set_state(self, state) -> None           # keeps it in what Keras saves of the layer

`new_state` is called on a built layer. The accumulator that it returns travels to Beam's workers without the layer.
There it receives the layer's inputs batch by batch: `state.add(*inputs)`. The workers' accumulators are merged.
`Accumulator` in `kerasline.components.data.accumulators` describes them; moments, extremes, quantiles and counts are
there to use.

An accumulator with `TAKES_LABEL = True` also receives the label::

    state.add(*inputs, label=label, positions=positions)

`label` is an array (rows, ...) in which a missing label is NaN, None or "". `positions`, int64 (rows,), identify the
rows for `kerasline.components.preprocessing.training_mode.fold_of`. If Transform learns several labels, the layer's
attribute `label` names one. `kerasline.components.preprocessing.layers.TargetEncoding` is such a layer.

If the layer's attribute `sample_weight` is the name of an output of the preprocessing, or of a raw column, `add` also
receives `sample_weight`, the finite weights from 0 of the rows, float64 (rows,).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kerasline.components.data.accumulators import Accumulator


def new_state(layer: Any) -> Accumulator | None:
    """Return an empty accumulator for the layer, or None if it needs no data or has its state."""
    from kerasline.components.preprocessing.adaptation import keras_layers

    if _has_protocol(layer):
        return layer.new_state()
    adapter = keras_layers.adapter(layer)
    return None if adapter is None else adapter.new_state(layer)


def set_state(layer: Any, state: Accumulator) -> None:
    """Give the layer the state that was accumulated for it."""
    from kerasline.components.preprocessing.adaptation import keras_layers

    if _has_protocol(layer):
        layer.set_state(state)
    else:
        adapter = keras_layers.adapter(layer)
        assert adapter is not None, layer
        adapter.set_state(layer, state)


def takes_label(layer: Any) -> bool:
    """Return whether the layer needs the label to be adapted."""
    return getattr(new_state(layer), "TAKES_LABEL", False)


def _has_protocol(layer: Any) -> bool:
    return all(callable(getattr(layer, name, None)) for name in ("new_state", "set_state"))
