"""Pipeline: a validated graph of named nodes. Nothing runs here."""

from __future__ import annotations

import graphlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kerasline.components.core.component import Channel, Component
from kerasline.components.core.errors import ParameterError, WiringError, nearest


class Pipeline:
    """A directed acyclic graph of components, connected by their inputs and outputs.

    Args:
        name: Name of the pipeline and of its artifact folder. Starts with a letter, followed by
            letters, digits, `-`, `_` or `.`.
        nodes: The components. Their upstream components are added automatically.

    Raises:
        WiringError: If a name is invalid or used twice, or the edges form a cycle.

    Example:

    >>> examples = kl.InMemoryExampleGen({"x": [1.0, 2.0]}, splits={"train": 1})
    >>> statistics = kl.StatisticsGen(examples)
    >>> pipeline = kl.Pipeline("numbers", [kl.SchemaGen(statistics)])
    >>> pipeline.order
    ['ExampleGen', 'StatisticsGen', 'SchemaGen']
    >>> pipeline.select(start="StatisticsGen")
    ['StatisticsGen', 'SchemaGen']
    >>> pipeline.upstream("SchemaGen")
    ['StatisticsGen']
    """

    def __init__(self, name: str, nodes: Iterable[Component]) -> None:
        self.name = _checked_name("pipeline", name)
        self.nodes: dict[str, Component] = {}
        for node in _with_producers(nodes):
            _checked_name("node", node.name)
            if self.nodes.setdefault(node.name, node) is not node:
                raise WiringError(f"pipeline {name}: two nodes are named {node.name!r}; give one a name=")
        self._rebuild: tuple[Any, ...] | None = None
        self.order = self._sorted()

    def upstream(self, name: str) -> list[str]:
        """Return the names of the nodes whose outputs the node reads, in the order of its inputs."""
        producers = [c.producer.name for c in self.nodes[name].inputs.values() if isinstance(c, Channel)]
        return list(dict.fromkeys(producers))

    def ancestors(self, name: str) -> set[str]:
        """Return the names of all direct and indirect dependencies of a node."""
        found: set[str] = set()
        waiting = self.upstream(name)
        while waiting:
            node = waiting.pop()
            if node not in found:
                found.add(node)
                waiting.extend(self.upstream(node))
        return found

    def select(self, node: str | None = None, start: str | None = None, stop: str | None = None) -> list[str]:
        """Return the nodes of a subgraph in topological order.

        Args:
            node: Select only this node.
            start: Select this node and its descendants.
            stop: Select this node and its ancestors. With `start`, select the nodes between the two.

        Returns:
            Names of the selected nodes; all nodes by default.

        Raises:
            WiringError: If a name is unknown, or no path leads from `start` to `stop`.
        """
        for name in (node, start, stop):
            if name is not None and name not in self.nodes:
                raise WiringError(f"pipeline {self.name} has no node {name!r}; {nearest(name, self.nodes)}")
        if node is not None:
            return [node]
        chosen = set(self.order)
        if start is not None:
            chosen &= {n for n in self.order if n == start or start in self.ancestors(n)}
        if stop is not None:
            chosen &= {stop} | self.ancestors(stop)
        if not chosen:
            raise WiringError(f"pipeline {self.name}: nothing leads from {start} to {stop}")
        return [name for name in self.order if name in chosen]

    def waves(self, selected: Sequence[str]) -> list[list[str]]:
        """Group the selected nodes by depth. Nodes of one group are independent and can run in parallel.

        Args:
            selected: Names of nodes in topological order.

        Returns:
            Lists of names. Each node comes directly after the last group that holds one of its ancestors.
        """
        depth: dict[str, int] = {}
        for name in selected:
            above = [depth[n] for n in self.ancestors(name) if n in depth]
            depth[name] = 1 + max(above, default=-1)
        rows: list[list[str]] = [[] for _ in range(1 + max(depth.values(), default=-1))]
        for name, row in depth.items():
            rows[row].append(name)
        return rows

    def with_parameters(self, changes: Mapping[str, Any]) -> Pipeline:
        """Set parameters of nodes in place.

        Args:
            changes: New values, as `{"NODE.PARAM": value}`.

        Returns:
            This pipeline.

        Raises:
            ParameterError: If a node or parameter is unknown; the message suggests the nearest name.
        """
        for key, value in changes.items():
            node, dot, parameter = key.partition(".")
            if not dot or node not in self.nodes:
                raise ParameterError(f"{key}: no such node in pipeline {self.name}; {nearest(node, self.nodes)}")
            self.nodes[node].with_parameters({parameter: value})
        return self

    def rebuilt_by(self, function: Any, *arguments: Any) -> Pipeline:
        """Pickle this pipeline as a function call that rebuilds it in another process.

        The user's functions live in a file that other processes can load but pickle cannot reference.

        Args:
            function: Function that returns the pipeline.
            *arguments: Arguments of the function.

        Returns:
            This pipeline.
        """
        self._rebuild = (function, arguments)
        return self

    def __reduce__(self) -> Any:
        return self._rebuild or (Pipeline, (self.name, list(self.nodes.values())))

    def _sorted(self) -> list[str]:
        sorter = graphlib.TopologicalSorter({name: self.upstream(name) for name in self.nodes})
        try:
            sorter.prepare()
        except graphlib.CycleError as error:
            raise WiringError(f"pipeline {self.name}: a cycle, {' <- '.join(error.args[1])}") from None
        position = {name: index for index, name in enumerate(self.nodes)}
        order: list[str] = []
        while sorter.is_active():
            ready = sorted(sorter.get_ready(), key=position.__getitem__)
            order.extend(ready)
            sorter.done(*ready)
        return order


def _with_producers(nodes: Iterable[Component]) -> list[Component]:
    """Return the components and all their upstream components, without duplicates, in order of discovery."""
    found: dict[int, Component] = {}
    waiting = list(nodes)
    while waiting:
        node = waiting.pop(0)
        if not isinstance(node, Component):
            raise WiringError(f"a pipeline's nodes are components, {type(node).__name__} given")
        if id(node) not in found:
            found[id(node)] = node
            waiting.extend(c.producer for c in node.inputs.values() if isinstance(c, Channel))
    return list(found.values())


def _checked_name(what: str, name: str) -> str:
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_.-]*", name):
        raise WiringError(f"{what} {name!r}: a name begins with a letter and has letters, digits, '_', '-', '.'")
    return name
