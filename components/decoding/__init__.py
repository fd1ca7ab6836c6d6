"""From a model's outputs to answers, by operations that work inside an exported model: `kl.decoding`."""

from __future__ import annotations

from kerasline.components.decoding.generation import Generated, generate

__all__ = ["Generated", "generate"]
