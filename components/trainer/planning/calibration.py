"""How long a step takes, from running it for seconds on rows that are made up."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasline.components.trainer.loop import Loop
from kerasline.components.trainer.replicas import Replicas

SECONDS = 2.0
BATCHES = 8


@dataclass(frozen=True)
class Calibration:
    """Measured times.

    Attributes:
        first_seconds: of the first call: tracing and compiling.
        step_seconds: of one step after it.
        forward_seconds: of evaluating a batch of the same size.
    """

    first_seconds: float
    step_seconds: float
    forward_seconds: float


def calibrate(
    model: keras.Model,
    element_spec: Any,
    batch_size: int,
    *,
    compiled: bool = False,
    seconds: float = SECONDS,
) -> Calibration:
    """Trains the model, in place, for some seconds.

    Args:
        model: compiled and built, its optimizer too.
        element_spec: of a batch: features by name, label and perhaps weight.
        compiled: with XLA.
    """
    chunk = tf.nest.map_structure(lambda spec: _made_up(spec, BATCHES * batch_size), element_spec)
    loop = Loop(model, Replicas(tf.distribute.get_strategy()), batch_size, BATCHES)
    began = time.perf_counter()
    loop.steps(chunk, 0, 1, compiled=compiled).numpy()
    first = time.perf_counter() - began
    step = _median(lambda: loop.steps(chunk, 0, 1, compiled=compiled).numpy(), seconds / 4)
    count = max(1, min(BATCHES, round(seconds / 8 / step)))
    step = _median(lambda: loop.steps(chunk, 0, count, compiled=compiled).numpy(), seconds / 2) / count
    batch = tf.nest.map_structure(lambda tensor: tensor[:batch_size], chunk)
    forward = tf.function(model.test_step)
    forward(batch)
    return Calibration(first, step, _median(lambda: forward(batch), seconds / 4))


def _median(call: Any, seconds: float) -> float:
    """The middle of the times that fit into some seconds, and of three at least."""
    times, until = [], time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < until:
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return float(np.median(times))


def _made_up(spec: tf.TensorSpec, rows: int) -> tf.Tensor:
    """Numbers about zero; of whole ones 0 and 1, classes and words that there are in any vocabulary. All the
    same would be learned in a few steps, and numbers next to nothing take longer."""
    shape = [rows, *(size or 1 for size in spec.shape[1:])]
    if spec.dtype.is_floating:
        return tf.random.stateless_normal(shape, [0, 1], dtype=spec.dtype)
    if spec.dtype == tf.string:
        return tf.zeros(shape, spec.dtype)
    return tf.cast(tf.random.stateless_uniform(shape, [0, 1], 0, 2, tf.int32), spec.dtype)
