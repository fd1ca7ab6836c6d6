"""The parameters of InfraValidator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Gt

Seconds = Annotated[float, Gt(0)]


@dataclass(frozen=True, kw_only=True)
class InfraValidatorSettings:
    """The parameters of InfraValidator, which documents them."""

    rows: Annotated[int, Gt(0)] = 64
    split: str = "test"
    seed: int = 0
    requests: Annotated[int, Gt(0)] = 200
    latency_p99_ms: Annotated[float, Gt(0)] | None = None
    ready_seconds: Seconds = 120.0
    request_seconds: Seconds = 30.0
    tolerance: Annotated[float, Gt(0)] = 1e-4
    command: str | None = None
