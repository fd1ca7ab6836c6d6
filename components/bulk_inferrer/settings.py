"""The parameters of BulkInferrer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from kerasline.components.core.parameters import PositiveInt


@dataclass(frozen=True, kw_only=True)
class BulkInferrerSettings:
    """The parameters of BulkInferrer, which documents them."""

    split: str | None = None
    keep: list[str] = field(default_factory=list)
    prefix: str = ""
    batch_size: PositiveInt = 4096
    bad_rows: Literal["quarantine", "refuse"] = "quarantine"
