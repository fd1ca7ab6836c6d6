"""Map and merge over shards with Beam. The elements are small, such as names of shards. Rows stay in their files.

Accumulators are merged along one fixed binary tree over the elements, in whatever order they arrive. So the result is
the same to the last bit on every runner and with any number of workers, although floating-point sums depend on their
order. Subtrees whose sibling has not arrived wait; their number is logarithmic if elements arrive in order.
"""

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

from kerasline.components.core.atomic_files import atomic_write
from kerasline.components.core.component import Context
from kerasline.components.core.errors import KeraslineError
from kerasline.components.core.import_path import package_root
from kerasline.components.core.user_code import import_file, imported_files
from kerasline.components.data.beam_runners import runs_locally, without_runner

# Without this, Beam runs `pip freeze` before each job, to compare it with the workers': half a second.
QUICK_START = "--experiments=disable_logging_submission_environment"
RUNS_PER_WORKER = 4
DEFAULT_ENGINE_WORKERS = 16  # if the options do not say
RUNS_PER_PART = 64  # merged by one worker

Element = TypeVar("Element")
Accumulator = TypeVar("Accumulator")


def new_pipeline(options: Sequence[str]) -> beam.Pipeline:
    """Return a pipeline on the runner that `options` name, by default in this process."""
    _export_import_path()
    runner, parsed = runner_and_options(options)
    return beam.Pipeline(runner=runner, options=parsed)


def runner_and_options(options: Sequence[str]) -> tuple[PipelineRunner | None, PipelineOptions]:
    """Return the runner that `options` name, or None if it is among the returned options.

    Beam's own default would first try its Prism runner, which downloads a binary.
    """
    if not runs_locally(options):
        return None, PipelineOptions([*options, QUICK_START])
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner

    return FnApiRunner(), PipelineOptions(without_runner(options))


def fold(
    elements: Iterable[Element],
    accumulate: Callable[[Element], Accumulator],
    merge: Callable[[Accumulator, Accumulator], Accumulator],
    context: Context,
    *,
    in_process: bool = False,
) -> Accumulator | None:
    """Map each element to an accumulator, on Beam's workers, and merge the accumulators.

    Args:
        elements: small and picklable, such as names of shards or ranges of rows.
        accumulate: picklable function. It reads the data that an element names, on any worker.
        merge: associative function. It may modify and return its first argument. It is called along one fixed tree over
            the elements, so that the result is the same on every runner.
        context: `work_dir` must be visible to the workers. `beam_options` choose the runner.
        in_process: run in this process, without Beam. For work that takes less time than starting an engine.

    Returns:
        The merged accumulator, or None if there are no elements.

    Raises:
        KeraslineError: raised by `accumulate`, in whatever process.
    """
    elements = list(elements)
    if not elements:
        return None
    packed = _PickledFunctions.of((accumulate, merge))
    parts = [_accumulate(0, elements, packed)] if in_process else _on_beam(elements, packed, context)
    merged = _merge_parts(parts, merge)
    if isinstance(merged, KeraslineError):
        raise merged
    return _merge_subtrees(merged, merge)


def _on_beam(elements: Sequence[Any], packed: _PickledFunctions, context: Context) -> Iterable[_Result]:
    """Return the results of all parts, in their order.

    Workers write them to files. Merging them by Beam and writing them by one worker would take longer.
    """
    folder = context.work_dir / f"fold-{uuid.uuid4().hex}"
    folder.mkdir(parents=True)
    pipeline = new_pipeline(context.beam_options)
    parts = _group_runs(_divide(elements, _workers(context.beam_options)))
    results = (
        pipeline | beam.Create(parts) | "Accumulate" >> beam.MapTuple(functools.partial(_pickled_result, packed=packed))
    )
    numbers = {number for number, _ in parts}
    if len(numbers) < len(parts):
        results |= "Merge" >> (beam.GroupByKey() | beam.MapTuple(functools.partial(_merge_group, packed=packed)))
    results | "Write" >> beam.MapTuple(functools.partial(_write, folder=folder))
    pipeline.run().wait_until_finish()
    return (pickle.loads(_file(folder, number).read_bytes()) for number in sorted(numbers))


def move_files(names: Iterable[str], source: Path, target: Path) -> None:
    """Move the named files from the folder where workers wrote them, and nothing else.

    Incomplete files of a worker that an engine lost stay behind. A lost worker that still runs writes to a folder that
    is no longer read.
    """
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.move(source / name, target / name)


@dataclass(frozen=True)
class _PickledFunctions:
    """The two functions of a fold, for workers that have not imported the user's files."""

    pickled: bytes
    files: tuple[Path, ...]

    @classmethod
    def of(cls, functions: tuple[Callable, Callable]) -> _PickledFunctions:
        return cls(pickle.dumps(functions), imported_files())

    def functions(self) -> tuple[Callable, Callable]:
        return _unpickle(self)


