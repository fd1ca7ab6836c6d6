"""Lineage: the inputs an artifact was derived from, and the artifacts derived from it."""

from __future__ import annotations

from typing import Any

from rich.tree import Tree

from kerasline.components.core.errors import StoreError
from kerasline.pipeline.metadata.store import Execution, Store, StoredArtifact


def trace(store: Store, key: str) -> list[dict[str, Any]]:
    """Return the lineage of an artifact, or of each output of a run, in both directions.

    Args:
        key: an artifact's path, URL or id, or a run's id, each id or its first digits. "latest" is the newest run.

    Returns:
        For each artifact: its id, type and path, `made_by` (with `from`, the same again for each
        input) and `used_by` (with `into`, the same again for each output).

    Raises:
        StoreError: neither an artifact nor a run is known by that name.
    """
    artifact = store.artifact(key)
    if artifact is not None:
        return [_both_ways(store, artifact)]
    try:
        run = store.run(key)
    except StoreError as error:
        raise StoreError(f"{key!r} is neither an artifact nor a run ({error})") from None
    outputs = [a for e in store.executions(run.id) for a in e.outputs.values()]
    return [_both_ways(store, output) for output in outputs]


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


def _both_ways(store: Store, artifact: StoredArtifact) -> dict[str, Any]:
    return {
        **_facts(artifact),
        "made_by": _up(store, artifact),
        "used_by": _down(store, artifact),
    }


def _up(store: Store, artifact: StoredArtifact) -> dict[str, Any] | None:
    writer = store.writer(artifact.id)
    if writer is None:
        return None
    sources = [{**_facts(a), "made_by": _up(store, a)} for a in writer.inputs.values()]
    return {**_who(writer), "from": sources}


def _down(store: Store, artifact: StoredArtifact) -> list[dict[str, Any]]:
    users = []
    for reader in store.readers(artifact.id):
        results = [{**_facts(a), "used_by": _down(store, a)} for a in reader.outputs.values()]
        users.append({**_who(reader), "into": results})
    return users


def _facts(artifact: StoredArtifact) -> dict[str, Any]:
    return {"id": artifact.id, "type": artifact.type, "path": artifact.path}


def _who(execution: Execution) -> dict[str, Any]:
    return {"node": execution.node, "run_id": execution.run_id, "execution_id": execution.id}


def _label(item: dict[str, Any]) -> str:
    return f"{item['type']} {item['id'][:8]}  {item['path']}"


def _grow(branch: Tree, who: dict[str, Any], way: str, edge: str) -> None:
    stage = branch.add(f"{who['node']}  (run {who['run_id']})")
    for item in who[edge]:
        twig = stage.add(_label(item))
        further = item[way]
        for next_one in further if isinstance(further, list) else filter(None, [further]):
            _grow(twig, next_one, way, edge)
