"""Collect the data of a run from the metadata store and the folders of its artifacts."""

from __future__ import annotations

import ast
import datetime
import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kerasline.pipeline.metadata.store import Execution, Run, Store, StoredArtifact
from kerasline.pipeline.storage import roots

EARLIER = "earlier"


@dataclass(frozen=True)
class Output:
    """An output artifact.

    Attributes:
        place: its path or URL.
        present: False if the folder was deleted, for example by `gc`.
    """

    name: str
    type: str
    place: str
    id: str
    digest: str
    size_bytes: int
    present: bool

    @functools.cached_property
    def path(self) -> Path:
        """The folder on this machine's disk."""
        return roots.local(self.place)

    def json(self, name: str) -> Any:
        """Read a JSON file of the folder, or return None if it is missing or invalid."""
        try:
            return json.loads((roots.local(self.place, name) / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None


@dataclass(frozen=True)
class Stage:
    """One node of the run.

    Attributes:
        state: as in the store, or `earlier` for a node of an earlier run whose outputs were used.
        sources: the nodes whose outputs this node read.
        manifest: further content of `execution.json` in its published folder: parameters and environment.
    """

    name: str
    component: str
    state: str
    seconds: float | None
    started: datetime.datetime
    metrics: Mapping[str, Any]
    message: str | None
    fingerprint: str | None
    run_id: str
    sources: tuple[str, ...] = ()
    outputs: Mapping[str, Output] = field(default_factory=dict)
    manifest: Mapping[str, Any] = field(default_factory=dict)

    @property
    def parameters(self) -> Mapping[str, Any]:
        return self.manifest.get("parameters") or {}


@dataclass(frozen=True)
class Gathered:
    """A run with its stages, in the order of their start.

    Attributes:
        docstring: the docstring of the pipeline's file, read without running the file; empty if the file is missing.
    """

    run: Run
    stages: Sequence[Stage]
    docstring: str = ""

    @property
    def failed(self) -> list[Stage]:
        return [stage for stage in self.stages if stage.state == "failed"]

    def outputs(self, *types: str) -> Iterator[tuple[Stage, Output]]:
        """Yield the present outputs of these types, with their stages."""
        for stage in self.stages:
            for output in stage.outputs.values():
                if output.present and output.type in types:
                    yield stage, output

    def documents(self, kind: str, name: str) -> Iterator[tuple[Stage, Output, dict[str, Any]]]:
        """Yield the JSON objects in the named file of the present outputs of a type, with stage and output."""
        for stage, output in self.outputs(kind):
            if isinstance(facts := output.json(name), dict):
                yield stage, output, facts


def gather(store: Store, run: Run) -> Gathered:
    """Collect the stages of a run, and those of earlier runs whose outputs it used.

    Args:
        run: the run, with its state as displayed to people.
    """
    executions = store.executions(run.id)
    earlier = list(_earlier_executions(store, executions))
    everything = [*earlier, *executions]
    makers = {artifact.id: e.node for e in everything for artifact in e.outputs.values()}
    known = {e.node for e in everything}
    stages = [_stage(e, EARLIER if e in earlier else e.state, _sources(store, e, makers, known)) for e in everything]
    return Gathered(run, stages, _docstring(run.recipe))


def _earlier_executions(store: Store, executions: Sequence[Execution]) -> Iterator[Execution]:
    """Yield the executions of earlier runs that produced inputs of this run's stages, recursively.

    Yields one execution per node. Inputs named `baseline` come last, so that they do not replace the run's own.
    """
    made = {artifact.id for e in executions for artifact in e.outputs.values()}
    nodes = {e.node for e in executions}
    read = [item for e in executions for item in e.inputs.items()]
    waiting = [artifact for name, artifact in sorted(read, key=lambda item: item[0] == "baseline")]
    while waiting:
        artifact = waiting.pop(0)
        writer = None if artifact.id in made else store.writer(artifact.id)
        if writer is not None and writer.node not in nodes:
            nodes.add(writer.node)
            made |= {output.id for output in writer.outputs.values()}
            waiting.extend(writer.inputs.values())
            yield writer


def _sources(store: Store, execution: Execution, makers: Mapping[str, str], known: set[str]) -> tuple[str, ...]:
    """Return the nodes that a stage read from. For a stage that did not start, they are derived from its message or an
    earlier run."""
    if execution.inputs:
        return tuple(dict.fromkeys(makers[a.id] for a in execution.inputs.values() if a.id in makers))
    if execution.state in ("failed", "skipped"):
        # "not run, because Trainer failed and Evaluator was skipped"
        message = (execution.message or "").removeprefix("not run, because ")
        if message != (execution.message or ""):
            return tuple(name for name in known if name in message.split())
        before = store.latest(execution.pipeline, execution.node, execution.run_id)
        nodes = [_node_of(artifact) for artifact in before.inputs.values()] if before else []
        return tuple(dict.fromkeys(node for node in nodes if node in known))
    return ()


def _node_of(artifact: StoredArtifact) -> str:
    """Return the node that produced an artifact, from its path: .../PIPELINE/NODE/FINGERPRINT-ID/OUTPUT."""
    parts = Path(artifact.path).parts
    return parts[-3] if len(parts) >= 3 else ""


def _stage(execution: Execution, state: str, sources: tuple[str, ...]) -> Stage:
    manifest = roots.manifest(execution.folder) if execution.folder else None
    return Stage(
        execution.node,
        execution.component,
        state,
        execution.seconds,
        execution.started,
        execution.metrics,
        execution.message,
        execution.fingerprint,
        execution.run_id,
        sources,
        {name: _output(name, artifact) for name, artifact in execution.outputs.items()},
        manifest or {},
    )


def _output(name: str, artifact: StoredArtifact) -> Output:
    return Output(
        name,
        artifact.type,
        artifact.path,
        artifact.id,
        artifact.digest,
        artifact.size_bytes,
        roots.exists(artifact.path),
    )


def _docstring(recipe: str) -> str:
    """Return the docstring of a recipe, by name, or of a user's file."""
    from kerasline.pipeline import recipes

    file = Path(recipe) if recipe.endswith(".py") else Path(recipes.__path__[0], f"{recipe}.py")
    try:
        return ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    except (OSError, ValueError, SyntaxError):
        return ""
