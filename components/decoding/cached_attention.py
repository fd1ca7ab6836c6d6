"""Attention for models that generate: keys and values of earlier positions are computed once."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from kerasline.components.preprocessing.layers.base import check

Cache = tuple[Any, Any]


@keras.saving.register_keras_serializable("kerasline")
class CachedAttention(keras.layers.MultiHeadAttention):
    """Multi-head attention whose keys and values can be cached while a sequence is generated.

    In training, call it as `keras.layers.MultiHeadAttention`: `layer(x, x, use_causal_mask=True)` to attend to earlier
    positions, `layer(x, memory, attention_mask=mask)` to attend to an encoded source. When generating, `step` does the
    first for one position after the other, and `attend` the second, with the same weights.

    Args:
        num_heads: int. Number of heads.
        key_dim: int. Size of each head's queries and keys.
        **options: of `keras.layers.MultiHeadAttention`, except `sliding_window` and `use_gate`.

    Raises:
        ValueError: an option is not supported.

    Example:

    >>> layer = kl.layers.CachedAttention(num_heads=2, key_dim=4)
    >>> x = np.random.default_rng(0).normal(size=(1, 3, 8)).astype("float32")
    >>> whole = layer(x, x, use_causal_mask=True).numpy()
    >>> cache = layer.new_cache(rows=1, length=3)
    >>> for position in range(3):
    ...     y, cache = layer.step(x[:, position : position + 1], cache, position)
    >>> np.allclose(y.numpy()[:, 0], whole[:, 2], atol=1e-5)
    True
    """

    def __init__(self, num_heads: int, key_dim: int, **options: Any) -> None:
        for name in ("sliding_window", "use_gate"):
            check("CachedAttention", not options.get(name), name, options.get(name), "no value: it is not supported")
        super().__init__(num_heads, key_dim, **options)

    def new_cache(self, rows: Any, length: int) -> Cache:
        """Return empty keys and values (rows, heads, length, size) for `step`."""
        sizes = (self.key_dim, self.value_dim)
        keys, values = (ops.zeros((rows, self.num_heads, length, size), self.compute_dtype) for size in sizes)
        return keys, values

    def step(self, inputs: Any, cache: Cache, position: Any) -> tuple[Any, Cache]:
        """Attend from new positions to themselves and to those before.

        Args:
            inputs: floats (rows, n, size), the positions from `position` on. n is 1 when generating, and may be more to
                begin with a prompt.
            cache: of `new_cache`, or of the step before.
            position: int, or int scalar tensor.

        Returns:
            The output, (rows, n, size), and the cache with the new positions.
        """
        keys, values = self.project(inputs)
        keys = ops.slice_update(cache[0], (0, 0, position, 0), keys)
        values = ops.slice_update(cache[1], (0, 0, position, 0), values)
        places = ops.arange(keys.shape[2])
        mask = places <= position + ops.arange(ops.shape(inputs)[1])[:, None]
        return self.attend(inputs, (keys, values), mask), (keys, values)

    def project(self, memory: Any) -> Cache:
        """Return the keys and values (rows, heads, n, size) of an encoded source (rows, n, size), for `attend`."""
        keys, values = self.key_dense(memory), self.value_dense(memory)
        return ops.transpose(keys, (0, 2, 1, 3)), ops.transpose(values, (0, 2, 1, 3))

    def attend(self, inputs: Any, cache: Cache, mask: Any = None) -> Any:
        """Attend to all cached positions where the mask is true.

        Args:
            inputs: floats (rows, m, size).
            cache: of `project`.
            mask: booleans that broadcast to (rows, m, n). None attends to all.

        Returns:
            Floats (rows, m, size).
        """
        queries = ops.transpose(self.query_dense(inputs), (0, 2, 1, 3))
        scores = ops.matmul(queries * self.key_dim**-0.5, ops.swapaxes(cache[0], 2, 3))
        if mask is not None:
            mask = ops.expand_dims(mask, -3)  # for the heads
            scores = ops.where(mask, scores, ops.cast(-3e4 if scores.dtype == "float16" else -1e9, scores.dtype))
        mixed = ops.matmul(ops.softmax(scores), cache[1])
        return self.output_dense(ops.transpose(mixed, (0, 2, 1, 3)))
