"""Checkpoints: a kill at any instant loses only the steps after the newest one.

A checkpoint is one file with all variables of the model, its optimizer and its metrics, and the state of the training
loop. It is written under a temporary name, flushed to the disk and renamed.
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
STATE_KEY = "state"


class Checkpoints:
    """The checkpoints of one training.

    Args:
        folder: created if it does not exist.
        keep: number of newest checkpoints to keep.
        writes: whether this process writes checkpoints. All processes may read them. Defaults to True.
    """

    def __init__(self, folder: Path, keep: int, *, writes: bool = True) -> None:
        self._folder, self._keep, self._writes = folder, keep, writes
        folder.mkdir(parents=True, exist_ok=True)

    def save(self, step: int, variables: Sequence[keras.Variable], state: Mapping[str, Any]) -> None:
        """Write a checkpoint.

        Args:
            step: number of steps done.
            variables: the variables.
            state: NumPy arrays and JSON values by name.
        """
        # All processes read the variables, since reading a distributed variable is a collective operation.
        arrays = {f"variable {n}": keras.ops.convert_to_numpy(v) for n, v in enumerate(variables)}
        if not self._writes:
            return
        arrays |= {key: value for key, value in state.items() if isinstance(value, np.ndarray)}
        plain = {key: value for key, value in state.items() if not isinstance(value, np.ndarray)}
        arrays[STATE_KEY] = np.frombuffer(json.dumps(plain).encode(), np.uint8)
        _write(self._file(step), arrays)
        for old in self._files()[self._keep :]:
            old.unlink(missing_ok=True)

    def restore(
        self, variables: Sequence[keras.Variable], agree: Callable[[int | None], int | None] = lambda step: step
    ) -> dict[str, Any] | None:
        """Set the variables to the newest readable checkpoint.

        Args:
            variables: as they were passed to `save`.
            agree: receives the newest step that this process can read and returns the step that all processes
                restore. It is called before any variable is assigned, since assignment is a collective operation.

        Returns:
            The state passed to `save`, or None if there is no checkpoint.

        Raises:
            DataError: this process cannot read the checkpoint agreed on.
        """
        newest, arrays = self._newest()
        step = agree(newest)
        if step is None:
            return None
        if step != newest:
            arrays = _read(self._file(step))
        if arrays is None:
            raise DataError(
                f"{self._file(step)}: this worker cannot read a checkpoint that another worker can; "
                "check that the folder is shared"
            )
        for number, variable in enumerate(variables):
            variable.assign(_from_storable(arrays.pop(f"variable {number}"), variable.dtype))
        return {**json.loads(arrays.pop(STATE_KEY).tobytes()), **arrays}

    def forget_newest(self) -> None:
        """Delete the newest checkpoint, unless it is the only one."""
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
        """Return the files, newest first."""
        return sorted(self._folder.glob("step-*.npz"), reverse=True)


def all_variables(model: keras.Model) -> list[keras.Variable]:
    """Return every variable that a training step reads or changes, once each, in a reproducible order."""
    found = [*model.variables, *model.optimizer.variables]
    for metric in model.metrics:
        found += metric.variables
    return list({id(variable): variable for variable in found}.values())


def _read(file: Path) -> dict[str, np.ndarray] | None:
    try:
        with np.load(file) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        LOG.warning("%s: ignored, cannot be read: %s", file, error)
        return None


def _write(file: Path, arrays: Mapping[str, np.ndarray]) -> None:
    unfinished = file.with_suffix(".unfinished")
    with unfinished.open("wb") as stream:
        storable: dict[str, Any] = {name: _as_storable(value) for name, value in arrays.items()}
        np.savez(stream, **storable)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(unfinished, file)


def _as_storable(value: np.ndarray) -> np.ndarray:
    """Return bfloat16 as the integers with the same bits: NumPy's file format has no bfloat16."""
    return value.view(np.uint16) if value.dtype.name == "bfloat16" else value


def _from_storable(value: np.ndarray, dtype: str) -> np.ndarray:
    if dtype == "bfloat16":
        import ml_dtypes

        return value.view(ml_dtypes.bfloat16)
    return value
