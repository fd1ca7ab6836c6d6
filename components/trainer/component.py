"""Trainer: gradient descent on the training split."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from kerasline.components.core.artifacts import Artifact, Examples, Hyperparameters, Model, Preprocessing, Report
from kerasline.components.core.component import Component, Context, Input, Output, Parameters
from kerasline.components.core.errors import ParameterError, check_known, nearest
from kerasline.components.data.arrow_types import has_length
from kerasline.components.metrics.text import DIRECTIONS as TEXT_METRICS
from kerasline.components.trainer import cluster
from kerasline.components.trainer.job import Job
from kerasline.components.trainer.settings import TrainerSettings

# Parameters that decide how workers are started and monitored. They do not affect the trained model.
SUPERVISION_PARAMETERS = ("launch", "max_restarts", "worker_timeout", "stall_timeout")


class Trainer(Component):
    """Trains a model on one split of the examples.

    Training resumes from the last checkpoint if an earlier run with the same inputs and parameters was interrupted.
    If neither `epochs` nor `steps` is set, it trains for one epoch.

    Args:
        examples: the examples to train on.
        preprocessing: the output of Transform.
        model: the compiled model, from ModelBuilder.
        best: hyperparameters that a Tuner found. They take precedence over the parameters below.

        epochs: number of passes over the split.
        steps: total number of batches, over as many epochs as needed. Takes precedence over `epochs`.
        batch_size: number of rows per step, over all replicas. Defaults to 32.
        bucket_by: name, or names, by whose length rows are batched together, so that little is padding: an output of
            the preprocessing (its steps, or the number itself if it is one integer per row), or a column (lists, texts
            by their bytes, or integers). A row is as long as the longest of several.
        tokens_a_batch: replaces `batch_size`: each step has as many rows as keep the number of rows times the longest
            row, over all replicas, within this number. Requires `bucket_by`.
        frames_a_batch: the same for rows whose length is in frames.
        seed: seed of the row order and of all randomness in the model. Defaults to 0.
        split: split to train on. Defaults to `"train"`.
        eval_split: split to evaluate on after each epoch, or None for no evaluation. Defaults to `"eval"`.
        shuffle: whether to shuffle the rows in every epoch. Defaults to True.
        phases: parts of the training that train different layers at different rates, such as
            `[{"epochs": 2, "freeze": ["backbone"]}, {"learning_rate": 1e-5}]`. Each begins with a new state of the
            optimizer. See `kerasline.components.trainer.settings.Phase`.

        optimizer: replaces the optimizer of the model: `"adam"`, or
            `{"name": "SGD", "learning_rate": {"name": "CosineDecay", ...}}`.
        loss: replaces the loss of the model: a name, a dict with name and arguments, or a dict by output.
        metrics: replaces the metrics of the model: a list of names or dicts, or a dict by output.
        class_weight: weight of the rows of each class, by class name or index, or `"balanced"` for weights inversely
            proportional to the class frequencies. Classes left out count 1. A multi-hot row has the mean weight of its
            classes.
        accumulate_steps: number of steps whose gradients are averaged for one update. Defaults to 1.
        clip_norm: largest global norm of the gradients.
        clip_value: largest absolute value of each element of a gradient.
        ema: momentum of an exponential moving average of the weights, such as 0.999. The trained model has the
            averaged weights.
        early_stopping: see `kerasline.components.trainer.settings.EarlyStoppingSettings`.
        calibrate: `"temperature"` divides the logits of a classifier, after training, by the temperature that minimizes
            the log loss of `eval_split` (Guo et al., 2017), so that its probabilities are those of being right. By
            default they stay as trained.
        answer: `answer(model, features)`, the answering function of Exporter, for `evaluate_answers`.
        evaluate_answers: number of rows of `eval_split` that the model answers after each epoch by `answer`. The
            metrics of these answers are reported as `val_wer`, `val_bleu`, ..., or `val_translation_wer` if the name
            occurs twice, beside those of the other held-out rows, and `early_stopping` can monitor them. The rows are
            chosen by `seed`.
        task, reference, text_options, detection_columns, box_format: how the answers are judged, as Evaluator's
            parameters of these names.
        text_metrics: metrics of answers that are texts. Defaults to `["bleu", "chrf", "wer", "cer", "exact_match"]`.
        function: `train(context)`, a training loop that replaces the built-in one. See
            `kerasline.components.trainer.custom_train`.

        device: `"auto"` (a GPU if there is one), `"cpu"`, `"gpu"` or `"gpu:1"`. Defaults to `"auto"`.
        gpu_memory_limit: GPU memory in MiB. By default, memory grows as needed.
        precision: `"float32"`, `"mixed_bfloat16"`, `"mixed_float16"`, or `"auto"`, which depends on the device and is
            float32 on a CPU. Defaults to `"auto"`.
        distribution: `"none"`, `"mirrored"` over the local devices, or `"multi_worker"` over processes. Defaults to
            `"none"`.
        replicas: number of devices for `"mirrored"`. By default all GPUs, or two logical CPU devices.
        workers: number of local processes, or one host per process: `["10.0.0.1", "10.0.0.2:4000"]`. Implies
            `distribution="multi_worker"`. The first is the chief and the only one that writes. Without it,
            `"multi_worker"` reads TF_CONFIG.
        launch: command that starts a worker on another machine, with `{host}` and `{command}`, or
            `{shell_command}` if a remote shell splits the command into words. By default ssh.
        max_restarts: how often all workers restart from the last checkpoint after one is lost. Defaults to 3.
        worker_timeout: seconds without a heartbeat after which a worker counts as lost. Defaults to 60.
        stall_timeout: seconds without a completed step or evaluation after which a worker counts as lost, or None to
            wait forever. Defaults to 900.
        jit_compile: whether to compile with XLA. `"auto"` compiles on a GPU, and on a CPU if it proves faster.
            Defaults to `"auto"`.
        steps_per_execution: number of steps per call of TensorFlow. `"auto"` measures it. Defaults to `"auto"`.
        rematerialize: True, or names of layers, to recompute activations in the backward pass instead of storing
            them. Defaults to False.
        deterministic: whether the same machine produces bitwise identical results, at some cost in speed. Defaults to
            False.

        checkpoint_seconds: interval between checkpoints in seconds. Defaults to 60.
        checkpoint_steps: interval between checkpoints in steps.
        checkpoint_epochs: interval between checkpoints in epochs.
        keep_checkpoints: number of checkpoints to keep. Defaults to 2.
        on_non_finite: `"stop"` fails when the loss is NaN or infinite. `"roll_back"` returns to the last checkpoint
            and halves the learning rate. Defaults to `"stop"`.
        tensorboard: whether to write logs for TensorBoard into `history`. Defaults to True.
        profile_steps: first and last step of a TensorBoard profile.

    Outputs:
        trained_model: the trained model. `calibration.json` has its calibration before and after `calibrate`.
        history: loss of each step, metrics of each epoch, logs for TensorBoard.

    Raises:
        ParameterError: a setting cannot be applied on this machine or to this model.
        DataError: the loss is NaN or infinite, memory ran out, or a column is missing.

    >>> import keras
    >>> def preprocessing():
    ...     x = keras.Input((1,), name="x")
    ...     return keras.Model({"x": x}, {"x": keras.layers.Rescaling(0.5)(x)})
    >>> def build_model(inputs, hp):
    ...     model = keras.Model(inputs, keras.layers.Dense(1)(inputs["x"]))
    ...     model.compile("sgd", "mse")
    ...     return model
    >>> data = {"x": [0.0, 1.0, 2.0, 3.0], "y": [1.0, 3.0, 5.0, 7.0]}
    >>> examples = kl.InMemoryExampleGen(data, splits={"train": 1}).execute(folder / "examples").examples
    >>> prepared = kl.Transform(examples, function=preprocessing, label="y").execute(folder / "prepared").preprocessing
    >>> built = kl.ModelBuilder(prepared, function=build_model).execute(folder / "built").model
    >>> trained = kl.Trainer(examples, prepared, built, steps=20, eval_split=None).execute(folder / "trained")
    >>> trained.metrics["steps"]
    20
    """

    VERSION = "10"
    LIBRARIES = ("tensorflow", "keras")

    examples: Input[Examples]
    preprocessing: Input[Preprocessing]
    model: Input[Model]
    best: Input[Hyperparameters] = None
    trained_model: Output[Model]
    history: Output[Report]
    settings: Parameters[TrainerSettings]

    def check(self, inputs: Any) -> None:
        super().check(inputs)
        self._check_distribution()
        self._check_bucketing(inputs)
        self._check_phases()
        self._check_calibration(inputs)
        split = self.settings.eval_split
        # The default may be missing: not all data have an eval split.
        if inputs.examples is not None and split and split not in ("eval", *inputs.examples.splits):
            raise ParameterError(
                f"{self.name}.eval_split: the data has no split {split!r}; {nearest(split, inputs.examples.splits)}"
            )

        self._check_answers(inputs)

    def preview(self, inputs: Any) -> Mapping[str, Artifact]:
        return {} if inputs.model is None else {"trained_model": inputs.model}

    def run(self, inputs: Any, outputs: Any, context: Context) -> Mapping[str, Any]:
        job = Job(
            self.resolved_settings(inputs.best.trainer if inputs.best else {}),
            inputs.model,
            inputs.examples,
            inputs.preprocessing,
            outputs.trained_model,
            outputs.history,
            context.work_dir,
            context.state_dir,
        )
        if job.needs_own_process:
            from kerasline.components.trainer.supervision import train_apart

            return train_apart(job, context.report)
        from kerasline.components.trainer.process import train_here

        return train_here(job, context.report)

    def resolved_settings(self, best: Mapping[str, Any]) -> TrainerSettings:
        """Return the settings, overridden by those that a Tuner found, with the distribution that `workers` implies.

        Raises:
            ParameterError: the settings contradict each other.
        """
        if best:
            self.with_parameters(best)
        self._check_distribution()
        return dataclasses.replace(self.settings, distribution=self._distribution)

    def identifying_parameters(self) -> dict[str, Any]:
        """Return the parameters that affect the result.

        The number of workers affects the last digits. Their addresses and how they are monitored do not, so that
        training can resume from its checkpoint on other machines.
        """
        found = {name: value for name, value in self.parameters.items() if name not in SUPERVISION_PARAMETERS}
        return {**found, "workers": self.settings.worker_count, "distribution": self._distribution}

    def _check_answers(self, inputs: Any) -> None:
        settings, where = self.settings, f"{self.name}.evaluate_answers"
        if settings.evaluate_answers is None:
            return
        for is_missing, expected in (
            (settings.answer is None, "the parameter `answer`, the function of Exporter"),
            (settings.eval_split is None, "an eval_split whose rows are answered"),
            (settings.function is not None, "the built-in training loop, but `function` replaces it"),
            (
                inputs.examples is not None and settings.eval_split not in inputs.examples.splits,
                f"the data to have the split {settings.eval_split!r}",
            ),
        ):
            if is_missing:
                raise ParameterError(f"{where}: expected {expected}")
        check_known(f"{self.name}.text_metrics", "no metric of texts", settings.text_metrics, TEXT_METRICS)
        known = None not in (inputs.examples, inputs.preprocessing, inputs.model)
        if known and settings.answer is not None and (inputs.model.path / Model.FILE).exists():
            from kerasline.components.models.answering import plan_answers
            from kerasline.components.models.judged_answers import judged_answers_of

            answers = plan_answers(settings.answer, inputs.preprocessing, inputs.model).outputs
            schema = inputs.examples.schema()
            judged_answers_of(self.name, answers, schema, inputs.preprocessing, settings.judging)

    def _check_calibration(self, inputs: Any) -> None:
        settings, where = self.settings, f"{self.name}.calibrate"
        if settings.calibrate is None:
            return
        if settings.function is not None:
            raise ParameterError(f"{where}: expected the built-in training loop, but `function` replaces it")
        if settings.eval_split is None:
            raise ParameterError(f"{where}: expected an eval_split, whose rows determine the temperature")
        if inputs.examples is not None and settings.eval_split not in inputs.examples.splits:
            raise ParameterError(f"{where}: expected data with the split of eval_split, {settings.eval_split!r}")

    def _check_phases(self) -> None:
        phases, where = self.settings.phases or [], f"{self.name}.phases"
        if phases and self.settings.function is not None:
            raise ParameterError(f"{where}: expected the built-in training loop, but `function` replaces it")
        for number, phase in enumerate(phases):
            if phase.epochs is None and number < len(phases) - 1:
                raise ParameterError(f"{where}.{number}.epochs: expected the number of epochs of this phase")
        if phases and phases[-1].epochs is not None:
            raise ParameterError(
                f"{where}.{len(phases) - 1}.epochs: the last phase lasts to the end of the training; set "
                f"{self.name}.epochs, the number of all epochs"
            )
        before, epochs = sum(phase.epochs or 0 for phase in phases), self.settings.epochs or 1
        if self.settings.steps is None and phases and before >= epochs:
            raise ParameterError(
                f"{where}: the last phase begins after epoch {before}, and training ends after epoch {epochs}; set "
                f"{self.name}.epochs to more"
            )

    def _check_bucketing(self, inputs: Any) -> None:
        settings = self.settings
        limits = [name for name in ("tokens_a_batch", "frames_a_batch") if getattr(settings, name)]
        if len(limits) == 2:
            raise ParameterError(f"{self.name}.frames_a_batch: expected one limit, received tokens_a_batch too")
        if limits and not settings.bucket_by:
            raise ParameterError(
                f"{self.name}.{limits[0]}: requires bucket_by, the name of the output or column that has the lengths"
            )
        if settings.bucket_by and inputs.examples is not None and inputs.preprocessing is not None:
            if inputs.preprocessing.facts.get("packed"):
                raise ParameterError(f"{self.name}.bucket_by: Transform.pack gives all rows one length; remove one")
            names = [settings.bucket_by] if isinstance(settings.bucket_by, str) else settings.bucket_by
            outputs, schema = inputs.preprocessing.outputs, inputs.examples.schema()
            where = f"{self.name}.bucket_by"
            check_known(where, "Transform has no output and the data no column", names, [*outputs, *schema.names])
            for name in names:
                if name not in outputs and not has_length(schema.field(name).type):
                    raise ParameterError(
                        f"{where}: column {name!r} is {schema.field(name).type}; expected lists, texts or integers"
                    )

    @property
    def _distribution(self) -> Any:
        settings = self.settings
        return "multi_worker" if settings.workers and settings.distribution == "none" else settings.distribution

    def _check_distribution(self) -> None:
        settings = self.settings
        if self._distribution != "none" and settings.jit_compile is True:
            raise ParameterError(
                f"{self.name}.jit_compile: TensorFlow does not compile the steps of a {self._distribution} "
                "distribution with XLA; leave it at auto"
            )
        if settings.replicas and settings.distribution != "mirrored":
            raise ParameterError(f"{self.name}.replicas: requires distribution=mirrored")
        if settings.workers and settings.distribution == "mirrored":
            raise ParameterError(f"{self.name}.workers: cannot be combined with distribution=mirrored; remove that")
        if settings.workers:
            cluster.parse_workers(settings.workers)
        for kind, count in {"workers": settings.worker_count, "replicas": settings.replicas}.items():
            if count and settings.batch_size % count and not settings.bucket_by:
                raise ParameterError(
                    f"{self.name}.batch_size: {settings.batch_size} rows cannot be shared by {count} {kind} evenly"
                )
        if settings.launch is not None:
            cluster.check_launch(settings.launch)
