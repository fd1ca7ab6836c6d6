"""One training: its settings, its inputs and its output folders."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kerasline.components.core.artifacts import Examples, Model, Preprocessing, Report
from kerasline.components.trainer.settings import TrainerSettings


@dataclass(frozen=True)
class Job:
    """A training, in a form that can be pickled and run in another process.

    Attributes:
        settings: the parameters of the Trainer.
        model: the compiled model, with its initial weights.
        examples: contains the training split.
        preprocessing: the output of Transform.
        trained: existing folder for the trained model.
        history: existing folder for the history.
        work_dir: folder for temporary files.
        state_dir: folder for checkpoints, which survives a kill, or None to keep none.
    """

    settings: TrainerSettings
    model: Model
    examples: Examples
    preprocessing: Preprocessing
    trained: Model
    history: Report
    work_dir: Path
    state_dir: Path | None

    @property
    def log_dir(self) -> Path:
        """The folder where TensorBoard's logs are written during training."""
        return (self.state_dir or self.work_dir) / "tensorboard"

    @property
    def eval_split(self) -> str | None:
        """The split to evaluate on, or None if there is none."""
        split = self.settings.eval_split
        return split if split in self.examples.splits else None

    @property
    def needs_own_process(self) -> bool:
        """Whether a setting holds for a whole process, and only if set before TensorFlow initializes."""
        settings = self.settings
        return bool(settings.deterministic or settings.distribution != "none" or settings.gpu_memory_limit)
