"""Adapting Keras layers: what Keras's `adapt()` computes in one process, over shards, with Beam.

A layer of one's own is adapted too, if it has two methods::

    def new_state(self) -> Accumulator | None    # empty; None where the layer needs no data
    def set_state(self, state) -> None           # keeps it in weights, so that it is saved

`new_state` is called on a built layer. What it returns travels to Beam's workers without the layer,
takes in what enters the layer, batch by batch, and merges: see `Accumulator` in
`kerasline.components.data.accumulators`, where there are some to use: moments, extremes, quantiles, counts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kerasline.components.data.accumulators import Accumulator


def new_state(layer: Any) -> Accumulator | None:
    """An accumulator for a layer that needs one; None for one that does not, or has its state."""
    from kerasline.components.preprocessing.adaptation import keras_layers

    if _has_protocol(layer):
        return layer.new_state()
    adapter = keras_layers.adapter(layer)
    return None if adapter is None else adapter.new_state(layer)


def set_state(layer: Any, state: Accumulator) -> None:
    """Gives the layer what was accumulated for it."""
    from kerasline.components.preprocessing.adaptation import keras_layers

    if _has_protocol(layer):
        layer.set_state(state)
    else:
        keras_layers.adapter(layer).set_state(layer, state)


def _has_protocol(layer: Any) -> bool:
    return all(callable(getattr(layer, name, None)) for name in ("new_state", "set_state"))
