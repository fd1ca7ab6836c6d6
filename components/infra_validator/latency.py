"""How long one row takes to be answered over REST.

Measured in a process of its own: in the pipeline's, another stage's thread may hold Python's lock for a while.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kerasline.components.infra_validator.client import HOST, NoAnswer
from kerasline.components.infra_validator.stopwatch import LATE

if TYPE_CHECKING:
    from kerasline.components.infra_validator.server import Address

STOPWATCH = Path(__file__).with_name("stopwatch.py")
WARM_UP = 20


def measure(
    address: Address, bodies: Sequence[bytes], folder: Path, *, requests: int, seconds: float
) -> dict[str, Any]:
    """Sends requests of one row over one connection, one after the other.

    Args:
        bodies: sent over and over.
        folder: takes a file.
        requests: that count, after `WARM_UP` that do not; fewer where all together take longer than `seconds`.
        seconds: the most for one request.

    Returns:
        `requests`, and in milliseconds `p50_ms` and `p99_ms`.

    Raises:
        NoAnswer: a request was not answered, or refused.
    """
    job = {
        "host": HOST,
        "port": address.rest_port,
        "path": f"/v1/models/{address.name}:predict",
        "requests": WARM_UP + requests,
        "seconds": seconds,
        "bodies": [body.decode() for body in bodies],
    }
    file = folder / "latency.json"
    file.write_text(json.dumps(job), encoding="utf-8")
    command = [sys.executable, "-I", "-S", str(STOPWATCH), str(file)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=3 * seconds + 30)
    except subprocess.TimeoutExpired:
        raise NoAnswer.within(seconds) from None
    if done.returncode == LATE:
        raise NoAnswer.within(seconds)
    if done.returncode:
        raise NoAnswer((done.stderr.strip().splitlines() or ["the measurement ended"])[-1])
    taken = json.loads(done.stdout)
    taken = taken[min(WARM_UP, len(taken) // 2) :]
    # The 99th percentile is one that was measured, not a mean of two.
    p50, p99 = np.percentile(taken, [50, 99], method="higher")
    return {"requests": len(taken), "p50_ms": round(float(p50), 3), "p99_ms": round(float(p99), 3)}
