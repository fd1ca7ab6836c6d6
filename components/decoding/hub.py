"""Sequences from KerasHub's task models, such as `GPT2CausalLM` and `BartSeq2SeqLM`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from kerasline.components.decoding.generation import Generated, generate
from kerasline.components.preprocessing.layers.base import check


def generate_with_hub(
    model: Any, inputs: Mapping[str, Any], *, end: int | None = None, pad: int = 0, **options: Any
) -> Generated:
    """Generate with a KerasHub `CausalLM` or `Seq2SeqLM`, whose caches are used, inside an exported graph too.

    The model's `generate_step` prepares the caches and runs the steps; `generate` decides on the ids. Sampling and beam
    search therefore work as for other models, whatever sampler the model was compiled with.

    Args:
        model: the task model.
        inputs: what its preprocessor's `generate_preprocess` returns, such as `token_ids` and `padding_mask`. Their
            number of ids is the maximum length.
        end: int. The id that ends a sequence. Defaults to None: none does.
        pad: int. The id after the end, also -1. Defaults to 0.
        **options: of `generate`: `beams`, `length_penalty`, `temperature`, `top_k`, `top_p`, `seed`.

    Returns:
        Generated.

    Raises:
        ValueError: the model has no `generate_step`, or an option is invalid.
    """
    check(
        "generate_with_hub", hasattr(model, "generate_step"), "model", type(model).__name__, "a CausalLM or Seq2SeqLM"
    )
    sampler, model_sampler = _Sampler(end, pad, options), getattr(model, "sampler", None)
    model.sampler = sampler
    try:
        model.generate_step(dict(inputs), stop_token_ids=None if end is None else [end])
    finally:
        model.sampler = model_sampler
    assert sampler.generated is not None, "generate_step calls the sampler"
    return sampler.generated


class _Sampler:
    """Takes the place of a KerasHub sampler in `generate_step`."""

    def __init__(self, end: int | None, pad: int, options: dict[str, Any]) -> None:
        self._end, self._pad, self._options = end, pad, options
        self.generated: Generated | None = None

    def __call__(self, next: Any, prompt: Any, cache: Any = None, index: Any = 0, mask: Any = None, **_: Any) -> Any:
        length = prompt.shape[1]
        check("generate_with_hub", length is not None, "inputs", tuple(prompt.shape), "ids of a fixed length")
        # KerasHub's prompts may contain the id of padding, so -1 stands for what is to be generated.
        given = prompt if mask is None else tf.where(tf.cast(mask, tf.bool), prompt, -1)

        def step(tokens: tf.Tensor, position: tf.Tensor, state: Any) -> tuple[Any, Any]:
            # `next` takes the id before its index from ids of the full length.
            logits, _, state = next(tf.repeat(tokens[:, None], length, axis=1), state, position + 1)
            return logits, state

        cache = () if cache is None else cache
        start = tf.cast(index, tf.int32) - 1
        found = generate(step, given, cache, length=length, end=self._end, pad=-1, start=start, **self._options)
        ids = tf.where(found.ids == -1, self._pad, found.ids)
        self.generated = found._replace(ids=ids)
        return tf.cast(ids, prompt.dtype)
