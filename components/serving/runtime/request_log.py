"""A log of sampled requests in Parquet files, which ExampleGen reads: what was served can be compared with training."""

from __future__ import annotations

import itertools
import logging
import os
import random
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import Executor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from kerasline.components.core.atomic_files import atomic_write
from kerasline.components.core.errors import ParameterError
from kerasline.components.data.missing import has_missing_value, missing_value
from kerasline.components.models.signatures import Signature, TensorSpec

log = logging.getLogger(__name__)
WRITE_SECONDS = 60.0
# Write when this much is in memory. Drop further requests beyond twice as much, while the disk is slow.
BUFFER_BYTES = 4 << 20
# The oldest files are removed beyond this number, whatever their size.
MAX_FILES = 10_000
# Estimate for a text, which NumPy counts as a pointer.
TEXT_BYTES = 64


class RequestLog:
    """Append the inputs of sampled requests to `FOLDER/MODEL/SIGNATURE/TIME-PROCESS-NUMBER.parquet`.

    A row of a request is a row of the file, with a column for each input. Inputs of shape (?,) and (?, 1) are values,
    others lists. Missing values, as Exporter's models represent them, are null. Requests without rows are left out.

    Args:
        folder: created if it does not exist.
        share: the probability that a request is logged, above 0 and at most 1.
        max_bytes: the oldest files are removed when all are larger together.

    Raises:
        ParameterError: the folder cannot be created.
    """

    def __init__(self, folder: Path, share: float, max_bytes: int):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ParameterError(f"serve: --request-log {folder}: {error.strerror}") from error
        self._folder, self._share, self._max_bytes = folder, share, max_bytes
        self._rows: dict[tuple[str, str], list[_Request]] = defaultdict(list)
        self._size, self._since = 0, time.monotonic()
        self._number = itertools.count()
        self._writing = threading.Lock()
        self._fails = False

    def samples(self) -> bool:
        """Return whether to log the next request."""
        return random.random() < self._share and self._size < 2 * BUFFER_BYTES

    def add(self, model: str, signature: Signature, arrays: Sequence[np.ndarray], *, fills_missing: bool) -> None:
        """Keep the inputs of a request until the next write.

        Args:
            arrays: in the order of `signature.inputs`.
            fills_missing: whether NaN, -1 and empty texts are missing values.
        """
        if not arrays or len({len(array) if array.ndim else None for array in arrays} - {None}) != 1:
            return
        if any(array.ndim == 0 for array in arrays):
            return
        self._rows[model, signature.name].append(_Request(signature, list(arrays), fills_missing))
        self._size += sum(array.size * (TEXT_BYTES if array.dtype == object else array.itemsize) for array in arrays)

    def write_if_due(self, executor: Executor) -> None:
        """Start to write in another thread if there is much in memory, or for long."""
        if self._size >= BUFFER_BYTES or (self._rows and time.monotonic() - self._since > WRITE_SECONDS):
            executor.submit(self.write)

    def write(self) -> None:
        """Write what is in memory, then remove the oldest files beyond the limits."""
        with self._writing:
            rows, self._rows = self._rows, defaultdict(list)
            self._size, self._since = 0, time.monotonic()
            try:
                for (model, signature), requests in rows.items():
                    self._write_file(self._folder / quote(model, safe="") / quote(signature, safe=""), requests)
                self._remove_oldest()
                self._fails = False
            except Exception as error:  # a full disk must not fail requests
                if not self._fails:
                    log.warning("request log %s: %s; requests are lost until this is fixed", self._folder, error)
                self._fails = True

    def _write_file(self, folder: Path, requests: Sequence[_Request]) -> None:
        import pyarrow.parquet as pq

        folder.mkdir(parents=True, exist_ok=True)
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        file = folder / f"{stamp}-{os.getpid()}-{next(self._number)}.parquet"
        with atomic_write(file) as unfinished:
            pq.write_table(_table(requests), unfinished, compression="zstd")

    def _remove_oldest(self) -> None:
        found = sorted((one.stat().st_mtime_ns, one) for one in self._folder.rglob("*.parquet"))
        total = 0
        for number, (_, file) in enumerate(reversed(found), 1):
            total += file.stat().st_size
            if total > self._max_bytes or number > MAX_FILES:
                file.unlink(missing_ok=True)


class _Request:
    __slots__ = ("signature", "arrays", "fills_missing")

    def __init__(self, signature: Signature, arrays: list[np.ndarray], fills_missing: bool):
        self.signature, self.arrays, self.fills_missing = signature, arrays, fills_missing


def _table(requests: Sequence[_Request]) -> Any:
    import pyarrow as pa

    first = requests[0]
    columns = {}
    for place, (name, spec) in enumerate(first.signature.inputs.items()):
        if spec.dtype.kind == "c":  # Arrow has no complex numbers
            continue
        columns[name] = _column([one.arrays[place] for one in requests], spec, first.fills_missing)
    return pa.table(columns)


def _column(arrays: Sequence[np.ndarray], spec: TensorSpec, fills_missing: bool) -> Any:
    """Return the values or lists of all rows, as an array or a chunk for each request with lists of its own length."""
    import pyarrow as pa

    if len({array.shape[1:] for array in arrays}) == 1:
        arrays = [np.concatenate(arrays)]
    chunks = []
    for array in arrays:
        values = _values(array.reshape(-1), spec, fills_missing)
        if array.ndim > 1 and spec.shape != (None, 1):
            width = array[0].size if len(array) else 0
            values = pa.ListArray.from_arrays(pa.array(np.arange(len(array) + 1) * width, pa.int32()), values)
        chunks.append(values)
    return pa.chunked_array(chunks)


def _values(flat: np.ndarray, spec: TensorSpec, fills_missing: bool) -> Any:
    import pyarrow as pa

    kind = spec.dtype_name
    missing = missing_value(kind) if fills_missing and has_missing_value(kind) else None
    if spec.is_string:
        given = flat.tolist()
        texts = pa.array([None if one == missing else one for one in given] if fills_missing else given, pa.binary())
        try:
            return texts.cast(pa.string())
        except pa.ArrowInvalid:  # not UTF-8, such as images
            return texts
    if kind in ("float16", "bfloat16"):
        flat = flat.astype(np.float32)
    if missing is None:
        return pa.array(flat)
    return pa.array(flat, mask=np.isnan(flat) if flat.dtype.kind == "f" else flat == missing)
