"""Losses of sequences that Keras lacks: `kl.losses`."""

from kerasline.components.models.losses import CTC, Masked, SmoothedCrossentropy

__all__ = ["CTC", "Masked", "SmoothedCrossentropy"]
