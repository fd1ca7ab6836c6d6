"""From a model's outputs to answers, by operations that work inside an exported model: `kl.decoding`."""

from kerasline.components.decoding import *  # noqa: F403
from kerasline.components.decoding import __all__ as __all__
