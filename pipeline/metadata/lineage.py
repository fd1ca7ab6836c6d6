"""Lineage: the inputs an artifact was derived from, and the artifacts derived from it."""

from __future__ import annotations

from typing import Any

from rich.tree import Tree

from kerasline.components.core.errors import StoreError
from kerasline.pipeline.metadata.store import Execution, Store, StoredArtifact


def trace(store: Store, key: str) -> list[dict[str, Any]]:
    """Return the lineage of an artifact, or of each output of a run, in both directions.

    Args:
        key: path, URL or ID of an artifact, or ID of a run. A prefix of an ID is enough. "latest" is the newest run.

    Returns:
        For each artifact, its ID, type and path, `made_by` (its writer, with the same entries for each input in `from`)
        and `used_by` (its readers, with the same entries for each output in `into`).

    Raises:
        StoreError: neither an artifact nor a run is known by that name.
    """
    artifact = store.artifact(key)
    if artifact is not None:
        return [_traced(store, artifact)]
    try:
        run = store.run(key)
    except StoreError as error:
        raise StoreError(f"{key!r} is neither an artifact nor a run ({error})") from None
    outputs = [a for e in store.executions(run.id) for a in e.outputs.values()]
    return [_traced(store, output) for output in outputs]


def as_tree(item: dict[str, Any]) -> Tree:
    """Return a traced artifact as a printable tree."""
    tree = Tree(_label(item))
    if item["made_by"]:
        _grow(tree.add("made by"), item["made_by"], "made_by", "from")
    if item["used_by"]:
        branch = tree.add("used by")
        for user in item["used_by"]:
            _grow(branch, user, "used_by", "into")
    return tree


def _traced(store: Store, artifact: StoredArtifact) -> dict[str, Any]:
    return {
        **_facts(artifact),
        "made_by": _made_by(store, artifact),
        "used_by": _used_by(store, artifact),
    }


def _made_by(store: Store, artifact: StoredArtifact) -> dict[str, Any] | None:
    writer = store.writer(artifact.id)
    if writer is None:
        return None
    sources = [{**_facts(a), "made_by": _made_by(store, a)} for a in writer.inputs.values()]
    return {**_execution_facts(writer), "from": sources}


def _used_by(store: Store, artifact: StoredArtifact) -> list[dict[str, Any]]:
    users = []
    for reader in store.readers(artifact.id):
        results = [{**_facts(a), "used_by": _used_by(store, a)} for a in reader.outputs.values()]
        users.append({**_execution_facts(reader), "into": results})
    return users


def _facts(artifact: StoredArtifact) -> dict[str, Any]:
    return {"id": artifact.id, "type": artifact.type, "path": artifact.path}


def _execution_facts(execution: Execution) -> dict[str, Any]:
    return {"node": execution.node, "run_id": execution.run_id, "execution_id": execution.id}


def _label(item: dict[str, Any]) -> str:
    return f"{item['type']} {item['id'][:8]}  {item['path']}"


def _grow(branch: Tree, execution: dict[str, Any], by: str, artifacts: str) -> None:
    """Add an execution and, below it, its artifacts under `artifacts` with the executions that they name under `by`."""
    stage = branch.add(f"{execution['node']}  (run {execution['run_id']})")
    for item in execution[artifacts]:
        twig = stage.add(_label(item))
        further = item[by]
        for next_one in further if isinstance(further, list) else filter(None, [further]):
            _grow(twig, next_one, by, artifacts)
