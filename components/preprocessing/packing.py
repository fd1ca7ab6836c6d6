"""Documents packed into rows of one length, for training language models without padding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from kerasline.components.core.artifacts import part_of
from kerasline.components.core.errors import ParameterError

if TYPE_CHECKING:
    import keras

SEGMENT_IDS, POSITIONS = "segment_ids", "positions"


class Packing(BaseModel):
    """How Transform packs documents.

    Args:
        length: number of steps of a packed row.
        separator: id that ends each document, whose label is padding. None, the default, for none.
        padding: id that pads documents, and the last packed row of a shard. Defaults to 0.
    """

    model_config = ConfigDict(extra="forbid")

    length: int = Field(ge=1)
    separator: int | None = None
    padding: int = 0


def with_segments(model: keras.Model, packing: Packing, label_names: Sequence[str]) -> keras.Model:
    """Return the preprocessing with the outputs `segment_ids` and `positions`, as if each row were packed alone.

    Raises:
        ParameterError: an output is not a row of any length, or a label or weight is not an output.
    """
    import keras

    from kerasline.components.preprocessing.layers.sequences import DocumentSteps

    for name in label_names:
        if name not in model.output:
            raise ParameterError(f"Transform.pack: {name!r} is a column, expected an output of the preprocessing")
    for name, tensor in model.output.items():
        shape = tuple(tensor.shape[1:])
        if name in (SEGMENT_IDS, POSITIONS):
            raise ParameterError(f"Transform.pack: packing adds the output {name!r}; give yours another name")
        if shape != (None,):
            raise ParameterError(f"Transform.pack: output {name!r} has shape {shape}, expected (None,), any length")
    features = [tensor for name, tensor in model.output.items() if name not in label_names]
    if not features:
        raise ParameterError("Transform.pack: all outputs are labels; output the tokens and the next tokens")
    segments, positions = DocumentSteps(packing.padding)(features[0])
    return keras.Model(model.input, {**model.output, SEGMENT_IDS: segments, POSITIONS: positions})


def without_segments(model: keras.Model) -> keras.Model:
    """Return the preprocessing without the outputs that `with_segments` added."""
    if SEGMENT_IDS not in model.output:
        return model
    return part_of(model, [name for name in model.output if name not in (SEGMENT_IDS, POSITIONS)])


class Packer:
    """Packs documents one after the other, and cuts them at the ends of rows. Every step is kept.

    Args:
        packing: the settings.
        labels: names of the labels and weights among the outputs.
    """

    def __init__(self, packing: Packing, labels: Sequence[str]) -> None:
        self._packing, self._labels = packing, labels
        self._waiting: dict[str, np.ndarray] = {}
        self._ignoring: set[str] = set()  # labels that are padded with -1
        self._document = np.zeros(0, np.int64)  # the document of each waiting step
        self._documents = 0

    def add(self, outputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the rows that are complete, arrays (rows, length) by output.

        Args:
            outputs: arrays (documents, steps) by output. A document is as long as its shortest output, without the
                padding at its end.
        """
        outputs = {name: values for name, values in outputs.items() if name not in (SEGMENT_IDS, POSITIONS)}
        lengths = np.min([self._lengths(values) for values in outputs.values()], axis=0)
        self._ignoring |= {name for name in self._labels if (outputs[name] == -1).any()}
        sizes = np.where(lengths > 0, lengths + (self._packing.separator is not None), 0)
        document = self._documents + np.repeat(np.arange(len(sizes)), sizes)
        self._documents += len(sizes)
        self._document = np.concatenate([self._document, document])
        for name, values in outputs.items():
            steps = self._steps(values, lengths, sizes, is_label=name in self._labels)
            self._waiting[name] = np.concatenate([self._waiting.get(name, steps[:0]), steps])
        return self._rows(len(self._document) // self._packing.length)

    def rest(self) -> dict[str, np.ndarray]:
        """Return the last row, with padding at its end, or no row."""
        missing = -len(self._document) % self._packing.length
        if missing:
            self._document = np.append(self._document, np.full(missing, -1))
            for name, steps in self._waiting.items():
                added = -1 if name in self._ignoring else self._packing.padding
                self._waiting[name] = np.append(steps, np.full(missing, added, steps.dtype))
        return self._rows(len(self._document) // self._packing.length)

    def _lengths(self, values: np.ndarray) -> np.ndarray:
        is_step = (values != self._packing.padding) & (values != -1)
        return np.max(np.where(is_step, np.arange(1, values.shape[1] + 1), 0), axis=1, initial=0)

    def _steps(self, values: np.ndarray, lengths: np.ndarray, sizes: np.ndarray, *, is_label: bool) -> np.ndarray:
        """Return the steps of all documents one after the other, with separators."""
        packing = self._packing
        added = packing.padding if is_label or packing.separator is None else packing.separator
        wide = np.pad(values, ((0, 0), (0, 1)), constant_values=added)
        wide[np.arange(len(wide)), lengths] = added
        return wide[np.arange(wide.shape[1]) < sizes[:, np.newaxis]]

    def _rows(self, count: int) -> dict[str, np.ndarray]:
        length, size = self._packing.length, count * self._packing.length
        document, self._document = self._document[:size].reshape(count, length), self._document[size:]
        found = {name: steps[:size].reshape(count, length) for name, steps in self._waiting.items()}
        self._waiting = {name: steps[size:] for name, steps in self._waiting.items()}
        begins = np.diff(document, axis=1, prepend=-2) != 0
        start = np.maximum.accumulate(np.where(begins, np.arange(length), 0), axis=1)
        is_step = document >= 0
        found[SEGMENT_IDS] = np.where(is_step, np.cumsum(begins, axis=1), 0).astype(np.int32)
        found[POSITIONS] = np.where(is_step, np.arange(length) - start, 0).astype(np.int32)
        return found


def packed_shapes(outputs: Mapping[str, Any], packing: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return symbolic tensors of stored outputs: of rows of one length if they are packed."""
    import keras

    if packing is None:
        return dict(outputs)
    return {name: keras.KerasTensor((None, packing["length"]), tensor.dtype) for name, tensor in outputs.items()}
