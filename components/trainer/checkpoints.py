"""Where training stands, on disk: a kill at any instant loses what came after the newest, no more.

A checkpoint is one file, written aside, flushed to the disk and renamed: every variable of the model,
its optimizer and its metrics, and what the loop knows.
"""

from __future__ import annotations

import json
import logging
import os
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kerasline.components.core.errors import DataError

LOG = logging.getLogger("kerasline")
STATE = "state"


class Checkpoints:
    """The checkpoints of one training.

    Args:
        folder: where; it is made if need be.
        keep: how many of the newest stay.
        writes: whether this process is the one that writes; all may read.
    """

    def __init__(self, folder: Path, keep: int, *, writes: bool = True) -> None:
        self._folder, self._keep, self._writes = folder, keep, writes
        folder.mkdir(parents=True, exist_ok=True)

    def save(self, step: int, variables: Sequence[keras.Variable], state: Mapping[str, Any]) -> None:
        """Writes what stands after a step.

        Args:
            state: arrays by name (as they are) and anything JSON can hold.
        """
        # Read even where it is not written: what replicas have a share of is read by all together.
        arrays = {f"variable {n}": keras.ops.convert_to_numpy(v) for n, v in enumerate(variables)}
        if not self._writes:
            return
        arrays |= {key: value for key, value in state.items() if isinstance(value, np.ndarray)}
        plain = {key: value for key, value in state.items() if not isinstance(value, np.ndarray)}
        arrays[STATE] = np.frombuffer(json.dumps(plain).encode(), np.uint8)
        _write(self._file(step), arrays)
        for old in self._files()[self._keep :]:
            old.unlink(missing_ok=True)

    def restore(
        self, variables: Sequence[keras.Variable], agree: Callable[[int | None], int | None] = lambda step: step
    ) -> dict[str, Any] | None:
        """Sets the variables as the newest whole checkpoint has them.

        Args:
            agree: given the step of the newest, tells which all processes take, before any sets a variable:
                that too they do together.

        Returns:
            The state given to `save`, or None where there is no checkpoint.

        Raises:
            DataError: that of the step agreed on cannot be read here.
        """
        newest, arrays = self._newest()
        step = agree(newest)
        if step is None:
            return None
        if step != newest:
            arrays = _read(self._file(step))
        if arrays is None:
            raise DataError(f"{self._file(step)} cannot be read here, but by another worker: is it the same folder?")
        for number, variable in enumerate(variables):
            variable.assign(_of_dtype(arrays.pop(f"variable {number}"), variable.dtype))
        return {**json.loads(arrays.pop(STATE).tobytes()), **arrays}

    def forget_newest(self) -> None:
        """Goes back further, where there is something to go back to."""
        files = self._files()
        if self._writes and len(files) > 1:
            files[0].unlink()

    def _newest(self) -> tuple[int | None, dict[str, np.ndarray] | None]:
        for file in self._files():
            if arrays := _read(file):
                return int(file.stem.removeprefix("step-")), arrays
        return None, None

    def _file(self, step: int) -> Path:
        return self._folder / f"step-{step:012d}.npz"

    def _files(self) -> list[Path]:
        """The newest first."""
        return sorted(self._folder.glob("step-*.npz"), reverse=True)


def all_variables(model: keras.Model) -> list[keras.Variable]:
    """All that a step of training reads or changes, each once, in an order that stays."""
    found = [*model.variables, *model.optimizer.variables]
    for metric in model.metrics:
        found += metric.variables
    return list({id(variable): variable for variable in found}.values())


def _read(file: Path) -> dict[str, np.ndarray] | None:
    try:
        with np.load(file) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        LOG.warning("%s cannot be read and is left out: %s", file, error)
        return None


def _write(file: Path, arrays: Mapping[str, np.ndarray]) -> None:
    unfinished = file.with_suffix(".unfinished")
    with unfinished.open("wb") as stream:
        np.savez(stream, **{name: _as_bytes(value) for name, value in arrays.items()})
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(unfinished, file)


def _as_bytes(value: np.ndarray) -> np.ndarray:
    """NumPy's format does not know bfloat16 and its like; their bits it does."""
    return value.view(np.uint16) if value.dtype.name == "bfloat16" else value


def _of_dtype(value: np.ndarray, dtype: str) -> np.ndarray:
    if dtype == "bfloat16":
        import ml_dtypes

        return value.view(ml_dtypes.bfloat16)
    return value
