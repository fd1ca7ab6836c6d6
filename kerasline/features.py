"""Preprocessing in one line a feature, for `Transform(features=...)`: `kl.features`."""

from kerasline.components.preprocessing.features import *  # noqa: F403
from kerasline.components.preprocessing.features import __all__ as __all__
