"""Beam pipelines over names of shards: the elements are small, the rows stay in their files."""

from __future__ import annotations

import functools
import os
import pickle
import shutil
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.runner import PipelineRunner

from kerasline.components.core.component import Context
from kerasline.components.core.durable_files import replaced
from kerasline.components.core.errors import KeraslineError
from kerasline.components.core.import_path import package_root
from kerasline.components.core.user_code import import_file, imported_files
from kerasline.components.data import merge_tree
from kerasline.components.data.beam_runners import runs_here, without_runner

# Beam would run `pip freeze` before each job, to have a list to compare with what workers have: half a second.
QUICK_START = "--experiments=disable_logging_submission_environment"
RUNS_A_WORKER = 4
AN_ENGINES_WORKERS = 16  # where its options do not tell
RUNS_A_PART = 64  # that one worker merges

Element = TypeVar("Element")
Accumulator = TypeVar("Accumulator")


def new_pipeline(options: Sequence[str]) -> beam.Pipeline:
    """A pipeline on the runner that `options` name, by default in this process."""
    _let_workers_import_us()
    runner, parsed = runner_and_options(options)
    return beam.Pipeline(runner=runner, options=parsed)


def runner_and_options(options: Sequence[str]) -> tuple[PipelineRunner | None, PipelineOptions]:
    """The runner that `options` name, None where it is among the options returned.

    Beam's own default would first try its Prism runner, which downloads a binary when it runs.
    """
    if not runs_here(options):
        return None, PipelineOptions([*options, QUICK_START])
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner

    return FnApiRunner(), PipelineOptions(without_runner(options))


def fold(
    elements: Iterable[Element],
    accumulate: Callable[[Element], Accumulator],
    merge: Callable[[Accumulator, Accumulator], Accumulator],
    context: Context,
    *,
    here: bool = False,
) -> Accumulator | None:
    """Maps every element to an accumulator, wherever Beam has room, and merges them into one.

    Args:
        elements: small and picklable: names of shards, ranges of rows.
        accumulate: picklable; reads what the element names, on whatever machine it lands.
        merge: associative; may change and return its first argument. It is called along one fixed
            tree over the elements, so that the result is the same on every runner.
        context: its `work_dir` must be visible to the workers; its `beam_options` choose the runner.
        here: in this process, without Beam; for what takes less time than an engine takes to begin.

    Returns:
        The merged accumulator; None where there are no elements.

    Raises:
        KeraslineError: the one that `accumulate` raised, whatever process it was in.
    """
    elements = list(elements)
    if not elements:
        return None
    packed = _Packed.of((accumulate, merge))
    parts = [_accumulated(0, elements, packed)] if here else _on_beam(elements, packed, context)
    found = _joined(parts, merge)
    if isinstance(found, KeraslineError):
        raise found
    return merge_tree.whole(found, merge)


def _on_beam(elements: Sequence[Any], packed: _Packed, context: Context) -> Iterable[_Found]:
    """What came of all parts of the elements, in their order.

    Workers leave it in files: to have Beam merge it, and hand it to one worker that writes it, costs a job more
    time than to read them.
    """
    folder = context.work_dir / f"fold-{uuid.uuid4().hex}"
    folder.mkdir(parents=True)
    pipeline = new_pipeline(context.beam_options)
    parts = _in_parts(_runs(elements, _workers(context.beam_options)))
    found = pipeline | beam.Create(parts) | "Accumulate" >> beam.MapTuple(functools.partial(_pickled, packed=packed))
    numbers = {number for number, _ in parts}
    if len(numbers) < len(parts):
        found |= "Merge" >> (beam.GroupByKey() | beam.MapTuple(functools.partial(_merged, packed=packed)))
    found | "Keep" >> beam.MapTuple(functools.partial(_keep, folder=folder))
    pipeline.run().wait_until_finish()
    return (pickle.loads(_file(folder, number).read_bytes()) for number in sorted(numbers))


