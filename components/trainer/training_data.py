"""The training data: chunks of batches for each replica of this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf

from kerasline.components.data.training_input import Chunks
from kerasline.components.models.targets import Target
from kerasline.components.trainer.job import Job
from kerasline.components.trainer.replicas import Replicas
from kerasline.components.trainer.train_steps import Chunk


class TrainingData:
    """Chunks in the order that the job's seed decides.

    Args:
        features: names of the features that the model takes, see `taken_features`.
        target: what the label is, see `training_target`.
        weight_ranks: rank of the weights, see `weight_ranks` of `components.models.targets`.

    Attributes:
        steps_per_epoch: number of steps in an epoch.
        batches_per_chunk: largest number of batches in a chunk.
        rows_per_replica: number of rows of a full batch, or of the largest one, that each replica receives.
        element_spec: the TensorSpecs of a chunk.
        has_varying_shapes: whether rows or batches have different lengths. `batches_per_chunk` is 1 then.
        padding: the share of padding in the batches if they are bucketed, else None.
    """

    def __init__(
        self, job: Job, replicas: Replicas, features: Sequence[str] | None, target: Target, weight_ranks: Any = None
    ) -> None:
        settings = job.settings
        self._replicas = replicas
        self._chunks = [
            Chunks(
                job.examples,
                settings.split,
                job.preprocessing,
                batch_size=settings.batch_size,
                work_dir=job.work_dir,
                seed=settings.seed,
                features=features,
                target=target,
                weight_ranks=weight_ranks,
                shuffle=settings.shuffle,
                worker=worker,
                workers=replicas.count,
                bucketing=settings.bucketing,
            )
            for worker in replicas.local_ids
        ]
        first = self._chunks[0]
        self._batch_size, self.padding = settings.batch_size, first.padding
        self._is_bucketed = settings.bucketing is not None
        self.steps_per_epoch, self.batches_per_chunk = first.an_epoch, first.at_once
        self.rows_per_replica = first.share
        self.element_spec = first.starting(0, 0).element_spec
        self.has_varying_shapes = self._is_bucketed or any(
            None in spec.shape[1:] for spec in tf.nest.flatten(self.element_spec)
        )

    def rows_of(self, step: int) -> int:
        """Return the number of rows of a step, over all replicas. Steps count over all epochs."""
        return self._chunks[0].rows_of(*divmod(step, self.steps_per_epoch))

    def starting_at(self, step: int) -> Iterator[tuple[int, Chunk | None, Chunk | None]]:
        """Yield the chunks from a step on.

        Yields:
            The number of full batches, these batches, padded to the size of every chunk, and the incomplete batch
            after them. Each of the two may be None.
        """
        epoch, step_in_epoch = divmod(step, self.steps_per_epoch)
        iterators = [iter(chunks.starting(epoch, step_in_epoch)) for chunks in self._chunks]
        while True:
            if self._is_bucketed:
                yield 1, self._replicas.per_replica([next(iterator) for iterator in iterators]), None
                continue
            batches = min(self.batches_per_chunk, self.steps_per_epoch - step % self.steps_per_epoch)
            is_last_incomplete = self.rows_of(step + batches - 1) < self._batch_size
            full = batches - is_last_incomplete
            rows, padded_rows = full * self.rows_per_replica, self.batches_per_chunk * self.rows_per_replica
            parts = [_split(next(iterator), rows, padded_rows) for iterator in iterators]
            yield (
                full,
                self._replicas.per_replica([part[0] for part in parts]) if full else None,
                self._replicas.per_replica([part[1] for part in parts]) if is_last_incomplete else None,
            )
            step += batches


def _split(chunk: Chunk, rows: int, padded_rows: int) -> tuple[Chunk, Chunk]:
    """Return the first rows, padded with zeros since compiled functions need a constant shape, and the other rows."""

    def first(tensor: tf.Tensor) -> tf.Tensor:
        missing = padded_rows - rows
        padding = [tf.zeros([missing, *tensor.shape[1:]], tensor.dtype)] if missing else []
        return tf.concat([tensor[:rows], *padding], 0) if padding else tensor[:rows]

    return tf.nest.map_structure(first, chunk), tf.nest.map_structure(lambda tensor: tensor[rows:], chunk)
