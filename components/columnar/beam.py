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

from components.base import Context
from components.columnar.runners import runs_here, without_runner
from components.errors import KeraslineError
from components.syncing import replaced
from components.user_code import import_file, imported_files

_HOUSE = Path(__file__).resolve().parents[2]
# Beam would run `pip freeze` before each job, to have a list to compare with what workers have: half a second.
QUICK_START = "--experiments=disable_logging_submission_environment"
RUNS_A_WORKER = 4
AN_ENGINES_WORKERS = 16  # where its options do not tell
RUNS_A_BLOCK = 64  # that one worker merges

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
    if here:
        _, nodes = _guarded((0, (0, elements)), packed)
        merged = pickle.loads(_Merge(packed).extract_output(nodes))
    else:
        merged = _on_beam(elements, packed, context)
    if isinstance(merged, KeraslineError):
        raise merged
    return merged


def _on_beam(elements: Sequence[Any], packed: _Packed, context: Context) -> Any:
    """The merged accumulator, or the user's mistake."""
    result = context.work_dir / f"fold-{uuid.uuid4().hex}.pickle"
    pipeline = new_pipeline(context.beam_options)
    runs = _runs(elements, _workers(context.beam_options))
    accumulated = pipeline | beam.Create(_in_blocks(runs)) | "Accumulate" >> beam.Map(_guarded, packed)
    if len(runs) > RUNS_A_BLOCK:  # else one worker's work is no bottleneck, and the shuffle would cost more
        accumulated |= "Merge blocks" >> beam.CombinePerKey(_MergeBlock(packed))
    (
        accumulated
        | beam.Values()
        | "Merge" >> beam.CombineGlobally(_Merge(packed)).without_defaults()
        | "Keep" >> beam.Map(_dump, str(result))
    )
    pipeline.run().wait_until_finish()
    return pickle.loads(result.read_bytes())


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
# An accumulator that stands for 2**level elements, from the place-th such run of them on.
_Nodes = dict[tuple[int, int], Any]


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


def _in_blocks(runs: Sequence[_Run]) -> list[tuple[int, _Run]]:
    """Runs by the number of their block: neighbours, a power of two of them, so that a block is a whole subtree."""
    return [(number // RUNS_A_BLOCK, run) for number, run in enumerate(runs)]


def _guarded(blocked: tuple[int, _Run], packed: _Packed) -> tuple[int, bytes]:
    """The block, and the pickled nodes of a run, or the user's mistake that ended it.

    A mistake is carried as a value: as an exception Beam would change its type and text. And all
    that travels is bytes: Beam's coder of other objects failed at times where two threads used it.
    """
    block, (start, elements) = blocked
    accumulate, merge = packed.functions()
    nodes: _Nodes = {}
    try:
        for number, element in enumerate(elements, start):
            _insert(nodes, 0, number, accumulate(element), merge)
    except KeraslineError as error:
        return block, pickle.dumps(error)
    return block, pickle.dumps(nodes)


def _insert(nodes: _Nodes, level: int, place: int, accumulator: Any, merge: Callable) -> None:
    """Adds a node and merges it with its neighbour, and so on up the tree, as far as they are there."""
    while (level, place ^ 1) in nodes:
        other = nodes.pop((level, place ^ 1))
        pair = (accumulator, other) if place % 2 == 0 else (other, accumulator)
        accumulator, level, place = merge(*pair), level + 1, place // 2
    nodes[level, place] = accumulator


class _Merge(beam.CombineFn):
    """Merges along one fixed binary tree over the elements' numbers, whatever order they come in.

    So the result is the same to the last bit on every runner and with any number of workers,
    though floating-point sums depend on their order. Only whole subtrees are merged at once; those
    whose neighbours are still to come wait, a logarithm of them where work is done in order.
    """

    def __init__(self, packed: _Packed) -> None:
        self._packed = packed

    def create_accumulator(self) -> _Nodes | KeraslineError:
        return {}

    def add_input(self, nodes: Any, more: Any) -> _Nodes | KeraslineError:
        more = _unpickled(more)
        for part in (nodes, more):
            if isinstance(part, KeraslineError):
                return part
        merge = self._packed.functions()[1]
        for (level, place), accumulator in more.items():
            _insert(nodes, level, place, accumulator, merge)
        return nodes

    def compact(self, nodes: _Nodes | KeraslineError) -> bytes:
        return pickle.dumps(nodes)

    def merge_accumulators(self, accumulators: Iterable[Any]) -> _Nodes | KeraslineError:
        return functools.reduce(self.add_input, accumulators, {})

    def extract_output(self, nodes: Any) -> bytes:
        nodes = _unpickled(nodes)
        if isinstance(nodes, KeraslineError):
            return pickle.dumps(nodes)
        # The subtrees left over, where the number of elements is no power of two, in their order.
        ordered = [nodes[key] for key in sorted(nodes, key=lambda key: key[1] << key[0])]
        return pickle.dumps(functools.reduce(self._packed.functions()[1], ordered))


class _MergeBlock(_Merge):
    """Merges a block's runs, for the merge of all to go on with: thousands of accumulators are too much for one."""

    def extract_output(self, nodes: Any) -> bytes:
        return pickle.dumps(_unpickled(nodes))


def _unpickled(nodes: Any) -> _Nodes | KeraslineError:
    return pickle.loads(nodes) if isinstance(nodes, bytes) else nodes  # runners need not compact


def _dump(pickled: bytes, path: str) -> None:
    with replaced(Path(path)) as aside:  # an engine that lost a worker may do this twice, even at once
        aside.write_bytes(pickled)


def _let_workers_import_us() -> None:
    """Beam's worker processes begin with the environment and nothing else."""
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if str(_HOUSE) not in paths:
        os.environ["PYTHONPATH"] = os.pathsep.join([str(_HOUSE), *filter(None, paths)])