def take(names: Iterable[str], source: Path, target: Path) -> None:
    """Moves files that workers wrote in a folder of their own to where they belong, and nothing else.

    Where an engine lost a worker, what it left half done stays behind; and a worker that was given up but still
    runs writes into a folder that nobody reads any more.
    """
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.move(source / name, target / name)


@dataclass(frozen=True)
class _Packed:
    """The two functions of a fold, on their way to workers that have not imported the user's files."""

    pickled: bytes
    files: tuple[Path, ...]

    @classmethod
    def of(cls, functions: tuple[Callable, Callable]) -> _Packed:
        return cls(pickle.dumps(functions), imported_files())

    def functions(self) -> tuple[Callable, Callable]:
        return _unpacked(self)


@functools.lru_cache(maxsize=16)
def _unpacked(packed: _Packed) -> tuple[Callable, Callable]:
    for file in packed.files:
        import_file(file)
    return pickle.loads(packed.pickled)


# Elements in a row: the place of the first among all, and the elements.
_Run = tuple[int, Sequence[Any]]
# What came of some elements: their accumulators, or the user's mistake that ended it. A mistake is carried as a
# value: as an exception Beam would change its type and text.
_Found = merge_tree.Nodes | KeraslineError


def _workers(options: Sequence[str]) -> int:
    """How many workers the runner has, as far as its options say."""
    if runs_here(options):
        return int(PipelineOptions(list(options)).get_all_options()["direct_num_workers"]) or os.cpu_count()
    asked = [option.partition("=")[2] for option in options if option.startswith("--parallelism=")]
    return max(map(int, filter(str.isdigit, asked)), default=AN_ENGINES_WORKERS) or AN_ENGINES_WORKERS


def _runs(elements: Sequence[Any], workers: int) -> list[_Run]:
    """The elements in runs of equal length, a power of two, so that each is a whole subtree.

    Some runs for each worker, to even out their pace; and no more, because accumulators travel.
    """
    length = 1
    while len(elements) > length * workers * RUNS_A_WORKER:
        length *= 2
    return [(start, elements[start : start + length]) for start in range(0, len(elements), length)]


def _in_parts(runs: Sequence[_Run]) -> list[tuple[int, _Run]]:
    """Runs by the number of the part whose accumulators are merged by a worker: each by itself where they are few.

    Else, of thousands, a power of two of neighbours each, so that a part is a whole subtree.
    """
    length = RUNS_A_PART if len(runs) > RUNS_A_PART else 1
    return [(number // length, run) for number, run in enumerate(runs)]


def _pickled(part: int, run: _Run, packed: _Packed) -> tuple[int, bytes]:
    """All that travels is bytes: Beam's coder of other objects failed at times where two threads used it."""
    return part, pickle.dumps(_accumulated(*run, packed))


def _accumulated(start: int, elements: Sequence[Any], packed: _Packed) -> _Found:
    accumulate, merge = packed.functions()
    nodes: merge_tree.Nodes = {}
    try:
        for number, element in enumerate(elements, start):
            merge_tree.insert(nodes, 0, number, accumulate(element), merge)
    except KeraslineError as error:
        return error
    return nodes


def _merged(part: int, pickled: Iterable[bytes], packed: _Packed) -> tuple[int, bytes]:
    _, merge = packed.functions()
    return part, pickle.dumps(_joined(map(pickle.loads, pickled), merge))


def _joined(parts: Iterable[_Found], merge: Callable) -> _Found:
    nodes: merge_tree.Nodes = {}
    for part in parts:
        if isinstance(part, KeraslineError):
            return part
        merge_tree.add(nodes, part, merge)
    return nodes


def _keep(part: int, pickled: bytes, folder: Path) -> None:
    with replaced(_file(folder, part)) as aside:  # an engine that lost a worker may do this twice, even at once
        aside.write_bytes(pickled)


def _file(folder: Path, part: int) -> Path:
    return folder / f"{part}.pickle"


def _let_workers_import_us() -> None:
    """Beam's worker processes begin with the environment and nothing else."""
    root, paths = package_root(), os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if root and root not in paths:
        os.environ["PYTHONPATH"] = os.pathsep.join([*filter(None, paths), root])