@functools.lru_cache(maxsize=16)
def _unpickle(packed: _PickledFunctions) -> tuple[Callable, Callable]:
    for file in packed.files:
        import_file(file)
    return pickle.loads(packed.pickled)


# Consecutive elements: the index of the first, and the elements.
_Run = tuple[int, Sequence[Any]]
# An accumulator of 2**level elements, by (level, index of the subtree on that level).
Nodes = dict[tuple[int, int], Any]
# Accumulators of some elements, or the user's error that stopped them. Errors are passed as values, because Beam would
# change the type and text of an exception.
_Result = Nodes | KeraslineError


def _workers(options: Sequence[str]) -> int:
    """Return the number of workers of the runner, as far as its options say."""
    if runs_locally(options):
        return int(PipelineOptions(list(options)).get_all_options()["direct_num_workers"]) or os.cpu_count() or 1
    requested = [option.partition("=")[2] for option in options if option.startswith("--parallelism=")]
    return max(map(int, filter(str.isdigit, requested)), default=DEFAULT_ENGINE_WORKERS) or DEFAULT_ENGINE_WORKERS


def _divide(elements: Sequence[Any], workers: int) -> list[_Run]:
    """Divide the elements into runs of equal length, a power of two, so that each run is a complete subtree.

    There are a few runs for each worker, to balance their load, but no more, because accumulators are transferred.
    """
    length = 1
    while len(elements) > length * workers * RUNS_PER_WORKER:
        length *= 2
    return [(start, elements[start : start + length]) for start in range(0, len(elements), length)]


def _group_runs(runs: Sequence[_Run]) -> list[tuple[int, _Run]]:
    """Return each run with the number of its part. A worker merges the accumulators of a part.

    If there are few runs, each is a part. Otherwise a part is a power of two of neighbours, a complete subtree.
    """
    length = RUNS_PER_PART if len(runs) > RUNS_PER_PART else 1
    return [(number // length, run) for number, run in enumerate(runs)]


def _pickled_result(part: int, run: _Run, packed: _PickledFunctions) -> tuple[int, bytes]:
    """Return a part's number and result as bytes. Beam's coder of other objects sometimes failed with two threads."""
    return part, pickle.dumps(_accumulate(*run, packed))


def _accumulate(start: int, elements: Sequence[Any], packed: _PickledFunctions) -> _Result:
    accumulate, merge = packed.functions()
    nodes: Nodes = {}
    try:
        for number, element in enumerate(elements, start):
            _insert(nodes, 0, number, accumulate(element), merge)
    except KeraslineError as error:
        return error
    return nodes


def _merge_group(part: int, pickled: Iterable[bytes], packed: _PickledFunctions) -> tuple[int, bytes]:
    _, merge = packed.functions()
    return part, pickle.dumps(_merge_parts(map(pickle.loads, pickled), merge))


def _merge_parts(parts: Iterable[_Result], merge: Callable) -> _Result:
    nodes: Nodes = {}
    for part in parts:
        if isinstance(part, KeraslineError):
            return part
        for (level, index), accumulator in part.items():
            _insert(nodes, level, index, accumulator, merge)
    return nodes


def _insert(nodes: Nodes, level: int, index: int, accumulator: Any, merge: Callable) -> None:
    """Add a subtree, and merge it with its sibling, and so on up the tree, while siblings are present."""
    while (level, index ^ 1) in nodes:
        sibling = nodes.pop((level, index ^ 1))
        pair = (accumulator, sibling) if index % 2 == 0 else (sibling, accumulator)
        accumulator, level, index = merge(*pair), level + 1, index // 2
    nodes[level, index] = accumulator


def _merge_subtrees(nodes: Nodes, merge: Callable) -> Any:
    """Merge the subtrees that are left, in order, if the number of elements is not a power of two."""
    ordered = [nodes[key] for key in sorted(nodes, key=lambda key: key[1] << key[0])]
    return functools.reduce(merge, ordered)


def _write(part: int, pickled: bytes, folder: Path) -> None:
    with atomic_write(_file(folder, part)) as temporary:  # an engine may run this twice, even concurrently
        temporary.write_bytes(pickled)


def _file(folder: Path, part: int) -> Path:
    return folder / f"{part}.pickle"


def _export_import_path() -> None:
    """Let Beam's worker processes, which inherit only the environment, import this package."""
    root, paths = package_root(), os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if root and root not in paths:
        os.environ["PYTHONPATH"] = os.pathsep.join([*filter(None, paths), root])
