"""The parameters of InfraValidator."""

from __future__ import annotations

from dataclasses import dataclass

from kerasline.components.core.parameters import PositiveFloat, PositiveInt, SplitName


@dataclass(frozen=True, kw_only=True)
class InfraValidatorSettings:
    """The parameters of InfraValidator, which documents them."""

    rows: PositiveInt = 64
    split: SplitName = "test"
    seed: int = 0
    requests: PositiveInt = 200
    latency_p99_ms: PositiveFloat | None = None
    ready_seconds: PositiveFloat = 120.0
    request_seconds: PositiveFloat = 30.0
    tolerance: PositiveFloat = 1e-4
    command: str | None = None
