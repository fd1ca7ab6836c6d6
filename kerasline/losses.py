"""Losses that Keras lacks, of sequences of varying length and of detected objects: `kl.losses`."""

from kerasline.components.models.detection_loss import CenterDetection
from kerasline.components.models.losses import CTC, Masked, SmoothedCrossentropy

__all__ = ["CTC", "CenterDetection", "Masked", "SmoothedCrossentropy"]
