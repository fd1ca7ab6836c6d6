"""Sequences, generated token by token: greedily, by sampling, or by beam search."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, NamedTuple

import tensorflow as tf

from kerasline.components.decoding.beam_search import beam_search
from kerasline.components.decoding.sampling import draw, uniforms
from kerasline.components.decoding.steps import Step, lengths, take_step, with_shapes
from kerasline.components.preprocessing.layers.base import check


class Generated(NamedTuple):
    """What `generate` returns.

    Attributes:
        ids: int32 (rows, length). The prompt and what follows, up to the end; then `pad`.
        lengths: int32 (rows,). The number of ids before padding.
        scores: float32 (rows,). The logarithm of the probability of the generated ids; of a beam search divided by the
            length penalty.
    """

    ids: tf.Tensor
    lengths: tf.Tensor
    scores: tf.Tensor


class Generation(NamedTuple):
    """The arguments of a call of `generate` without beams.

    Attributes:
        ids: int32 (rows, length). The prompt, then `pad`.
        prompt: int32 (rows, p).
        start, end, pad, temperature, top_k, top_p, seed: as in `generate`.
    """

    step: Step
    ids: tf.Tensor
    prompt: tf.Tensor
    state: Any
    start: Any
    end: int | None
    pad: int
    temperature: Any
    top_k: int | None
    top_p: float | None
    seed: Any

    def temperatures(self) -> tf.Tensor:
        """Return the temperature of each row, float32 (rows,)."""
        temperature = tf.reshape(tf.cast(self.temperature, tf.float32), [-1])
        return tf.broadcast_to(temperature, [tf.shape(self.ids)[0]])

    def chances(self) -> tf.Tensor:
        """Return the random numbers from 0 to 1 by which ids are drawn, float32 (rows, length)."""
        return uniforms(self.seed, tf.shape(self.ids)[0], self.ids.shape[1])

    def choose(
        self, logits: tf.Tensor, chances: tf.Tensor | None, temperatures: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the next ids, int32 (rows,), and the logarithms of their probabilities.

        Args:
            logits: float32 (rows, vocabulary).
            chances: float32 (rows,), numbers from 0 to 1. None takes the most probable ids.
            temperatures: float32 (rows,).
        """
        chosen = tf.argmax(logits, axis=1, output_type=tf.int32)
        if chances is not None:
            drawn = draw(logits, chances, temperatures, self.top_k, self.top_p)
            chosen = tf.where(temperatures > 0, drawn, chosen)
        return chosen, tf.gather(tf.nn.log_softmax(logits), chosen, batch_dims=1)


_INTERCEPTOR: ContextVar[Callable[[Generation], Generated] | None] = ContextVar("interceptor", default=None)


@contextlib.contextmanager
def intercepted(interceptor: Callable[[Generation], Generated]) -> Iterator[None]:
    """Let a function take the place of the loop of `generate`, so that a server can run the steps itself."""
    before = _INTERCEPTOR.set(interceptor)
    try:
        yield
    finally:
        _INTERCEPTOR.reset(before)


