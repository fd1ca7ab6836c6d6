"""The duration of a training step, measured for a few seconds on synthetic rows."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasline.components.trainer.replicas import Replicas
from kerasline.components.trainer.train_steps import TrainSteps

SECONDS = 2.0
BATCHES = 8


@dataclass(frozen=True)
class Calibration:
    """Measured durations.

    Attributes:
        first_seconds: seconds of the first call, which traces and compiles.
        step_seconds: seconds of each later step.
        forward_seconds: seconds of evaluating a batch of the same size.
    """

    first_seconds: float
    step_seconds: float
    forward_seconds: float


def calibrate(
    model: keras.Model,
    element_spec: Any,
    batch_size: int,
    *,
    jit_compile: bool = False,
    seconds: float = SECONDS,
) -> Calibration:
    """Train a model, in place, for a few seconds, and measure it.

    Args:
        model: compiled and built, including its optimizer.
        element_spec: TensorSpecs of a batch: features by name, label and possibly weight.
        batch_size: number of rows per step.
        jit_compile: whether to compile with XLA. Defaults to False.
        seconds: approximate duration of the measurement. Defaults to 2.
    """
    chunk = tf.nest.map_structure(lambda spec: _synthetic(spec, BATCHES * batch_size), element_spec)
    steps = TrainSteps(model, Replicas(tf.distribute.get_strategy()), batch_size, BATCHES)

    def run(count: int) -> None:
        steps.run(chunk, 0, count, jit_compile=jit_compile).numpy()

    start = time.perf_counter()
    run(1)
    first = time.perf_counter() - start
    step = _median_seconds(lambda: run(1), seconds / 4)
    count = max(1, min(BATCHES, round(seconds / 8 / step)))
    step = _median_seconds(lambda: run(count), seconds / 2) / count
    batch = tf.nest.map_structure(lambda tensor: tensor[:batch_size], chunk)
    forward = tf.function(model.test_step, autograph=False)
    forward(batch)
    return Calibration(first, step, _median_seconds(lambda: forward(batch), seconds / 4))


def _median_seconds(call: Callable[[], Any], seconds: float) -> float:
    """Return the median duration of the calls that fit into `seconds`, but of at least three."""
    durations: list[float] = []
    end = time.perf_counter() + seconds
    while len(durations) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        durations.append(time.perf_counter() - start)
    return float(np.median(durations))


def _synthetic(spec: tf.TensorSpec, rows: int) -> tf.Tensor:
    """Return normally distributed floats, or the integers 0 and 1, which are valid as classes and as tokens.

    Constant rows would be learned in a few steps, after which numbers near zero slow the arithmetic down.
    """
    shape = [rows, *(size or 1 for size in spec.shape[1:])]
    if spec.dtype.is_floating:
        return tf.random.stateless_normal(shape, [0, 1], dtype=spec.dtype)
    if spec.dtype == tf.string:
        return tf.zeros(shape, spec.dtype)
    return tf.cast(tf.random.stateless_uniform(shape, [0, 1], 0, 2, tf.int32), spec.dtype)
