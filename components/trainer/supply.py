"""The rows that training takes, chunk by chunk, for every replica of this process."""

from __future__ import annotations

from collections.abc import Iterator

import tensorflow as tf

from kerasline.components.data.training_input import Chunks
from kerasline.components.trainer.job import Job
from kerasline.components.trainer.loop import Chunk, padded
from kerasline.components.trainer.replicas import Replicas


class Supply:
    """Chunks in the order of the job's seed.

    Attributes:
        an_epoch: steps an epoch.
        at_once: steps a chunk, at most.
        share: rows of a whole batch that each replica gets.
        element_spec: of a chunk.
        varies: whether rows differ in length from batch to batch; then `at_once` is 1.
    """

    def __init__(self, job: Job, replicas: Replicas) -> None:
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
                shuffle=settings.shuffle,
                worker=worker,
                workers=replicas.count,
            )
            for worker in replicas.own
        ]
        first = self._chunks[0]
        self._rows, self._batch_size = first.rows, settings.batch_size
        self.an_epoch, self.at_once, self.share = first.an_epoch, first.at_once, first.share
        self.element_spec = first.starting(0, 0).element_spec
        self.varies = any(None in spec.shape[1:] for spec in tf.nest.flatten(self.element_spec))

    def rows_of(self, step: int) -> int:
        """Rows of a step, of all replicas together; steps are counted over all epochs."""
        return min(self._batch_size, self._rows - step % self.an_epoch * self._batch_size)

    def starting(self, step: int) -> Iterator[tuple[int, Chunk | None, Chunk | None]]:
        """Chunks from a step on.

        Yields:
            How many whole batches there are; these, filled up to the size of every chunk; and the
            batch behind them that is not whole. Each of the two may be None.
        """
        epoch, within = divmod(step, self.an_epoch)
        parts = [iter(chunks.starting(epoch, within)) for chunks in self._chunks]
        while True:
            batches = min(self.at_once, self.an_epoch - step % self.an_epoch)
            cut_short = self.rows_of(step + batches - 1) < self._batch_size
            whole = batches - cut_short
            taken = [_cut(next(part), whole * self.share, self.at_once * self.share) for part in parts]
            yield (
                whole,
                self._replicas.values(lambda own: taken[own][0]) if whole else None,
                self._replicas.values(lambda own: taken[own][1]) if cut_short else None,
            )
            step += batches


def _cut(chunk: Chunk, rows: int, filled: int) -> tuple[Chunk, Chunk]:
    whole = tf.nest.map_structure(lambda tensor: tensor[:rows], chunk)
    return padded(whole, filled), tf.nest.map_structure(lambda tensor: tensor[rows:], chunk)
