"""The parameters of BulkInferrer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from kerasline.components.core.errors import ParameterError
from kerasline.components.core.parameters import ColumnName, PositiveInt, SplitName


@dataclass(frozen=True, kw_only=True)
class BulkInferrerSettings:
    """The parameters of BulkInferrer, which documents them."""

    split: SplitName | None = None
    keep: list[ColumnName] = field(default_factory=list)
    prefix: str = ""
    batch_size: PositiveInt = 4096
    bad_rows: Literal["quarantine", "refuse"] = "quarantine"


def check_kept(settings: BulkInferrerSettings, outputs: Iterable[str]) -> None:
    """Raise a ParameterError if a column to keep has the name of an output's column."""
    for name in {f"{settings.prefix}{output}" for output in outputs} & set(settings.keep):
        raise ParameterError(
            f"BulkInferrer.keep: {name!r} is also an output of the model; set BulkInferrer.prefix, such as 'predicted_'"
        )
