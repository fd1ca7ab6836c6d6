"""Send events in order in the background. A receiver can neither fail nor long delay the run."""

from __future__ import annotations

import logging
import queue
import threading
import time
from typing import Any

LOG = logging.getLogger("kerasline")


class Sender:
    """Sends events with OpenLineage's client in a thread. Only the first failure is logged."""

    def __init__(self) -> None:
        self._events: queue.Queue[Any] = queue.Queue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._has_warned = False

    def send(self, event: Any) -> None:
        """Queue an event and return immediately."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="openlineage", daemon=True)
                self._thread.start()
        self._events.put(event)

    def wait(self, seconds: float) -> bool:
        """Wait until all events are sent or the timeout expires. Return whether all were sent."""
        end = time.monotonic() + seconds
        with self._events.all_tasks_done:
            while self._events.unfinished_tasks and (left := end - time.monotonic()) > 0:
                self._events.all_tasks_done.wait(left)
            return not self._events.unfinished_tasks

    def close(self, seconds: float) -> None:
        """Wait a last time, then discard events that are still unsent."""
        if not self.wait(seconds):
            self._warn(f"{self._events.unfinished_tasks} events not delivered in {seconds} s at the run's end")

    def _work(self) -> None:
        client = None
        while True:
            event = self._events.get()
            try:
                client = client or _client()
                client.emit(event)
            except Exception as error:
                self._warn(f"events are not delivered: {_reason(error)}")
            finally:
                self._events.task_done()

    def _warn(self, text: str) -> None:
        if not self._has_warned:
            self._has_warned = True
            LOG.warning("OpenLineage: %s", text)


def _client() -> Any:
    from openlineage.client import OpenLineageClient

    return OpenLineageClient()


def _reason(error: Exception) -> str:
    """Return the reason without the URL, which may contain a secret."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return type(error).__name__ if status is None else f"the receiver answered {status}"
