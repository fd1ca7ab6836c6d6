"""Estimates of execution times on a machine that interrupts executions."""

from __future__ import annotations

import numpy as np
import pytest

from kerasline.components.serving.runtime.execution_times import ExecutionTimes


def seconds_of(rows: int) -> float:
    return 1e-4 + 1e-5 * rows


def test_interruptions_do_not_add_up():
    """Executions of 64 and 128 rows are interrupted now and then; one row is estimated within what was measured."""
    times = ExecutionTimes(seconds_of(1))
    draw = np.random.default_rng(0)
    for _ in range(2000):
        rows = int(draw.choice([64, 128]))
        times.record(rows, seconds_of(rows) + (0.1 if draw.random() < 0.1 else 0.0))
        assert all(times.estimate(n) <= 0.1 + seconds_of(128) for n in (1, 8, 64, 128))
    for _ in range(20):
        times.record(128, seconds_of(128))
    assert times.estimate(1) <= times.estimate(64) <= 2 * seconds_of(128)


def test_first_execution_was_slow():
    """The time of one row before anything else was executed says nothing about larger batches later."""
    times = ExecutionTimes(3.0)
    times.record(64, seconds_of(64))
    assert times.estimate(1) == pytest.approx(seconds_of(64))
    assert times.estimate(128) == pytest.approx(2 * seconds_of(64))


def test_busy_machine_slows_all_numbers_of_rows():
    times = ExecutionTimes(0.03)
    times.record(8, 0.24)
    for _ in range(10):
        times.record(8, 0.96)  # four executions at once
    assert times.estimate(1) == pytest.approx(0.12, rel=0.01)
    assert times.estimate(16) == pytest.approx(1.92, rel=0.01)
