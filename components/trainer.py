"""Trainer: gradient descent on the training split."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Annotated, Any, Literal, Optional, Union

from annotated_types import Ge, Gt, Len, Lt

from components.artifacts import Examples, Hyperparameters, Model, Preprocessing, Report
from components.base import Component, Context, Input, Output, Parameter
from components.errors import ParameterError
from components.training.job import EarlyStoppingSettings, Job

Positive = Annotated[int, Gt(0)]
Auto = Literal["auto"]


class Trainer(Component):
    """Trains a built model, from its last checkpoint where an earlier run was cut short.

    The input `best`, of a Tuner, goes before the parameters.

    Parameters:
        epochs: passes over the split; 1 if neither this nor `steps` is given.
        steps: batches in all, over as many epochs as that takes; goes before `epochs`.
        batch_size: rows a step, of all replicas together.
        seed: of the order of the rows and of all that is random in the model.
        split: trained on.
        eval_split: measured after each epoch; None leaves that out.
        shuffle: the rows anew in each epoch; else they keep their order.

        optimizer, loss, metrics: by Keras's names instead of the model's own: "adam", or
            `{"name": "SGD", "learning_rate": {"name": "CosineDecay", ...}}`; losses and metrics also
            by output.
        class_weight: how much rows of a class count, by its name or number; "balanced" by how rare it is.
        accumulate_steps: steps whose gradients are added up for one update.
        clip_norm: the most that the norm of all gradients together may be.
        clip_value: the most that each number of a gradient may be.
        ema: momentum of the moving average of the weights, which then is what is trained; such as 0.999.
        early_stopping: see `components.training.job.EarlyStoppingSettings`.
        function: `train(context)` instead of the steps here; see `components.training.own`.

        device: "auto" (a GPU where there is one), "cpu", "gpu", "gpu:1".
        gpu_memory_limit: in MiB; without one, memory is taken as it is needed.
        precision: what the model computes in; "auto" by the device: float32 on a CPU.
        distribution: "mirrored" over the devices here; "multi_worker" over processes.
        replicas: of "mirrored"; all GPUs, or two parts of the CPU, by default.
        workers: of "multi_worker", host:port of each on this machine; else TF_CONFIG says who they are.
        jit_compile: with XLA; "auto": on a GPU, and where it proves faster on a CPU.
        steps_per_execution: steps in one call of TensorFlow; "auto" by their time.
        rematerialize: activations are made again in the backward pass: true, or names of layers.
        deterministic: the same result bit by bit every time on the same machine, if slower.

        checkpoint_seconds, checkpoint_steps, checkpoint_epochs: how often a checkpoint is written; the
            first to be due counts.
        keep_checkpoints: how many of the newest are kept.
        on_non_finite: what happens when the loss is no longer a number: "stop", or "roll_back" to the
            last checkpoint with half the learning rate.
        tensorboard: logs for it, into `history`.
        profile_steps: the first and the last step of a profile for TensorBoard.

    Raises:
        ParameterError: a setting cannot be met here.
        DataError: the loss is no longer a number; or a column is missing.
    """

    VERSION = "3"
    LIBRARIES = ("tensorflow", "keras")

    examples: Input[Examples]
    preprocessing: Input[Preprocessing]
    model: Input[Model]
    best: Input[Hyperparameters] = None
    trained_model: Output[Model]
    history: Output[Report]
    epochs: Parameter[Optional[Positive]] = None
    steps: Parameter[Optional[Positive]] = None
    batch_size: Parameter[Positive] = 32
    seed: Parameter[int] = 0
    split: Parameter[str] = "train"
    eval_split: Parameter[Optional[str]] = "eval"
    shuffle: Parameter[bool] = True
    optimizer: Parameter[Union[str, dict[str, Any], None]] = None
    loss: Parameter[Union[str, dict[str, Any], None]] = None
    metrics: Parameter[Union[list[Any], dict[str, Any], None]] = None
    class_weight: Parameter[Union[Literal["balanced"], dict[str, float], None]] = None
    accumulate_steps: Parameter[Positive] = 1
    clip_norm: Parameter[Optional[Annotated[float, Gt(0)]]] = None
    clip_value: Parameter[Optional[Annotated[float, Gt(0)]]] = None
    ema: Parameter[Optional[Annotated[float, Ge(0), Lt(1)]]] = None
    early_stopping: Parameter[Optional[EarlyStoppingSettings]] = None
    function: Parameter[Optional[Callable]] = None
    device: Parameter[str] = "auto"
    gpu_memory_limit: Parameter[Optional[Positive]] = None
    precision: Parameter[Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"]] = "auto"
    distribution: Parameter[Literal["none", "mirrored", "multi_worker"]] = "none"
    replicas: Parameter[Optional[Positive]] = None
    workers: Parameter[Optional[Annotated[list[str], Len(1)]]] = None
    jit_compile: Parameter[Union[bool, Auto]] = "auto"
    steps_per_execution: Parameter[Union[Positive, Auto]] = "auto"
    rematerialize: Parameter[Union[bool, list[str]]] = False
    deterministic: Parameter[bool] = False
    checkpoint_seconds: Parameter[Optional[Annotated[float, Gt(0)]]] = 60.0
    checkpoint_steps: Parameter[Optional[Positive]] = None
    checkpoint_epochs: Parameter[Optional[Positive]] = None
    keep_checkpoints: Parameter[Positive] = 2
    on_non_finite: Parameter[Literal["stop", "roll_back"]] = "stop"
    tensorboard: Parameter[bool] = True
    profile_steps: Parameter[Optional[Annotated[list[Positive], Len(2, 2)]]] = None

    def run(self, inputs: Any, outputs: Any, context: Context) -> Mapping[str, Any]:
        job = Job(
            self.settings(inputs.best.trainer if inputs.best else {}),
            inputs.model, inputs.examples, inputs.preprocessing,
            outputs.trained_model, outputs.history,
            context.work_dir, context.state_dir,
        )  # fmt: skip
        if job.apart:
            from components.training.process import train_apart

            return train_apart(job, context.report)
        from components.training.process import train_here

        return train_here(job, context.report)

    def settings(self, best: Mapping[str, Any]) -> SimpleNamespace:
        """The parameters by name; those that a Tuner found best go before.

        Raises:
            ParameterError: they contradict each other.
        """
        if best:
            self.with_parameters(best)
        self._check()
        return SimpleNamespace(**self.parameters)

    def _check(self) -> None:
        """What contradicts itself is told before anything is loaded."""
        several = self.distribution != "none"
        if several and self.jit_compile is True:
            raise ParameterError(
                f"{self.name}.jit_compile: TensorFlow does not compile steps of a {self.distribution} "
                "distribution with XLA; leave it at auto"
            )
        if self.replicas and self.distribution != "mirrored":
            raise ParameterError(f"{self.name}.replicas: for distribution=mirrored alone, which is not set")
        if self.workers and self.distribution != "multi_worker":
            raise ParameterError(
                f"{self.name}.workers: for distribution=multi_worker alone, which is not set"
            )
