"""A child process as its parent sees it.

`GuardedProcess` runs any command under a watchdog, because a command that hangs cannot check whether its parent is
still alive. `MessagingProcess` runs a program of ours, here or on another machine, and exchanges messages with it over
its standard input and output. `kerasline.components.processes.parent` is the other end of both.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kerasline.components.core.import_path import search_path
from kerasline.components.processes.parent import RESULTS_DESCRIPTOR, STOP

WATCHDOG = Path(__file__).with_name("watchdog.py")
# How long the watchdog may take to kill the command, beyond the grace period.
STOP_SECONDS = 20.0
LOG_TAIL_BYTES = 64 << 10
# Lines of stack traces as TensorFlow's native code and the C library print them, and TensorFlow's routine messages.
_UNINFORMATIVE = re.compile(
    r"\s*(@\s+0x|\*\*\*|PC: |\[0x|/\S+\(\S*\)\s?\[0x)"
    r"|\s*([IW]\d{4} |\d{4}-\d\d-\d\d .*: [IW] |WARNING: All log|To enable the following)"
)


def module_command(module: str, *arguments: str) -> list[str]:
    """Return the command that runs a module with this interpreter."""
    return [sys.executable, "-m", module, *arguments]


def script_command(script: Path, *arguments: str) -> list[str]:
    """Return the command that runs a script of the standard library alone, without site packages: it starts faster."""
    return [sys.executable, "-I", "-S", str(script), *arguments]


def import_environment() -> dict[str, str]:
    """Return the environment in which a child imports what this process can import."""
    return {"PYTHONPATH": os.pathsep.join(search_path())}


def describe_status(status: int) -> str:
    """Return how a process ended, as a predicate: "exited with status 1" or "was killed by signal 9 (SIGKILL)"."""
    if status >= 0:
        return f"exited with status {status}"
    try:
        return f"was killed by signal {-status} ({signal.Signals(-status).name})"
    except ValueError:  # a real-time signal has no name
        return f"was killed by signal {-status}"


class Log:
    """The file to which a child prints.

    Args:
        path: the file. It may not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._start = 0

    def tail(self, lines: int = 50) -> list[str]:
        """Return the last lines."""
        return self._lines(0)[-lines:]

    def last_line(self) -> str:
        """Return the last line since `skip`, up to 300 characters, without stack traces and routine messages."""
        lines = [line for line in self._lines(self._start) if line.strip() and not _UNINFORMATIVE.match(line)]
        return " ".join(lines[-1].split())[:300] if lines else ""

    def last_words(self) -> str:
        """Return the last line as the end of a sentence: "; its last line: ...". Empty if there is none."""
        line = self.last_line()
        return f"; its last line: {line}" if line else ""

    def skip(self) -> None:
        """Ignore in `last_line` what was printed so far."""
        self._start = self.path.stat().st_size

    def truncate(self) -> None:
        """Keep only the end of a long log. Call it after the process has ended."""
        if self.path.stat().st_size > LOG_TAIL_BYTES:
            self.path.write_bytes(self._end(0))

    def _lines(self, start: int) -> list[str]:
        return self._end(start).decode(errors="replace").splitlines()

    def _end(self, start: int) -> bytes:
        if not self.path.exists():
            return b""
        with self.path.open("rb") as file:
            file.seek(max(start, self.path.stat().st_size - LOG_TAIL_BYTES))
            return file.read()


class _Child:
    """A command in a session of its own: Ctrl-C in the terminal reaches only its parent, which then ends it."""

    def __init__(
        self, command: Sequence[str], log: Path | None, environment: Mapping[str, str], descriptors: Sequence[int] = ()
    ) -> None:
        with contextlib.ExitStack() as opened:
            output = opened.enter_context(log.open("ab")) if log else None
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                env={**os.environ, **environment},
                pass_fds=descriptors,
                start_new_session=True,
            )
        assert self._process.stdin and self._process.stdout
        self._stdin, self._stdout = self._process.stdin, self._process.stdout


