"""From a model's outputs to answers, by operations that work inside an exported model: `kl.decoding`."""

from __future__ import annotations

from kerasline.components.decoding.boxes import Detections, non_max_suppression, resize_boxes, restore_boxes
from kerasline.components.decoding.ctc import ctc, join_tokens
from kerasline.components.decoding.diffusion import cosine_rates, ddim, row_noise
from kerasline.components.decoding.generation import Generated, generate
from kerasline.components.decoding.hub import generate_with_hub
from kerasline.components.decoding.images import encode_jpeg, encode_png
from kerasline.components.decoding.sound import encode_pcm, encode_wav, griffin_lim, log_mel_to_linear, mel_to_linear

__all__ = [
    "Detections",
    "Generated",
    "cosine_rates",
    "ctc",
    "ddim",
    "encode_jpeg",
    "encode_pcm",
    "encode_png",
    "encode_wav",
    "generate",
    "generate_with_hub",
    "griffin_lim",
    "join_tokens",
    "log_mel_to_linear",
    "mel_to_linear",
    "non_max_suppression",
    "resize_boxes",
    "restore_boxes",
    "row_noise",
]
