"""Keras layers for preprocessing that Keras lacks: `kl.layers`."""

from kerasline.components.preprocessing.layers import *  # noqa: F403
from kerasline.components.preprocessing.layers import __all__ as __all__
