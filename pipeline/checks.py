"""Find wrong parameters of stages before any time is spent on the stages before them."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from kerasline.components.core.artifacts import Artifact
from kerasline.components.core.component import Channel, Component
from kerasline.components.core.errors import KeraslineError, at_stage
from kerasline.components.core.parameters import SPLIT
from kerasline.components.example_gen.component import ExampleGen
from kerasline.pipeline.dag import Pipeline

LOG = logging.getLogger("kerasline")

# Begins the message of a stage that was not started because of a mistake in another one.
NOT_STARTED = "not started: "

Outputs = Mapping[tuple[str, str], Artifact]
"""The outputs that are known, by the names of node and output."""


def check_declarations(pipeline: Pipeline) -> None:
    """Check what the declarations of a pipeline and the files that they name determine.

    Raises:
        KeraslineError: a parameter of a stage is wrong.
    """
    _check(pipeline, pipeline.order, {})


def check_machine(pipeline: Pipeline, selected: Sequence[str]) -> None:
    """Check that this machine has what the selected stages need.

    Raises:
        KeraslineError: something is missing.
    """
    for name in selected:
        pipeline.nodes[name].check_machine()


def check_waiting(pipeline: Pipeline, name: str, selected: Collection[str], known: Outputs) -> None:
    """Check the stages that have not run, before a node runs, against the outputs that exist.

    These are the stages that depend on the node, also those of later runs, and the other stages of this run: a mistake
    in a short branch is found before a long one begins.

    Args:
        selected: the nodes of this run.
        known: the outputs that exist.

    Raises:
        KeraslineError: a parameter of one of these stages is wrong.
    """
    nodes = [one for one in pipeline.order if one != name and (one in selected or name in pipeline.ancestors(one))]
    try:
        _check(pipeline, [one for one in nodes if not _has_run(pipeline.nodes[one], known)], known)
    except KeraslineError as error:
        raise type(error)(f"{NOT_STARTED}{error}") from error


def _check(pipeline: Pipeline, names: Collection[str], known: Outputs) -> None:
    """Check some nodes. Outputs that do not exist yet are described by the stages that will produce them."""
    described = dict(known)
    for node in (pipeline.nodes[name] for name in pipeline.order):
        inputs = _known_inputs(node, described)
        try:
            if node.name in names:
                _check_splits(node)
                node.check(inputs)
            previews = {} if _has_run(node, known) else node.preview(inputs)
        except KeraslineError as error:
            raise type(error)(at_stage(node.name, error)) from error
        except Exception:  # a check is a help and must not stop a run by a mistake of its own
            LOG.exception("%s could not be checked", node.name)
            continue
        described |= {(node.name, output): artifact for output, artifact in previews.items()}


def _has_run(node: Component, known: Outputs) -> bool:
    return any((node.name, output) in known for output in node.outputs)


def _check_splits(node: Component) -> None:
    if splits := _declared_splits(node):
        node.check_names(SPLIT, lambda: splits)


def _declared_splits(node: Component) -> Sequence[str]:
    """Return the splits of the data that a node reads, as far as an ExampleGen declares them, or none."""
    for field in ("examples", "statistics"):
        source = node.inputs.get(field)
        if isinstance(source, Channel):
            producer = source.producer
            return producer.declared_splits if isinstance(producer, ExampleGen) else _declared_splits(producer)
    return ()


def _known_inputs(node: Component, known: Outputs) -> Any:
    found: dict[str, Any] = {}
    for field, source in node.inputs.items():
        if isinstance(source, Channel):
            found[field] = known.get((source.producer.name, source.name))
        elif isinstance(source, Artifact):
            found[field] = source
    return node.input_artifacts(found)
