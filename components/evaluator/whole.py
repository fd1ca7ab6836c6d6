"""Figures of the model as a whole: its size, and how long it takes to answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

MEGABYTES, LATENCY, LATENCY_P99 = "megabytes", "latency_ms", "latency_p99_ms"
NAMES = (MEGABYTES, LATENCY, LATENCY_P99)
WARM_UP_CALLS, CALLS = 20, 200


def megabytes(path: Path) -> float:
    """Of a file or of all files in a folder, in 10^6 bytes."""
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return sum(file.stat().st_size for file in files) / 1e6


def latency(answer: Callable[[Mapping[str, Any]], Any], row: Mapping[str, Any]) -> dict[str, float]:
    """Milliseconds from the raw features of one row to its answer, in this process: the median and the
    99th percentile of some calls, one after the other."""
    for _ in range(WARM_UP_CALLS):
        answer(row)
    times = []
    for _ in range(CALLS):
        start = time.perf_counter()
        answer(row)
        times.append(time.perf_counter() - start)
    return {LATENCY: float(np.median(times)) * 1e3, LATENCY_P99: float(np.quantile(times, 0.99)) * 1e3}
