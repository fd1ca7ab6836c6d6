"""Beam pipelines over names of shards: the elements are small, the rows stay in their files."""

from __future__ import annotations

import pickle
import uuid
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from components.base import Context
from components.errors import KeraslineError

Element = TypeVar("Element")
Accumulator = TypeVar("Accumulator")


def new_pipeline(options: Sequence[str]) -> beam.Pipeline:
    """A pipeline on the runner that `options` name, by default in this process.

    Beam's own default would first try its Prism runner, which downloads a binary when it runs.
    """
    if any(option.startswith("--runner") and "DirectRunner" not in option for option in options):
        return beam.Pipeline(options=PipelineOptions(list(options)))
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner

    rest = [option for option in options if not option.startswith("--runner")]
    return beam.Pipeline(runner=FnApiRunner(), options=PipelineOptions(rest))


def fold(
    elements: Iterable[Element],
    accumulate: Callable[[Element], Accumulator],
    merge: Callable[[Accumulator, Accumulator], Accumulator],
    context: Context,
) -> Accumulator | None:
    """Maps every element to an accumulator, wherever Beam has room, and merges them into one.

    Args:
        elements: small and picklable: names of shards, ranges of rows.
        accumulate: picklable; reads what the element names, on whatever machine it lands.
        merge: associative and commutative; may change and return its first argument.
        context: its `work_dir` must be visible to the workers; its `beam_options` choose the runner.

    Returns:
        The merged accumulator; None where there are no elements.

    Raises:
        KeraslineError: the one that `accumulate` raised, whatever process it was in.
    """
    elements = list(elements)
    if not elements:
        return None
    result = context.work_dir / f"fold-{uuid.uuid4().hex}.pickle"
    pipeline = new_pipeline(context.beam_options)
    (
        pipeline
        | beam.Create(elements)
        | "Accumulate" >> beam.Map(_guarded, accumulate)
        | "Merge" >> beam.CombineGlobally(_Merge(merge)).without_defaults()
        | "Keep" >> beam.Map(_dump, str(result))
    )
    pipeline.run().wait_until_finish()
    merged = pickle.loads(result.read_bytes())
    if isinstance(merged, KeraslineError):
        raise merged
    return merged


def _guarded(element: Any, accumulate: Callable[[Any], Any]) -> Any:
    """Carries a user's mistake as a value: as an exception Beam would change its type and text."""
    try:
        return accumulate(element)
    except KeraslineError as error:
        return error


class _Merge(beam.CombineFn):
    def __init__(self, merge: Callable[[Any, Any], Any]) -> None:
        self._merge = merge

    def create_accumulator(self) -> Any:
        return None

    def add_input(self, accumulator: Any, value: Any) -> Any:
        if accumulator is None or isinstance(value, KeraslineError):
            return value
        if isinstance(accumulator, KeraslineError):
            return accumulator
        return self._merge(accumulator, value)

    def merge_accumulators(self, accumulators: Iterable[Any]) -> Any:
        merged = None
        for accumulator in accumulators:
            if accumulator is not None:
                merged = self.add_input(merged, accumulator)
        return merged

    def extract_output(self, accumulator: Any) -> Any:
        return accumulator


def _dump(accumulator: Any, path: str) -> None:
    Path(path).write_bytes(pickle.dumps(accumulator))
