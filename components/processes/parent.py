"""The parent process as its child sees it."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

RESULTS_DESCRIPTOR = "KERASLINE_RESULTS_DESCRIPTOR"
STOP = b"S"
HEARTBEAT_SECONDS = 1.0


class ResultPipe:
    """Sends pickled objects to the parent that started this process as a `GuardedProcess`."""

    def __init__(self) -> None:
        self._pipe = os.fdopen(int(os.environ[RESULTS_DESCRIPTOR]), "wb")

    def send(self, value: Any) -> None:
        pickle.dump(value, self._pipe)
        self._pipe.flush()


class Parent:
    """The parent that started this process as a `MessagingProcess`.

    From here on this process sends a heartbeat, and what it prints goes to standard error. It ends when its parent
    is gone.

    Args:
        on_stop: called from another thread when the parent asks this process to stop.
    """

    def __init__(self, on_stop: Callable[[], None]) -> None:
        _die_with_parent()
        self._pipe = os.fdopen(os.dup(1), "wb", buffering=0)
        os.dup2(2, 1)
        self._on_stop = on_stop
        self._lock = threading.Lock()
        self._temporary_folder: Path | None = None
        self._listener = threading.Thread(target=self._listen, daemon=True)
        threading.Thread(target=self._send_heartbeats, daemon=True).start()

    def tell(self, **message: Any) -> None:
        """Send a message of JSON values."""
        with self._lock:
            try:
                self._pipe.write(json.dumps(message).encode() + b"\n")
            except BrokenPipeError:
                self._end()

    def take(self) -> Any:
        """Return the next object that the parent sends."""
        try:
            return pickle.load(sys.stdin.buffer)
        except EOFError:
            self._end()

    def listen(self) -> None:
        """Expect no more objects, only the request to stop."""
        self._listener.start()

    def temporary_folder(self) -> Path:
        """Create a folder on this machine. It is removed when this process ends."""
        self._temporary_folder = Path(tempfile.mkdtemp(prefix="kerasline-"))
        return self._temporary_folder

    def wait_for_end(self) -> None:
        """Wait until the parent releases this process, which ends it."""
        if self._listener.ident is None:
            self.listen()
        self._listener.join()

    def _listen(self) -> None:
        while request := sys.stdin.buffer.read(1):
            if request == STOP:
                self._on_stop()
        self._end()

    def _send_heartbeats(self) -> None:
        while True:
            self.tell(heartbeat=True)
            time.sleep(HEARTBEAT_SECONDS)

    def _end(self) -> None:
        if self._temporary_folder is not None:
            shutil.rmtree(self._temporary_folder, ignore_errors=True)
        os._exit(1)  # at once, without waiting for TensorFlow's threads


def _die_with_parent() -> None:
    """End with the parent even while this process is stopped and cannot read its input (prctl(2), only on Linux)."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
