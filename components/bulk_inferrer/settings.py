"""The parameters of BulkInferrer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Gt


@dataclass(frozen=True, kw_only=True)
class BulkInferrerSettings:
    """The parameters of BulkInferrer, which documents them."""

    split: str | None = None
    keep: list[str] = field(default_factory=list)
    prefix: str = ""
    batch_size: Annotated[int, Gt(0)] = 4096
    bad_rows: Literal["quarantine", "refuse"] = "quarantine"
