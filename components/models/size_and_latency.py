"""Size of a model on disk, and latency of its predictions."""

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
    """Return the size of a file, or of all files in a folder, in 10^6 bytes."""
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return sum(file.stat().st_size for file in files) / 1e6


def latency(predict: Callable[[Mapping[str, Any]], Any], row: Mapping[str, Any]) -> dict[str, float]:
    """Return the median and the 99th percentile of the time of sequential calls in this process, in milliseconds.

    Args:
        predict: function from the raw features of one row to its prediction.
    """
    for _ in range(WARM_UP_CALLS):
        predict(row)
    times = []
    for _ in range(CALLS):
        start = time.perf_counter()
        predict(row)
        times.append(time.perf_counter() - start)
    return {LATENCY: float(np.median(times)) * 1e3, LATENCY_P99: float(np.quantile(times, 0.99)) * 1e3}
