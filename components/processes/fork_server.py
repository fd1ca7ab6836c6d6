"""Processes that are forked from one that has already imported what they need."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable, Sequence
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from typing import Any


class ForkServer:
    """Starts processes in a tenth of a second, with their imports in shared memory.

    Args:
        preload: modules to import once. None of them may start a thread when imported.
    """

    def __init__(self, preload: Sequence[str]) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(list(preload))
        forkserver.ensure_running()
        self._processes: list[BaseProcess] = []
        self._lock = threading.Lock()

    def start(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Call a function in a new process."""
        process = self._context.Process(target=function, args=arguments)
        process.start()
        with self._lock:
            self._processes = [process, *filter(BaseProcess.is_alive, self._processes)]

    def stop_all(self, grace_seconds: float) -> None:
        """End all processes: with SIGTERM, and after the grace period with SIGKILL."""
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.join(grace_seconds)
            process.kill()