class GuardedProcess(_Child):
    """A command that ends when `stop` is called or when this process is gone, with everything that it started.

    Args:
        command: the program and its arguments.
        log: the file to append its output to.
        environment: variables added to this process's.
        sends_results: whether it sends objects with `kerasline.components.processes.parent.ResultPipe`.
        grace_seconds: time between SIGTERM and SIGKILL. With 0 it is killed at once.
    """

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        environment: Mapping[str, str] | None = None,
        *,
        sends_results: bool = False,
        grace_seconds: float = 0.0,
    ) -> None:
        self.log, self._grace_seconds = Log(log), grace_seconds
        self._status: int | None = None
        self._results: queue.Queue[Any] = queue.Queue()
        reading, writing = os.pipe() if sends_results else (None, None)
        descriptors = [] if writing is None else [writing]
        watchdog = script_command(WATCHDOG, str(grace_seconds), ",".join(map(str, descriptors)), *command)
        variables = {RESULTS_DESCRIPTOR: str(writing)} if sends_results else {}
        super().__init__(watchdog, log, {**(environment or {}), **variables}, descriptors)
        if reading is not None and writing is not None:
            os.close(writing)
            threading.Thread(target=self._listen, args=(reading,), daemon=True).start()

    @property
    def status(self) -> int | None:
        """The exit status, or minus the number of the signal that killed it; None while it runs."""
        if self._status is None and self._process.poll() is not None:
            printed = self._stdout.read().strip()
            self._status = int(printed) if printed else -signal.SIGKILL
        return self._status

    def ending(self, wait_seconds: float = 0.0) -> str | None:
        """Return how it ended by itself, or None if it still runs after `wait_seconds`."""
        if self.status is None and wait_seconds:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(wait_seconds)
        return None if self.status is None else describe_status(self.status)

    def result(self, timeout_seconds: float) -> Any:
        """Return the next object that it sent.

        Raises:
            TimeoutError: there is none in time.
            EOFError: it ended, or closed its pipe.
        """
        try:
            received = self._results.get(timeout=timeout_seconds)
        except queue.Empty:
            raise TimeoutError from None
        if received is EOFError:
            raise EOFError
        return received

    def stop(self) -> None:
        """End it, if it still runs, and everything that it started."""
        self._stdin.close()
        try:
            self._process.wait(self._grace_seconds + STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._stdout.close()

    def _listen(self, reading: int) -> None:
        with os.fdopen(reading, "rb") as pipe, contextlib.suppress(EOFError, pickle.UnpicklingError, OSError):
            while True:
                self._results.put(pickle.load(pipe))
        self._results.put(EOFError)


class MessagingProcess(_Child):
    """A program of ours that takes pickled objects and sends messages, each a JSON object on a line.

    The end of its standard input tells it that its parent is gone.

    Args:
        command: starts it, here or on another machine.
        on_change: called after each message and when it has ended, from another thread.
        log: the file to append its other output to. With None it prints where this process prints.

    Attributes:
        last_heard: the time of its last message, by `time.monotonic`.
    """

    def __init__(self, command: Sequence[str], *, on_change: Callable[[], None], log: Path | None = None) -> None:
        super().__init__(command, log, import_environment())
        self._on_change = on_change
        self.last_heard = time.monotonic()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def receive(self, message: Mapping[str, Any]) -> None:
        """Handle a message. Called from another thread."""
        raise NotImplementedError

    @property
    def has_ended(self) -> bool:
        """Whether it is gone and all its messages were received."""
        return not self._listener.is_alive()

    @property
    def status(self) -> int | None:
        """The exit status, or minus the number of the signal that killed it; None while it runs."""
        return self._process.returncode

    def send(self, value: Any) -> None:
        """Send an object to it."""
        with contextlib.suppress(OSError):  # it is gone, which `has_ended` reports
            pickle.dump(value, self._stdin)
            self._stdin.flush()

    def request_stop(self) -> None:
        """Ask it to save its work and to end."""
        with contextlib.suppress(OSError):
            self._stdin.write(STOP)
            self._stdin.flush()

    def wait(self, timeout_seconds: float | None = None) -> None:
        """Wait until it has ended, at most this long."""
        self._listener.join(timeout_seconds)

    def release(self) -> None:
        """Close its input, so that it ends by itself."""
        with contextlib.suppress(OSError):
            self._stdin.close()

    def kill(self) -> None:
        """End it at once."""
        self.release()
        self._process.kill()
        self._process.wait()

    def _listen(self) -> None:
        with self._stdout as lines:
            for line in lines:
                self._receive_line(line)
                self._on_change()
        self._process.wait()
        self._on_change()

    def _receive_line(self, line: bytes) -> None:
        try:
            message = json.loads(line)
        except ValueError:
            return  # the greeting of a login shell on another machine
        if isinstance(message, dict):
            self.last_heard = time.monotonic()
            self.receive(message)
