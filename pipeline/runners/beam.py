"""The default orchestrator: the nodes of the DAG are the steps of a Beam pipeline.

A row of nodes that do not depend on each other (see `Pipeline.waves`) becomes one PCollection of their names. The step
of each node filters it for its own name. The names that the steps of a row yield are a side input of the steps of the
next row, which therefore wait for them. If a row of one node follows a row of one node, its step takes the output of
the other, and Beam fuses both. Beam moves only names: a node reads its inputs from the metadata store and the artifact
root. A failed node is a record, not an exception, so that independent branches continue.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence

import apache_beam as beam

from kerasline.components.data.fold import new_pipeline
from kerasline.pipeline.executor import Executor
from kerasline.pipeline.metadata.store import Execution


def run(executor: Executor, nodes: Sequence[str], beam_options: Sequence[str]) -> None:
    """Execute the nodes in dependency order, independent ones in parallel.

    Args:
        executor: Executes a node and records the result.
        nodes: Names of the nodes in topological order.
        beam_options: Options for Beam. With the `--runner` of an engine, the nodes are executed there. The options of
            the direct runner only apply to the stages' own pipelines: here its workers are threads, as many as the
            widest row has nodes.
    """
    rows = executor.pipeline.waves(nodes)
    before_us = _recorded(executor)
    pipeline = new_pipeline(_orchestrator_options(beam_options, max(map(len, rows))))
    done: beam.PCollection | None = None
    for number, names in enumerate(rows):
        before = rows[number - 1] if number else []
        if len(names) == len(before) == 1:
            done = done | names[0] >> beam.ParDo(_Node(executor, names[0], before[0], before_us))
            continue
        # Reshuffling distributes the names over workers. A single name does not need it.
        turn = pipeline | f"Row {number}" >> beam.Create(names, reshuffle=len(names) > 1)
        waits = [] if done is None else [beam.pvalue.AsList(done)]
        nodes_of_row = [_Node(executor, name, name, before_us) for name in names]
        steps = [turn | node.name >> beam.ParDo(node, *waits) for node in nodes_of_row]
        done = steps | f"Row {number} done" >> beam.Flatten() if len(steps) > 1 else steps[0]
    pipeline.run().wait_until_finish()


class _Node(beam.DoFn):
    """The step of one node: execute it when triggered, and yield its name.

    Args:
        recorded: the execution of this run that was recorded before this orchestration, by node.
    """

    def __init__(self, executor: Executor, name: str, trigger: str, recorded: Mapping[str, Execution]) -> None:
        self.name = name
        self._executor = executor
        self._trigger = trigger
        self._folder = os.getcwd()
        self._before = recorded[name].id if name in recorded else None

    def setup(self) -> None:
        """Change to the user's working directory on remote workers, so that relative paths stay valid."""
        if os.getcwd() != self._folder and os.path.isdir(self._folder):
            os.chdir(self._folder)

    def process(self, name: str, _before: Sequence[str] = ()) -> Iterable[str]:
        if name == self._trigger:
            if not self._is_done():
                self._executor.execute(self.name)
            yield self.name

    def _is_done(self) -> bool:
        """Return whether the node was already executed. An engine repeats the work of a lost worker."""
        found = _recorded(self._executor).get(self.name)
        return found is not None and found.state in ("ran", "cached") and found.id != self._before


def _recorded(executor: Executor) -> dict[str, Execution]:
    return {execution.node: execution for execution in executor.store.executions(executor.run_id)}


def _orchestrator_options(options: Sequence[str], width: int) -> list[str]:
    """Return the options of the orchestrating pipeline: one thread for each node of the widest row."""
    remaining = [option for option in options if not option.startswith(("--direct_", "--parallelism="))]
    if any(option.startswith("--parallelism=") for option in options):
        remaining.append(f"--parallelism={width}")
    if width > 1:
        remaining += [f"--direct_num_workers={width}", "--direct_running_mode=multi_threading"]
    return remaining