def generate(
    step: Step,
    prompt: Any,
    state: Any = (),
    *,
    length: int,
    end: int | None = None,
    pad: int = 0,
    start: Any = 0,
    beams: int = 1,
    length_penalty: float = 0.0,
    temperature: Any = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: Any = 0,
) -> Generated:
    """Generate sequences token by token: greedily by default, by sampling, or by beam search.

    Runs one loop in the graph, also inside an exported model, until every row has ended or is full. A row's answer does
    not depend on the other rows of its batch.

    Args:
        step: callable `(tokens, position, state) -> (logits, state)`. `tokens`, int32 (n,), are the ids at `position`,
            an int32 scalar; `logits` (n, vocabulary) are those of the ids at the next position. n is the number of
            rows, times `beams`.
        prompt: int (rows,) or (rows, p). The first ids of each row. Rows of different length are padded at the end with
            `pad`.
        state: tensors (rows, ...), nested in tuples, lists or dicts: caches of keys and values, encoded sources.
            Tensors that `step` returns as they are cost nothing.
        length: int. Maximum number of ids of a row, with the prompt.
        end: int. The id that ends a sequence, unless it is in the prompt. None ends none. Defaults to None.
        pad: int. The id after the end, which is never generated unless it equals `end`. Negative if the vocabulary has
            none. Defaults to 0.
        start: int or scalar tensor. The first position whose id is passed to `step`, if the state knows those before.
            Defaults to 0.
        beams: int. Number of hypotheses of a beam search. Defaults to 1: none.
        length_penalty: float from 0. With beams, scores are divided by ((5 + n) / 6) ** length_penalty for n generated
            ids (Wu et al., 2016), so longer sequences win with higher values. Defaults to 0.
        temperature: float, or tensor (rows,). Sample from softmax(logits / temperature). 0 takes the most probable id.
            Defaults to 0.
        top_k: int. Sample from this number of ids, the most probable ones. Defaults to None, all.
        top_p: float. Sample from the fewest ids with at least this probability together, after `top_k`. Defaults to
            None, all.
        seed: int, or integer tensor (rows,) with a seed of each row: equal seeds and prompts give equal samples. None
            draws anew in each call. Defaults to 0.

    Returns:
        Generated: `ids`, `lengths` and `scores`.

    Raises:
        ValueError: an argument is invalid.

    Example, a model that counts up, and ends at 5:

    >>> import tensorflow as tf
    >>> def step(tokens, position, state):
    ...     return 9.0 * tf.one_hot(tokens + 1, 8), state
    >>> kl.generate(step, [3, 1], length=6, end=5).ids.numpy()
    array([[3, 4, 5, 0, 0, 0],
           [1, 2, 3, 4, 5, 0]], dtype=int32)
    """
    prompt = tf.cast(tf.convert_to_tensor(prompt), tf.int32)
    prompt = prompt[:, None] if prompt.shape.rank == 1 else prompt
    check("generate", prompt.shape.rank == 2, "prompt", prompt.shape, "integers (rows,) or (rows, p)")
    fits = prompt.shape[1] is None or 1 <= prompt.shape[1] <= length
    check("generate", fits, "length", length, f"an integer from the prompt's number of ids, {prompt.shape[1]}")
    check("generate", isinstance(beams, int) and beams >= 1, "beams", beams, "an integer from 1")
    check("generate", length_penalty >= 0, "length_penalty", length_penalty, "a number from 0")
    check("generate", top_k is None or top_k >= 1, "top_k", top_k, "an integer from 1, or None")
    check("generate", top_p is None or 0 < top_p <= 1, "top_p", top_p, "a number above 0, at most 1, or None")
    is_greedy = isinstance(temperature, (int, float)) and temperature == 0
    check("generate", is_greedy or beams == 1, "temperature", temperature, "0 with beams")
    state = tf.nest.map_structure(tf.convert_to_tensor, state)
    ids = tf.pad(prompt, [[0, 0], [0, length - tf.shape(prompt)[1]]], constant_values=pad)
    ids = tf.ensure_shape(ids, [prompt.shape[0], length])
    if beams > 1:
        ids, scores = beam_search(step, ids, state, end, pad, start, beams, length_penalty)
        return Generated(ids, lengths(ids, prompt, end, pad), scores)
    generation = Generation(step, ids, prompt, state, start, end, pad, temperature, top_k, top_p, seed)
    if (interceptor := _INTERCEPTOR.get()) is not None:
        return interceptor(generation)
    rows = tf.shape(ids)[0]
    chances, temperatures = None if is_greedy else generation.chances(), generation.temperatures()

    def body(t: tf.Tensor, ids: tf.Tensor, done: tf.Tensor, scores: tf.Tensor, state: Any) -> tuple:
        before = (t, ids, done, scores, state)
        logits, next_state = take_step(step, tf.gather(ids, t, axis=1), t, state, pad, end)
        of_step = None if chances is None else tf.gather(chances, t, axis=1)
        chosen, chance = generation.choose(logits, of_step, temperatures)
        given = tf.gather(ids, t + 1, axis=1)
        is_given = given != pad
        scores += tf.where(is_given | done, 0.0, chance)
        chosen = tf.where(is_given, given, tf.where(done, pad, chosen))
        ids = tf.where(tf.range(length) == t + 1, chosen[:, None], ids)
        if end is not None:
            done |= ~is_given & (chosen == end)
        return with_shapes((t + 1, ids, done, scores, next_state), before)

    first = (tf.cast(start, tf.int32), ids, tf.zeros([rows], tf.bool), tf.zeros([rows]), state)
    _, ids, _, scores, _ = tf.while_loop(
        lambda t, ids, done, *_: (t < length - 1) & ~tf.reduce_all(done), body, first, maximum_iterations=length - 1
    )
    return Generated(ids, lengths(ids, prompt, end, pad), scores)
