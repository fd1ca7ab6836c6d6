"""`plan`: what training a pipeline's model will take, before it is trained."""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from rich.console import Console

from kerasline.components.core.component import Component
from kerasline.components.core.errors import KeraslineError, ParameterError
from kerasline.components.trainer.component import Trainer
from kerasline.pipeline.commands.screen import plain_table
from kerasline.pipeline.dag import Pipeline
from kerasline.pipeline.run import Summary
from kerasline.pipeline.storage.publishing import ArtifactRoot

if TYPE_CHECKING:
    from kerasline.components.trainer.planning.devices import Device
    from kerasline.components.trainer.planning.plan import Choice, Plan


def trainer_of(pipeline: Pipeline, name: str | None) -> Trainer:
    """The stage that is planned.

    Raises:
        ParameterError: the pipeline has no Trainer, or several and none is named.
    """
    found = {node: stage for node, stage in pipeline.nodes.items() if isinstance(stage, Trainer)}
    if name is not None and name in found:
        return found[name]
    if not found:
        raise ParameterError(f"{pipeline.name} has no Trainer: there is nothing to plan")
    if len(found) > 1 or name is not None:
        raise ParameterError(f"--node: name the Trainer to plan: {', '.join(found)}")
    return next(iter(found.values()))


def stages_before(pipeline: Pipeline, trainer: Component) -> list[str]:
    """What must have run: all that the Trainer's inputs come from."""
    needed = pipeline.ancestors(trainer.name) - {trainer.name}
    return [name for name in pipeline.order if name in needed]


def known_device(device: str) -> Device | None:
    """The well-known device of that name; None for "auto", "cpu", "gpu" or "gpu:1", which is here.

    Raises:
        ParameterError: none is called so.
    """
    from kerasline.components.trainer.planning import devices

    here = device.partition(":")[0].lower() in ("auto", "cpu", "gpu")
    return None if here else devices.named(device)


def plan_after(summary: Summary, root: ArtifactRoot, trainer: Trainer, device: str) -> Plan:
    """Plans with the outputs of the stages before.

    Args:
        root: where these outputs are.
        device: "auto", "cpu", "gpu", "gpu:1", or a well-known device's name.

    Raises:
        KeraslineError: a stage failed; or as training would.
    """
    failed = [e for e in summary.executions if e.state in ("failed", "skipped")]
    if failed:
        raise KeraslineError(f"{failed[0].node}: {failed[0].message}")
    from kerasline.components.core.artifacts import Model, Report
    from kerasline.components.trainer.job import Job
    from kerasline.components.trainer.planning import devices
    from kerasline.components.trainer.planning.plan import plan

    settings = SimpleNamespace(**trainer.parameters)
    elsewhere = known_device(device)
    if elsewhere is None:
        settings.device = device
    chosen = elsewhere or devices.at_hand(device)
    with tempfile.TemporaryDirectory(prefix="kerasline-") as folder:
        work = Path(folder)
        inputs = _inputs(summary, root, trainer)
        return plan(
            Job(settings, **inputs, trained=Model(work), history=Report(work), work_dir=work, state_dir=None), chosen
        )


def _inputs(summary: Summary, root: ArtifactRoot, trainer: Trainer) -> dict[str, Any]:
    """The Trainer's inputs that a job takes, opened."""
    done = {execution.node: execution.outputs for execution in summary.executions}
    opened = {}
    for name in ("model", "examples", "preprocessing"):
        source = trainer.inputs[name]
        producer = getattr(source, "producer", None)
        if producer is None:
            opened[name] = source
        else:
            opened[name] = source.type(root.local(done[producer.name][source.name].path))
    return opened


def print_plan(screen: Console, plan: Plan) -> None:
    """The plan as tables."""
    from kerasline.components.trainer.planning.memory import gib

    device = plan.device
    screen.print(
        f"{plan.model}: {plan.parameters:,} parameters, {plan.trainable_parameters:,} trained",
        highlight=False,
    )
    screen.print(f"{device.name}: {gib(device.memory_bytes)}", highlight=False)
    columns = (
        "precision",
        "weights",
        "gradients",
        "optimizer",
        "activations",
        "together",
        "fits",
        "largest batch",
    )
    screen.print(plain_table(columns, [_memory_row(choice) for choice in plan.precisions]))
    screen.print(
        f"training: {plan.rows:,} rows, {plan.epochs:g} epochs, {plan.steps:,} steps of {plan.batch_size} in "
        f"{plan.precision}: {_flops(plan.flops)}, about {_time(plan.seconds)}"
        + (
            f" ({plan.first_seconds:.1f} s to compile, {_time(plan.evaluation_seconds)} to evaluate)"
            if plan.measured
            else ", a rough guess: that device is not here"
        ),
        highlight=False,
    )
    rows = [
        (c.name, gib(c.memory_bytes), "yes" if c.fits else "no", _time(c.seconds), _ratio(c, plan))
        for c in plan.choices
    ]
    screen.print(plain_table(("choice", "memory", "fits", "time", "× as it is set"), rows))


def _memory_row(choice: Choice) -> tuple[str, ...]:
    from kerasline.components.trainer.planning.memory import gib

    costs = choice.need.costs
    parts = (costs.weight_bytes, costs.gradient_bytes, costs.optimizer_bytes, costs.activation_bytes)
    told = (gib(size) for size in (*parts, choice.memory_bytes))
    return choice.name, *told, "yes" if choice.fits else "no", f"{choice.largest_batch:,}"


def _ratio(choice: Choice, plan: Plan) -> str:
    return f"{choice.seconds / plan.seconds:.2f}" if choice.seconds and plan.seconds else ""


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "unknown"
    if seconds < 10:
        return f"{seconds:.1f} s"
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )


def _flops(flops: float) -> str:
    for unit, size in (("EFLOP", 1e18), ("PFLOP", 1e15), ("TFLOP", 1e12), ("GFLOP", 1e9)):
        if flops >= size:
            return f"{flops / size:.3g} {unit}"
    return f"{flops / 1e6:.3g} MFLOP"
