"""Checkpoints: a kill at any instant loses only the steps after the newest one.

A checkpoint is one file with all variables of the model, its optimizer and its metrics, and the state of the training
loop. A thread writes it while training goes on, under a temporary name, flushes it to the disk and renames it.

The values at the time of a checkpoint are tensors that share the memory of their variables. TensorFlow gives a variable
new memory when it changes while a tensor shares its old one, so only what is not written yet takes memory twice.
Training waits until that is little.
"""

from __future__ import annotations

import json
import logging
import math
import threading
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasline.components.core.atomic_files import atomic_write
from kerasline.components.core.errors import DataError
from kerasline.components.core.keras_compat import shared_array

LOG = logging.getLogger("kerasline")
STATE_KEY = "state"
# Training goes on while at most 128 MB of the variables are not written yet.
UNWRITTEN_BYTES = 1 << 27


class Checkpoints:
    """The checkpoints of one training.

    Args:
        folder: created if it does not exist.
        keep: number of newest checkpoints to keep.
        writes: whether this process writes checkpoints. All processes may read them. Defaults to True.

    Attributes:
        seconds: seconds that the last one took to write.
    """

    def __init__(self, folder: Path, keep: int, *, writes: bool = True) -> None:
        self._folder, self._keep, self._writes = folder, keep, writes
        self._thread: threading.Thread | None = None
        self._is_mostly_written = threading.Event()
        self._failure: Exception | None = None
        self.seconds = 0.0
        folder.mkdir(parents=True, exist_ok=True)
        for unfinished in folder.glob(".step-*") if writes else ():  # by a process that was killed
            unfinished.unlink(missing_ok=True)

    def save(self, step: int, variables: Sequence[keras.Variable], state: Mapping[str, Any]) -> None:
        """Begin to write a checkpoint, once the one before it is written.

        Args:
            step: number of steps done.
            variables: the variables.
            state: NumPy arrays and JSON values by name.
        """
        self.wait()
        # All processes read the variables, since reading a distributed variable is a collective operation.
        tensors = [_in_main_memory(tf.convert_to_tensor(variable.value)) for variable in variables]
        if not self._writes:
            return
        arrays = {key: value for key, value in state.items() if isinstance(value, np.ndarray)}
        plain = {key: value for key, value in state.items() if not isinstance(value, np.ndarray)}
        arrays[STATE_KEY] = np.frombuffer(json.dumps(plain).encode(), np.uint8)
        self._is_mostly_written.clear()
        self._thread = threading.Thread(target=self._write, args=(step, tensors, arrays), name="checkpoint")
        self._thread.start()
        if all("CPU" in variable.value.device for variable in variables):  # else, the tensors are copies
            self._is_mostly_written.wait()

    @property
    def is_writing(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def wait(self) -> None:
        """Wait until the last checkpoint is written. Raises the error that prevented it."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def restore(
        self,
        variables: Callable[[Mapping[str, Any]], Sequence[keras.Variable]],
        agree: Callable[[int | None], int | None] = lambda step: step,
    ) -> dict[str, Any] | None:
        """Set the variables to the newest readable checkpoint.

        Args:
            variables: receives the state and returns the variables, as both were passed to `save`.
            agree: receives the newest step that this process can read and returns the step that all processes
                restore. It is called before any variable is assigned, since assignment is a collective operation.

        Returns:
            The state passed to `save`, or None if there is no checkpoint.

        Raises:
            DataError: this process cannot read the checkpoint agreed on.
        """
        self.wait()
        newest = next((_step(file) for file in self._files() if _is_readable(file)), None)
        step = agree(newest)
        if step is None:
            return None
        file = self._file(step)
        if step != newest and not _is_readable(file):
            raise DataError(
                f"{file}: this worker cannot read a checkpoint that another worker can; check that the folder is shared"
            )
        with np.load(file) as arrays:
            state = {name: arrays[name] for name in arrays.files if not name.startswith(_key(""))}
            state = {**json.loads(state.pop(STATE_KEY).tobytes()), **state}
            for number, variable in enumerate(variables(state)):
                variable.assign(_from_storable(arrays[_key(number)], variable.dtype))
        return state

    def _write(self, step: int, tensors: list[tf.Tensor], state: Mapping[str, np.ndarray]) -> None:
        """Write a checkpoint, in another thread. The tensors are released one by one."""
        start = time.monotonic()
        try:
            file, unwritten = self._file(step), sum(_size_bytes(tensor) for tensor in tensors)
            # The format of `numpy.savez`, array by array.
            with atomic_write(file, durable=True) as unfinished, zipfile.ZipFile(unfinished, "w") as archive:
                for number in range(len(tensors)):
                    if unwritten <= UNWRITTEN_BYTES:
                        self._is_mostly_written.set()
                    unwritten -= _size_bytes(tensors[0])
                    _write_array(archive, _key(number), _as_storable(shared_array(tensors.pop(0))))
                for name, array in state.items():
                    _write_array(archive, name, array)
            for old in self._files()[self._keep :]:
                old.unlink(missing_ok=True)
        except Exception as failure:  # raised where the training waits for it
            self._failure = failure
        finally:
            self._is_mostly_written.set()
        self.seconds = time.monotonic() - start

    def forget_newest(self) -> None:
        """Delete the newest checkpoint, unless it is the only one."""
        self.wait()
        files = self._files()
        if self._writes and len(files) > 1:
            files[0].unlink()

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


def _key(number: int | str) -> str:
    return f"variable {number}"


def _step(file: Path) -> int:
    return int(file.stem.removeprefix("step-"))


def _is_readable(file: Path) -> bool:
    try:
        with zipfile.ZipFile(file) as archive:
            damaged = archive.testzip()
    except (OSError, zipfile.BadZipFile) as error:
        damaged = str(error)
    if damaged is not None:
        LOG.warning("%s: ignored, cannot be read: %s", file, damaged)
    return damaged is None


def _write_array(archive: zipfile.ZipFile, name: str, array: np.ndarray) -> None:
    with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
        np.lib.format.write_array(stream, array, allow_pickle=False)


def _size_bytes(tensor: tf.Tensor) -> int:
    return tensor.dtype.size * math.prod(tensor.shape)


def _in_main_memory(tensor: tf.Tensor) -> tf.Tensor:
    return tensor if "CPU" in tensor.device else tensor.cpu()


def _as_storable(value: np.ndarray) -> np.ndarray:
    """Return bfloat16 as the integers with the same bits: NumPy's file format has no bfloat16."""
    return value.view(np.uint16) if value.dtype.name == "bfloat16" else value


def _from_storable(value: np.ndarray, dtype: str) -> np.ndarray:
    if dtype == "bfloat16":
        import ml_dtypes

        return value.view(ml_dtypes.bfloat16)
    return value
