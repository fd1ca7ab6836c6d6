"""Notify the configured observers of the course of a run.

The stages of a run may execute in several processes. Each process finds its observers in its own environment, so that
no configuration, and above all no secret, is sent from one to another.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence

from kerasline.pipeline.dag import Pipeline
from kerasline.pipeline.metadata.records import Execution
from kerasline.pipeline.observers.observer import Observer, RunNotice

LOG = logging.getLogger("kerasline")


def observers(webhook: str | None = None) -> tuple[Observer, ...]:
    """Return the observers of this process, and one for the webhook if there is a URL.

    Raises:
        ParameterError: the webhook is not an HTTP URL.
    """
    found = _from_environment(os.getpid())
    if webhook is None:
        return found
    from kerasline.pipeline.observers.webhook import Webhook

    return (*found, Webhook(webhook))


@contextlib.contextmanager
def notified(
    run: RunNotice, receivers: Sequence[Observer], executions: Callable[[], Sequence[Execution]]
) -> Iterator[Callable[[str], None]]:
    """Notify the receivers of the start of the run, and of its end when the block ends.

    Args:
        run: the run at its start.
        executions: returns what was executed; called at the end.

    Yields:
        A function that takes the final state. Without a call of it, the run has failed.
    """
    clock, state, message = time.perf_counter(), ["failed"], None
    _notify(receivers, "run_began", run)
    try:
        yield lambda final: state.append(final)
    except KeyboardInterrupt:
        state.append("interrupted")
        message = "interrupted"
        raise
    except Exception as error:
        state.append("failed")
        message = str(error)
        raise
    finally:
        seconds = time.perf_counter() - clock
        done: Sequence[Execution] = ()
        if receivers:
            with contextlib.suppress(Exception):  # the metadata store itself may have failed
                done = [execution for execution in executions() if execution.node in run.selected]
        ended = dataclasses.replace(run, seconds=seconds, state=state[-1], executions=done, message=message)
        _notify(receivers, "run_ended", ended)


def stage_began(pipeline: Pipeline, execution: Execution) -> None:
    _notify(observers(), "stage_began", pipeline, execution)


def stage_ended(pipeline: Pipeline, execution: Execution) -> None:
    _notify(observers(), "stage_ended", pipeline, execution)


@functools.cache
def _from_environment(_process: int) -> tuple[Observer, ...]:
    """Create the observers once per process. A fork creates its own, because threads do not survive a fork."""
    from kerasline.pipeline.observers.openlineage import OpenLineage, is_configured

    try:
        return (OpenLineage(),) if is_configured(os.environ) else ()
    except ImportError as error:
        LOG.warning("OpenLineage: no events are sent; %s is missing: pip install 'kerasline[openlineage]'", error.name)
        return ()


def _notify(receivers: Sequence[Observer], event: str, *facts: object) -> None:
    for observer in receivers:
        try:
            getattr(observer, event)(*facts)
        except Exception:
            LOG.warning("%s failed to process %s", type(observer).__name__, event, exc_info=True)
