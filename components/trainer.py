"""Trainer: gradient descent on the training split, with Keras's `fit`."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Optional

from annotated_types import Gt

from components.artifacts import Examples, Model, Preprocessing, Report
from components.base import Component, Context, Input, Output, Parameter
from components.errors import DataError

if TYPE_CHECKING:
    import keras

Positive = Annotated[int, Gt(0)]

# Steps in one call of TensorFlow: with one, Python takes as long as the arithmetic of small models.
MOST_STEPS_PER_EXECUTION = 64


class Trainer(Component):
    """Trains a built model.

    Parameters:
        epochs: passes over the split; 1 if neither this nor `steps` is given.
        steps: batches in all, over as many epochs as that takes; goes before `epochs`.
        batch_size: rows a step.
        seed: of the order of the rows and of all that is random in the model.
        eval_split: measured after each epoch; None leaves that out.

    Raises:
        DataError: the loss is no longer a number; or a column is missing.
    """

    LIBRARIES = ("tensorflow", "keras")

    examples: Input[Examples]
    preprocessing: Input[Preprocessing]
    model: Input[Model]
    trained_model: Output[Model]
    history: Output[Report]
    epochs: Parameter[Optional[Positive]] = None
    steps: Parameter[Optional[Positive]] = None
    batch_size: Parameter[Positive] = 32
    seed: Parameter[int] = 0
    split: Parameter[str] = "train"
    eval_split: Parameter[Optional[str]] = "eval"

    def run(self, inputs: Any, outputs: Any, context: Context) -> Mapping[str, Any]:
        import keras

        from components.model_builder import summarise

        keras.utils.set_random_seed(self.seed)
        model = inputs.model.load()
        clock = time.perf_counter()
        history = self._fit(model, inputs, context)
        seconds = time.perf_counter() - clock
        model.save(outputs.trained_model.path / Model.FILE)
        outputs.trained_model.write_json("summary.json", summarise(model))
        outputs.history.write_json("history.json", history)
        steps = int(model.optimizer.iterations.numpy())
        rows = sum(epoch["rows"] for epoch in history)
        last = {k: v for k, v in history[-1].items() if k not in ("epoch", "rows", "steps")}
        return {"epochs": len(history), "steps": steps, **last, "samples_per_second": round(rows / seconds)}

    def _fit(self, model: keras.Model, inputs: Any, context: Context) -> list[dict[str, Any]]:
        """Trains epoch by epoch; the last may be cut short where `steps` says so."""
        from components.columnar.training_input import dataset, steps_per_epoch

        examples, preprocessing = inputs.examples, inputs.preprocessing
        an_epoch = steps_per_epoch(examples, self.split, self.batch_size)
        total = self.steps or an_epoch * (self.epochs or 1)
        whole, rest = divmod(total, an_epoch)
        validation = None
        if self.eval_split and self.eval_split in examples.splits:
            validation = dataset(
                examples, self.eval_split, preprocessing,
                batch_size=max(self.batch_size, 1024), work_dir=context.work_dir,
            )  # fmt: skip
        watch = _watcher(context, whole + bool(rest), examples.rows(self.split), an_epoch, self.batch_size)
        for first, count, steps in ((0, whole, an_epoch), (whole, 1, rest)):
            if count and steps:
                data = dataset(
                    examples, self.split, preprocessing, batch_size=self.batch_size,
                    work_dir=context.work_dir, seed=self.seed, epochs=None, first_epoch=first,
                )  # fmt: skip
                model.steps_per_execution = _divisor(steps)
                model.make_train_function(force=True)
                model.fit(
                    data, initial_epoch=first, epochs=first + count, steps_per_epoch=steps,
                    validation_data=validation, verbose=0, shuffle=False, callbacks=[watch],
                )  # fmt: skip
        return watch.epochs


def _divisor(steps: int) -> int:
    """The most steps an execution that leave no remainder, which Keras would take from the next epoch."""
    return max(k for k in range(1, min(steps, MOST_STEPS_PER_EXECUTION) + 1) if steps % k == 0)


def _watcher(context: Context, epochs: int, rows: int, an_epoch: int, batch_size: int) -> Any:
    """A callback that reports epochs, keeps their figures and stops at a loss that is no number."""
    import keras

    class Watcher(keras.callbacks.Callback):
        def __init__(self) -> None:
            super().__init__()
            self.epochs: list[dict[str, Any]] = []

        def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
            figures = {name: float(value) for name, value in (logs or {}).items()}
            if not math.isfinite(figures["loss"]):
                raise DataError(
                    f"the loss became {figures['loss']} in epoch {epoch + 1}; lower the learning rate, "
                    "or look for extreme or missing values that preprocessing lets through"
                )
            steps = self.params["steps"]
            seen = rows if steps == an_epoch else steps * batch_size
            self.epochs.append({"epoch": epoch + 1, "steps": steps, "rows": seen, **figures})
            told = ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
            context.report(f"epoch {epoch + 1} of {epochs}: {told}")

    return Watcher()
