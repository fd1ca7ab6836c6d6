"""`plan`: what training a pipeline's model needs, before it is trained."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from kerasline.components.core.artifacts import Hyperparameters
from kerasline.components.core.component import Channel, Component
from kerasline.components.core.errors import KeraslineError, ParameterError, at_stage
from kerasline.components.exporter.component import Exporter
from kerasline.components.models.signatures import DEFAULT_SIGNATURE
from kerasline.components.trainer.component import Trainer
from kerasline.components.tuner.component import Tuner
from kerasline.components.tuner.settings import split_values
from kerasline.pipeline.commands.screen import plain_table
from kerasline.pipeline.dag import Pipeline
from kerasline.pipeline.metadata.store import Store
from kerasline.pipeline.run import Summary
from kerasline.pipeline.storage import roots

if TYPE_CHECKING:
    from kerasline.components.models.costs import AnswerCosts
    from kerasline.components.trainer.job import Job
    from kerasline.components.trainer.planning.hardware import Device
    from kerasline.components.trainer.planning.plan import Choice, Plan


def trainer_of(pipeline: Pipeline, name: str | None) -> Trainer:
    """Return the Trainer to plan.

    Args:
        pipeline: the pipeline.
        name: name of the node, or None if there is only one Trainer.

    Raises:
        ParameterError: the pipeline has no Trainer, or several and none is named.
    """
    found = {node: stage for node, stage in pipeline.nodes.items() if isinstance(stage, Trainer)}
    if name is not None and name in found:
        return found[name]
    if not found:
        raise ParameterError(f"{pipeline.name} has no Trainer: there is nothing to plan")
    if len(found) > 1 or name is not None:
        raise ParameterError(f"--node: expected the name of a Trainer, one of {', '.join(found)}, received {name}")
    return next(iter(found.values()))


def without_training(pipeline: Pipeline, found: Mapping[str, Hyperparameters], folder: Path) -> Pipeline:
    """Connect the stages of a pipeline, in place, so that nothing is trained before the planned Trainer.

    A stage that reads the model of an earlier Trainer reads the untrained model instead, which needs the same memory
    and time. The results of a Tuner are those of its last search, or the largest values of its search space.

    Args:
        pipeline: the pipeline.
        found: results of earlier searches by the name of the Tuner.
        folder: folder for the largest values.

    Returns:
        The same pipeline.
    """
    return _connect(pipeline, pipeline.__reduce__(), found, folder)


def _connect(pipeline: Pipeline, rebuild: Any, found: Mapping[str, Hyperparameters], folder: Path) -> Pipeline:
    for stage in pipeline.nodes.values():
        for name, source in stage.inputs.items():
            while isinstance(source, Channel) and isinstance(source.producer, Trainer):
                if source.name != "trained_model":
                    break
                source = source.producer.inputs["model"]
            if isinstance(source, Channel) and isinstance(source.producer, Tuner) and source.name == "best":
                source = found.get(source.producer.name) or _largest_values(source.producer, folder)
            stage.inputs[name] = source
    return pipeline.rebuilt_by(_rebuilt_without_training, rebuild, found, folder)


def _rebuilt_without_training(
    rebuild: tuple[Any, tuple[Any, ...]], found: Mapping[str, Hyperparameters], folder: Path
) -> Pipeline:
    function, arguments = rebuild
    # `rebuild` is passed on: the function may return a pipeline that was connected before.
    return _connect(function(*arguments), rebuild, found, folder)


def _largest_values(tuner: Tuner, folder: Path) -> Hyperparameters:
    values = {name: dimension.largest for name, dimension in tuner.settings.space.items()}
    of_model, of_trainer = split_values(values)
    (folder / tuner.name).mkdir(exist_ok=True)
    artifact = Hyperparameters(folder / tuner.name)
    hyperparameters = {**tuner.settings.hyperparameters, **of_model}
    artifact.write_json(Hyperparameters.FILE, {"hyperparameters": hyperparameters, "trainer": of_trainer})
    return artifact


def searches(pipeline: Pipeline, store: Store) -> dict[str, Hyperparameters]:
    """Return the results of the last search of each Tuner that has any."""
    found = {}
    for name in (name for name, stage in pipeline.nodes.items() if isinstance(stage, Tuner)):
        done = store.history(pipeline.name, name)
        if done and roots.exists(done[0].outputs["best"].path):
            found[name] = Hyperparameters(roots.local(done[0].outputs["best"].path))
    return found


def describe_searches(pipeline: Pipeline, trainer: Trainer, found: Mapping[str, Hyperparameters]) -> list[str]:
    """Return a line for each Tuner that the Trainer depends on: where its hyperparameters come from."""
    tuners = [name for name in pipeline.ancestors(trainer.name) if isinstance(pipeline.nodes[name], Tuner)]
    return [
        f"{name} does not run: "
        + ("the results of its last search are used" if name in found else "the largest values of its space are used")
        for name in tuners
    ]


def stages_before(pipeline: Pipeline, trainer: Component) -> list[str]:
    """Return the names of the stages that the Trainer depends on, in the order of execution."""
    needed = pipeline.ancestors(trainer.name) - {trainer.name}
    return [name for name in pipeline.order if name in needed]


def known_device(device: str) -> Device | None:
    """Return the well-known device of that name, or None for "auto", "cpu", "gpu" or "gpu:1".

    Raises:
        ParameterError: there is no well-known device of that name.
    """
    from kerasline.components.trainer.planning import hardware

    is_local = device.partition(":")[0].lower() in ("auto", "cpu", "gpu")
    return None if is_local else hardware.known_device(device)


def answers_of(pipeline: Pipeline, trainer: Trainer) -> dict[str, Any]:
    """Return the answering functions of the model that a Trainer trains, by signature, after `without_training`."""
    for stage in pipeline.nodes.values():
        if isinstance(stage, Exporter) and stage.inputs["model"] == trainer.inputs["model"]:
            answer = stage.settings.answer
            return answer if isinstance(answer, dict) else {DEFAULT_SIGNATURE: answer} if answer else {}
    return {}


def plan_after(summary: Summary, trainer: Trainer, answers: Mapping[str, Any], device: str) -> Plan:
    """Plan with the outputs of the stages before the Trainer.

    Args:
        summary: the run of these stages.
        trainer: the Trainer to plan.
        answers: the answering functions of the served model, by signature.
        device: "auto", "cpu", "gpu", "gpu:1", or the name of a well-known device.

    Raises:
        KeraslineError: a stage was skipped, or training would fail.
    """
    skipped = [e for e in summary.executions if e.state == "skipped"]
    if skipped:
        raise KeraslineError(at_stage(skipped[0].node, skipped[0].message))
    from kerasline.components.core.artifacts import Model, Report
    from kerasline.components.trainer.job import Job
    from kerasline.components.trainer.planning.hardware import local_device
    from kerasline.components.trainer.planning.plan import plan

    best = trainer.inputs.get("best")
    settings = trainer.resolved_settings(best.trainer if isinstance(best, Hyperparameters) else {})
    known = known_device(device)
    if known is None:
        settings = dataclasses.replace(settings, device=device)
    with tempfile.TemporaryDirectory(prefix="kerasline-") as folder:
        work = Path(folder)
        inputs = _inputs(summary, trainer)
        job = Job(settings, **inputs, trained=Model(work), history=Report(work), work_dir=work, state_dir=None)
        made = plan(job, known or local_device(device))
    return dataclasses.replace(made, answers=_answer_costs(job, answers)) if answers else made


def _answer_costs(job: Job, answers: Mapping[str, Any]) -> dict[str, AnswerCosts | None]:
    from kerasline.components.exporter.served_model import ServedModel

    served = ServedModel.of(job.preprocessing, job.model.load(), answers)
    return {name: one.costs for name, one in served.by_signature.items()}


def _inputs(summary: Summary, trainer: Trainer) -> dict[str, Any]:
    """Return the input artifacts of the Trainer."""
    done = {execution.node: execution.outputs for execution in summary.executions}
    artifacts = {}
    for name in ("model", "examples", "preprocessing"):
        source: Any = trainer.inputs[name]
        producer = getattr(source, "producer", None)
        if producer is None:
            artifacts[name] = source
        else:
            artifacts[name] = source.type(roots.local(done[producer.name][source.name].path))
    return artifacts


def print_plan(screen: Console, plan: Plan) -> None:
    """Print a plan as tables."""
    from kerasline.components.models.costs import format_flops
    from kerasline.components.trainer.planning.memory import format_bytes

    device = plan.device
    screen.print(
        f"{plan.model}: {plan.parameters:,} parameters, {plan.trainable_parameters:,} trainable",
        highlight=False,
    )
    screen.print(f"{device.name}: {format_bytes(device.memory_bytes)}", highlight=False)
    columns = ("precision", "weights", "gradients", "optimizer", "activations", "total", "fits", "largest batch")
    screen.print(plain_table(columns, [_memory_row(choice) for choice in plan.precisions]))
    details = (
        f" ({plan.first_seconds:.1f} s to compile, {_time(plan.evaluation_seconds)} to evaluate)"
        if plan.measured
        else ", a rough estimate: the device is not on this machine"
    )
    screen.print(
        f"training: {plan.rows:,} rows, {plan.epochs:g} epochs, {plan.steps:,} steps of {plan.batch_size} in "
        f"{plan.precision}: {format_flops(plan.flops)}, about {_time(plan.seconds)}{details}",
        highlight=False,
    )
    rows = [
        (c.name, format_bytes(c.memory_bytes), "yes" if c.fits else "no", _time(c.seconds), _ratio(c, plan))
        for c in plan.choices
    ]
    screen.print(plain_table(("choice", "memory", "fits", "time", "× current"), rows))
    for name, costs in plan.answers.items():
        screen.print(f"answer of {name}: {costs or 'unknown'}", highlight=False)


def _memory_row(choice: Choice) -> tuple[str, ...]:
    from kerasline.components.trainer.planning.memory import format_bytes

    costs = choice.need.costs
    parts = (costs.weight_bytes, costs.gradient_bytes, costs.optimizer_bytes, costs.activation_bytes)
    sizes = (format_bytes(size) for size in (*parts, choice.memory_bytes))
    return choice.name, *sizes, "yes" if choice.fits else "no", f"{choice.largest_batch:,}"


def _ratio(choice: Choice, plan: Plan) -> str:
    return f"{choice.seconds / plan.seconds:.2f}" if choice.seconds and plan.seconds else ""


def _time(seconds: float | None) -> str:
    from kerasline.components.trainer.progress import format_duration

    if seconds is None:
        return "unknown"
    return f"{seconds:.1f} s" if seconds < 10 else format_duration(seconds)
