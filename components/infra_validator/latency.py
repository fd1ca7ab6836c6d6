"""The latency of one row over REST, measured in another process: a thread of the pipeline may hold Python's lock."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kerasline.components.infra_validator.client import Address, NoAnswer
from kerasline.components.infra_validator.latency_probe import TIMEOUT_STATUS
from kerasline.components.processes.child import GuardedProcess, script_command
from kerasline.components.processes.ports import LOOPBACK

PROBE = Path(__file__).with_name("latency_probe.py")
WARM_UP_REQUESTS = 20


def measure_latency(
    address: Address, bodies: Sequence[bytes], folder: Path, *, requests: int, seconds: float
) -> dict[str, Any]:
    """Send requests of one row over one connection, one after the other.

    Args:
        address: the server and the model.
        bodies: requests to send repeatedly.
        folder: a folder for temporary files.
        requests: number of requests to measure, after `WARM_UP_REQUESTS` others. Fewer are sent if all together take
            longer than `seconds`.
        seconds: time limit for one request.

    Returns:
        `requests`, and `p50_ms` and `p99_ms` in milliseconds.

    Raises:
        NoAnswer: a request was refused or not answered.
    """
    job_file, result_file, log = (folder / f"latency.{end}" for end in ("job.json", "json", "log"))
    job = {
        "host": LOOPBACK,
        "port": address.rest_port,
        "path": f"/v1/models/{address.name}:predict",
        "requests": WARM_UP_REQUESTS + requests,
        "seconds": seconds,
        "bodies": [body.decode() for body in bodies],
    }
    job_file.write_text(json.dumps(job), encoding="utf-8")
    probe = GuardedProcess(script_command(PROBE, str(job_file), str(result_file)), log)
    try:
        ending = probe.ending(wait_seconds=3 * seconds + 30)
        if ending is None or probe.status == TIMEOUT_STATUS:
            raise NoAnswer.within(seconds)
        if probe.status:
            raise NoAnswer(probe.log.last_line() or f"the measurement {ending}")
    finally:
        probe.stop()
    measured = json.loads(result_file.read_text(encoding="utf-8"))
    measured = measured[min(WARM_UP_REQUESTS, len(measured) // 2) :]
    # "higher" gives a latency that was measured, not an interpolation of two.
    p50, p99 = np.percentile(measured, [50, 99], method="higher")
    return {"requests": len(measured), "p50_ms": round(float(p50), 3), "p99_ms": round(float(p99), 3)}
