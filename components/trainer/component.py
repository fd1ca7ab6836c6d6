"""Trainer: gradient descent on the training split."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Len, Lt

from kerasline.components.core.artifacts import Examples, Hyperparameters, Model, Preprocessing, Report
from kerasline.components.core.component import Component, Context, Input, Output, Parameter
from kerasline.components.core.errors import ParameterError
from kerasline.components.trainer import cluster
from kerasline.components.trainer.job import EarlyStoppingSettings, Job

Positive = Annotated[int, Gt(0)]
Auto = Literal["auto"]
# Parameters that say how workers are started and watched, and nothing of what they learn.
WATCHING = ("launch", "max_restarts", "worker_timeout", "stall_timeout")


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
        early_stopping: see `kerasline.components.trainer.job.EarlyStoppingSettings`.
        function: `train(context)` instead of the steps here; see `kerasline.components.trainer.custom_train`.

        device: "auto" (a GPU where there is one), "cpu", "gpu", "gpu:1".
        gpu_memory_limit: in MiB; without one, memory is taken as it is needed.
        precision: what the model computes in; "auto" by the device: float32 on a CPU.
        distribution: "mirrored" over the devices here; "multi_worker" over processes.
        replicas: of "mirrored"; all GPUs, or two parts of the CPU, by default.
        workers: of "multi_worker", which need not be written then: how many processes here, or where each
            is, ["10.0.0.1", "10.0.0.2:4000"]. The first is the chief: it alone writes. Without them
            TF_CONFIG says who they are.
        launch: the command that starts one on another machine, with {host} and {command}, or
            {shell_command} where a shell takes it apart there; ssh by default.
        max_restarts: how often all workers start again from the last checkpoint when one is lost.
        worker_timeout: seconds without a sign of life after which a worker counts as lost.
        stall_timeout: seconds without a step, or an evaluation, after which one counts as lost; None waits.
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
    epochs: Parameter[Positive | None] = None
    steps: Parameter[Positive | None] = None
    batch_size: Parameter[Positive] = 32
    seed: Parameter[int] = 0
    split: Parameter[str] = "train"
    eval_split: Parameter[str | None] = "eval"
    shuffle: Parameter[bool] = True
    optimizer: Parameter[str | dict[str, Any] | None] = None
    loss: Parameter[str | dict[str, Any] | None] = None
    metrics: Parameter[list[Any] | dict[str, Any] | None] = None
    class_weight: Parameter[Literal["balanced"] | dict[str, float] | None] = None
    accumulate_steps: Parameter[Positive] = 1
    clip_norm: Parameter[Annotated[float, Gt(0)] | None] = None
    clip_value: Parameter[Annotated[float, Gt(0)] | None] = None
    ema: Parameter[Annotated[float, Ge(0), Lt(1)] | None] = None
    early_stopping: Parameter[EarlyStoppingSettings | None] = None
    function: Parameter[Callable | None] = None
    device: Parameter[str] = "auto"
    gpu_memory_limit: Parameter[Positive | None] = None
    precision: Parameter[Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"]] = "auto"
    distribution: Parameter[Literal["none", "mirrored", "multi_worker"]] = "none"
    replicas: Parameter[Positive | None] = None
    workers: Parameter[Positive | Annotated[list[str], Len(1)] | None] = None
    launch: Parameter[str | None] = None
    max_restarts: Parameter[Annotated[int, Ge(0)]] = 3
    worker_timeout: Parameter[Annotated[float, Gt(0)]] = 60.0
    stall_timeout: Parameter[Annotated[float, Gt(0)] | None] = 900.0
    jit_compile: Parameter[bool | Auto] = "auto"
    steps_per_execution: Parameter[Positive | Auto] = "auto"
    rematerialize: Parameter[bool | list[str]] = False
    deterministic: Parameter[bool] = False
    checkpoint_seconds: Parameter[Annotated[float, Gt(0)] | None] = 60.0
    checkpoint_steps: Parameter[Positive | None] = None
    checkpoint_epochs: Parameter[Positive | None] = None
    keep_checkpoints: Parameter[Positive] = 2
    on_non_finite: Parameter[Literal["stop", "roll_back"]] = "stop"
    tensorboard: Parameter[bool] = True
    profile_steps: Parameter[Annotated[list[Positive], Len(2, 2)] | None] = None

    def run(self, inputs: Any, outputs: Any, context: Context) -> Mapping[str, Any]:
        job = Job(
            self.settings(inputs.best.trainer if inputs.best else {}),
            inputs.model,
            inputs.examples,
            inputs.preprocessing,
            outputs.trained_model,
            outputs.history,
            context.work_dir,
            context.state_dir,
        )
        if job.apart:
            from kerasline.components.trainer.process import train_apart

            return train_apart(job, context.report)
        from kerasline.components.trainer.process import train_here

        return train_here(job, context.report)

    def settings(self, best: Mapping[str, Any]) -> SimpleNamespace:
        """The parameters by name; those that a Tuner found best go before.

        Raises:
            ParameterError: they contradict each other.
        """
        if best:
            self.with_parameters(best)
        self._check()
        return SimpleNamespace(**self.parameters | {"distribution": self._distribution})

    def identifying_parameters(self) -> dict[str, Any]:
        """How many workers there are decides the last digits; who they are and how patiently they are watched
        does not, so that a training goes on from its checkpoint on other machines."""
        found = {name: value for name, value in self.parameters.items() if name not in WATCHING}
        count = len(self.workers) if isinstance(self.workers, list) else self.workers
        return {**found, "workers": count, "distribution": self._distribution}

    @property
    def _distribution(self) -> str:
        return "multi_worker" if self.workers and self.distribution == "none" else self.distribution

    def _check(self) -> None:
        """What contradicts itself is told before anything is loaded."""
        if self._distribution != "none" and self.jit_compile is True:
            raise ParameterError(
                f"{self.name}.jit_compile: TensorFlow does not compile steps of a {self._distribution} "
                "distribution with XLA; leave it at auto"
            )
        if self.replicas and self.distribution != "mirrored":
            raise ParameterError(f"{self.name}.replicas: for distribution=mirrored alone, which is not set")
        if self.workers and self.distribution == "mirrored":
            raise ParameterError(f"{self.name}.workers: not together with distribution=mirrored; leave that out")
        if self.workers:
            cluster.workers(self.workers)
        if self.launch is not None:
            cluster.check_launch(self.launch)
