"""Find wrong parameters of stages before any time is spent on the stages before them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from kerasline.components.core.artifacts import Artifact
from kerasline.components.core.component import Channel, Component
from kerasline.components.core.errors import KeraslineError
from kerasline.components.core.parameters import SPLIT
from kerasline.components.example_gen.component import ExampleGen
from kerasline.pipeline.dag import Pipeline

LOG = logging.getLogger("kerasline")

Outputs = Mapping[tuple[str, str], Artifact]
"""The outputs that are known, by the names of node and output."""


def check_declarations(pipeline: Pipeline) -> None:
    """Check what the declarations of a pipeline alone determine.

    Raises:
        KeraslineError: a parameter of a stage is wrong.
    """
    for node in pipeline.nodes.values():
        _check_splits(node)
        node.check(_known_inputs(node, {}))


def check_machine(pipeline: Pipeline, selected: Sequence[str]) -> None:
    """Check that this machine has what the selected stages need.

    Raises:
        KeraslineError: something is missing.
    """
    for name in selected:
        pipeline.nodes[name].check_machine()


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


def check_descendants(pipeline: Pipeline, name: str, known: Outputs) -> None:
    """Check the stages that depend on a node, before it runs, against the outputs that exist.

    Outputs that do not exist yet are described by the stages that will produce them (`Component.preview`).

    Args:
        known: the outputs that exist.

    Raises:
        KeraslineError: a parameter of a later stage is wrong.
    """
    described = dict(known)
    for node in (pipeline.nodes[one] for one in pipeline.order):
        is_later = name in pipeline.ancestors(node.name)
        if not (is_later or node.name == name):
            continue
        inputs = _known_inputs(node, described)
        try:
            if is_later:
                node.check(inputs)
            previews = node.preview(inputs)
        except KeraslineError as error:
            about = str(error) if str(error).startswith(node.name) else f"{node.name}: {error}"
            raise type(error)(f"not started: {about}") from error
        except Exception:  # a check is a help and must not stop a run by a mistake of its own
            LOG.exception("%s could not be checked before %s", node.name, name)
            continue
        described = {**{(node.name, output): artifact for output, artifact in previews.items()}, **described}


def _known_inputs(node: Component, known: Outputs) -> Any:
    found: dict[str, Any] = {}
    for field, source in node.inputs.items():
        if isinstance(source, Channel):
            found[field] = known.get((source.producer.name, source.name))
        elif isinstance(source, Artifact):
            found[field] = source
    return node.input_artifacts(found)
