"""Logs that TensorBoard reads: scalars, the graph, and a profile of some steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.core.framework import summary_pb2

# TensorBoard takes a summary for what its plugin of that name shows (tensorboard/plugins/scalar).
_SCALAR = summary_pb2.SummaryMetadata(
    plugin_data=summary_pb2.SummaryMetadata.PluginData(plugin_name="scalars"),
    data_class=summary_pb2.DATA_CLASS_SCALAR,
)


class TensorBoardLogs:
    """Writes event files into `train/` and `validation/`, as Keras's callback does.

    Args:
        folder: where; None writes nothing.
        profiled: the first and the last step to profile, from 1; None for none.
    """

    def __init__(self, folder: Path | None, profiled: Sequence[int] | None) -> None:
        self._folder, self._profiled = folder, profiled if folder else None
        self._writers: dict[str, Any] = {}
        self._profiling = self._has_graph = False

    def scalars(self, step: int, figures: Mapping[str, float], part: str = "train") -> None:
        if self._folder is None or not figures:
            return
        with self._writer(part).as_default():
            for name, value in figures.items():
                tf.summary.write(name, tf.constant(value, tf.float32), step=step, metadata=_SCALAR)

    def epoch(self, epoch: int, figures: Mapping[str, Any]) -> None:
        """Figures of an epoch; those that begin with val_ go to `validation/`."""
        numbers = {name: value for name, value in figures.items() if isinstance(value, float)}
        for part, prefix in (("train", ""), ("validation", "val_")):
            chosen = {
                f"epoch_{name.removeprefix('val_')}": value
                for name, value in numbers.items()
                if name.startswith("val_") == bool(prefix)
            }
            self.scalars(epoch, chosen, part)

    def graph(self, of: Callable[[], tf.Graph]) -> None:
        """Writes the graph, once."""
        if self._folder is not None and not self._has_graph:
            self._has_graph = True
            with self._writer("train").as_default():
                tf.summary.graph(of())

    def boundary(self, step: int) -> int | None:
        """The step, after those done, at which a call must end for the profile to begin or end there."""
        edges = [self._profiled[0] - 1, self._profiled[1]] if self._profiled else []
        return next((edge for edge in edges if edge > step), None)

    def profile(self, step: int) -> None:
        """Begins or ends the profile, where it is time after so many steps."""
        if self._profiled is None:
            return
        first, last = self._profiled
        if not self._profiling and first - 1 <= step < last:
            tf.profiler.experimental.start(str(self._folder / "train"))
            self._profiling = True
        elif self._profiling and step >= last:
            self._end_profile()

    def close(self) -> None:
        if self._profiling:
            self._end_profile()
        for writer in self._writers.values():
            writer.close()

    def flush(self) -> None:
        for writer in self._writers.values():
            writer.flush()

    def _end_profile(self) -> None:
        tf.profiler.experimental.stop()
        self._profiling, self._profiled = False, None

    def _writer(self, part: str) -> Any:
        if part not in self._writers:
            self._writers[part] = tf.summary.create_file_writer(str(self._folder / part))
        return self._writers[part]
