"""Load a version: the model, its warm-up, and which of its signatures may be batched."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kerasline.components.models.graph_operations import GraphOperations
from kerasline.components.models.row_independence import row_dependence
from kerasline.components.models.session import SavedModelSession
from kerasline.components.models.signatures import read_meta_graph
from kerasline.components.models.versions import find_difference
from kerasline.components.serving.runtime import warmup
from kerasline.components.serving.runtime.errors import RequestError, unavailable
from kerasline.components.serving.runtime.generations import StreamedModel
from kerasline.components.serving.runtime.settings import Batching, BatchSettings


@dataclass(frozen=True)
class LoadedModel:
    """A model that is ready to answer.

    Attributes:
        session: the model.
        seconds: execution time of one row by signature, where the shapes of the inputs bound it.
        batched: the signatures that execute the requests of several clients together.
        unbatched: why other signatures do not, although their shapes allow it, by name.
        streamed: the signatures by which it generates answers token by token, or None.
    """

    session: SavedModelSession
    seconds: Mapping[str, float]
    batched: frozenset[str]
    unbatched: Mapping[str, str]
    streamed: StreamedModel | None


def load_model(folder: Path, batch: BatchSettings, *, is_safe: bool = False) -> LoadedModel:
    """Load a SavedModel and execute its signatures.

    Args:
        is_safe: refuse a graph with operations that access files or processes, before anything is executed.

    Raises:
        RequestError: the graph is refused; the files differ from their digests, because they are being copied or are
            damaged; or a recorded warm-up request is damaged.
        KeraslineError: the folder contains no SavedModel, or a library of operations is not installed.
        Exception: TensorFlow cannot load the model, or the model rejects a recorded request.
    """
    if difference := find_difference(folder):
        raise unavailable(f"{folder} is incomplete or damaged: {difference}")
    operations = GraphOperations(read_meta_graph(folder))
    if is_safe and (found := operations.outside_access()):
        message = f"{folder} has operations that access files or processes, which --safe refuses: {', '.join(found)}"
        raise RequestError("PERMISSION_DENIED", message)
    session = SavedModelSession(folder)
    try:
        stateless = [name for name, one in session.signatures.items() if not operations.state_changes(one)]
        warm = warmup.warm_up(session, folder, invent=stateless)
        batchable = [one for one in session.signatures.values() if one.is_batchable and batch.mode is not Batching.OFF]
        unbatched: dict[str, str] = {}
        for signature in batchable if batch.mode is Batching.AUTO else ():
            call, recorded = functools.partial(session.call, signature), warm.recorded.get(signature.name, ())
            why = row_dependence(call, signature, operations, recorded, batch_rows=batch.rows)
            if why is not None:
                unbatched[signature.name] = why
        batched = frozenset(one.name for one in batchable if one.name not in unbatched)
        seconds = {
            name: value for name, value in warm.seconds.items() if operations.has_bounded_time(session.signatures[name])
        }
        streamed = None if session.stream is None else StreamedModel(session, session.stream)
        if streamed is not None:
            streamed.warm_up(batch.slots)
        return LoadedModel(session, seconds, batched, unbatched, streamed)
    except BaseException:
        session.close()
        raise
