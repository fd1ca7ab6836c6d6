"""What a SavedModel takes and gives, read from its file without loading it: that may end the process that does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kerasline.components.core.errors import ArtifactError
from kerasline.components.infra_validator.verdict import Refused
from kerasline.components.models.signatures import DEFAULT_SIGNATURE, read_definitions, signatures

READABLE = "the SavedModel can be read"


@dataclass(frozen=True)
class Spec:
    """A named input or output, as `feed` wants it.

    Attributes:
        dtype: its name, `string` for texts.
        shape: the rows first, None for any size; None as a whole where even the rank is not known.
    """

    dtype: str
    shape: tuple[int | None, ...] | None

    @property
    def takes_any_rows(self) -> bool:
        return bool(self.shape) and self.shape[0] is None


@dataclass(frozen=True)
class Signature:
    inputs: Mapping[str, Spec]
    outputs: Mapping[str, Spec]

    @property
    def gives_rows(self) -> bool:
        """Whether an answer can be told row by row."""
        return all(spec.takes_any_rows for spec in self.outputs.values())


def read_signature(folder: Path) -> Signature:
    """The signature `serving_default` of a SavedModel.

    Raises:
        Refused: there is none, or the file is damaged.
    """
    try:
        found = read_definitions(folder)
    except ArtifactError as error:
        raise Refused(READABLE, str(error)) from error
    if DEFAULT_SIGNATURE not in found:
        raise Refused(
            READABLE,
            f"it has no signature {DEFAULT_SIGNATURE}, which servers answer by; it has "
            f"{', '.join(sorted(found)) or 'none'}",
        )
    read = signatures({DEFAULT_SIGNATURE: found[DEFAULT_SIGNATURE]})[DEFAULT_SIGNATURE]
    signature = Signature(
        *(
            {name: Spec(spec.dtype_name, spec.shape) for name, spec in side.items()}
            for side in (read.inputs, read.outputs)
        )
    )
    for name, spec in signature.inputs.items():
        if not spec.takes_any_rows:
            raise Refused(
                READABLE,
                f"its input {name!r} is of shape {spec.shape}, which does not take any number of rows",
            )
    return signature


def numpy_dtype(spec: Spec) -> Any:
    import ml_dtypes  # noqa: F401  (NumPy learns bfloat16 by it)

    return np.dtype(object) if spec.dtype == "string" else np.dtype(spec.dtype)
