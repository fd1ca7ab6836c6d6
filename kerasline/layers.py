"""Keras layers that Keras lacks, for preprocessing and for models that generate: `kl.layers`."""

from kerasline.components.decoding.alignment import LengthRegulation as LengthRegulation
from kerasline.components.decoding.alignment import MonotonicAlignment as MonotonicAlignment
from kerasline.components.decoding.cached_attention import CachedAttention as CachedAttention
from kerasline.components.decoding.diffusion_noise import DiffusionNoise as DiffusionNoise
from kerasline.components.preprocessing.layers import *  # noqa: F403
from kerasline.components.preprocessing.layers import __all__ as _preprocessing

__all__ = sorted(["CachedAttention", "DiffusionNoise", "LengthRegulation", "MonotonicAlignment", *_preprocessing])
