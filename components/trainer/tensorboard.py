"""Logs for TensorBoard: scalars, the graph, and a profile of some steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.core.framework import summary_pb2

# TensorBoard shows a summary in the plugin that its metadata names (tensorboard/plugins/scalar).
_SCALAR = summary_pb2.SummaryMetadata(
    plugin_data=summary_pb2.SummaryMetadata.PluginData(plugin_name="scalars"),
    data_class=summary_pb2.DATA_CLASS_SCALAR,
)


class TensorBoardLogs:
    """Writes event files into `train/` and `validation/`, as Keras's callback does.

    Args:
        folder: the folder, or None to write nothing.
        profile_steps: first and last step to profile, from 1, or None for no profile.
    """

    def __init__(self, folder: Path | None, profile_steps: Sequence[int] | None) -> None:
        self._folder = folder
        self._profile_steps = profile_steps if folder else None
        self._writers: dict[str, Any] = {}
        self._is_profiling = self._has_graph = False

    def write_scalars(self, step: int, values: Mapping[str, float], part: str = "train") -> None:
        if self._folder is None or not values:
            return
        with self._writer(part).as_default():
            for name, value in values.items():
                tf.summary.write(name, tf.constant(value, tf.float32), step=step, metadata=_SCALAR)

    def write_epoch(self, epoch: int, metrics: Mapping[str, Any]) -> None:
        """Write the metrics of an epoch. Those whose names begin with `val_` go to `validation/`."""
        numbers = {name: value for name, value in metrics.items() if isinstance(value, float)}
        for part, prefix in (("train", ""), ("validation", "val_")):
            chosen = {
                f"epoch_{name.removeprefix('val_')}": value
                for name, value in numbers.items()
                if name.startswith("val_") == bool(prefix)
            }
            self.write_scalars(epoch, chosen, part)

    def write_graph(self, graph: Callable[[], tf.Graph]) -> None:
        """Write the graph that `graph` returns, on the first call only."""
        if self._folder is not None and not self._has_graph:
            self._has_graph = True
            with self._writer("train").as_default():
                tf.summary.graph(graph())

    def next_profile_boundary(self, step: int) -> int | None:
        """Return the next step after `step` at which the profile begins or ends, or None."""
        boundaries = [self._profile_steps[0] - 1, self._profile_steps[1]] if self._profile_steps else []
        return next((boundary for boundary in boundaries if boundary > step), None)

    def update_profile(self, step: int) -> None:
        """Begin or end the profile if it is due after `step` steps."""
        if self._profile_steps is None:
            return
        first, last = self._profile_steps
        if not self._is_profiling and first - 1 <= step < last:
            tf.profiler.experimental.start(str(self._folder_of("train")))
            self._is_profiling = True
        elif self._is_profiling and step >= last:
            self._end_profile()

    def flush(self) -> None:
        for writer in self._writers.values():
            writer.flush()

    def close(self) -> None:
        if self._is_profiling:
            self._end_profile()
        for writer in self._writers.values():
            writer.close()

    def _end_profile(self) -> None:
        tf.profiler.experimental.stop()
        self._is_profiling, self._profile_steps = False, None

    def _writer(self, part: str) -> Any:
        if part not in self._writers:
            self._writers[part] = tf.summary.create_file_writer(str(self._folder_of(part)))
        return self._writers[part]

    def _folder_of(self, part: str) -> Path:
        assert self._folder is not None
        return self._folder / part
