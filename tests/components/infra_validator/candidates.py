"""SavedModels of x (None, 1) float and word (None, 1) string; good and bad ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

HUGE = 1e30  # no real row has this; the edge cases have


def save_candidate(folder: Path, spoil: Callable[[Any, Any, Any], Any] | None = None) -> Path:
    """`score` (None, 1) is x / 2 + 2 (0 where x is missing), `label` (None,) says which side of 0 x is on.

    Args:
        spoil: given a counter of calls, x and score, gives another score.
    """
    import tensorflow as tf

    specs = [tf.TensorSpec([None, 1], tf.float32, name="x"), tf.TensorSpec([None, 1], tf.string, name="word")]

    class Candidate(tf.Module):
        def __init__(self):
            super().__init__()
            self.calls = tf.Variable(0, dtype=tf.int64)
            self.half = tf.Variable(0.5)

        @tf.function(input_signature=specs)
        def serve(self, x, word):
            score = tf.where(tf.math.is_nan(x), 0.0, x * self.half + 2.0)
            if spoil is centred:
                score = spoil(None, x, score)
            elif spoil is not None:
                with tf.control_dependencies([self.calls.assign_add(1)]):
                    score = spoil(self.calls, x, score)
            label = tf.where(x[:, 0] < 0, b"below", b"above")
            return {"score": score, "label": label, "letters": tf.strings.length(word)}

    module = Candidate()
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.serve})
    return folder


def centred(_calls, x, score):
    """Subtract a mean over the batch. The only spoiled candidate that does not count its calls."""
    import tensorflow as tf

    return score - tf.reduce_mean(score)


def aborts_on_huge(calls, x, score):
    """End the process by SIGABRT, as a failed check in native code does."""
    return _if(_is_huge(x), _abort, score)


def aborts_after(most):
    """End the process by SIGABRT after too many calls."""

    def spoil(calls, x, score):
        return _if(calls.read_value() > most, _abort, score)

    return spoil


def hangs_on_huge(calls, x, score):
    import tensorflow as tf

    def hang():
        (last,) = tf.while_loop(lambda n: n >= 0, lambda n: (tf.constant(0),), (tf.constant(0),))
        with tf.control_dependencies([last]):
            return tf.constant(0.0)

    return _if(_is_huge(x), hang, score)


def counts(calls, x, score):
    import tensorflow as tf

    return score + tf.cast(calls.read_value(), tf.float32)


def draws(calls, x, score):
    import tensorflow as tf

    return score + tf.random.uniform(tf.shape(score))


def refuses_huge(calls, x, score):
    """Raise an InvalidArgumentError for huge numbers, as some layers do."""
    import tensorflow as tf

    with tf.control_dependencies([tf.debugging.assert_less(tf.abs(x), HUGE, message="x is beyond what is known")]):
        return tf.identity(score)


def _is_huge(x):
    import tensorflow as tf

    return tf.reduce_any(tf.abs(x) > HUGE)


def _abort():
    import tensorflow as tf

    with tf.control_dependencies([tf.raw_ops.Abort(error_msg="the kernel gave up", exit_without_error=False)]):
        return tf.constant(0.0)


def _if(condition, then, score):
    """`tf.cond` as it stands in an exported graph: what is not taken is not executed."""
    import tensorflow as tf

    return score + tf.cond(condition, then, lambda: tf.constant(0.0))
