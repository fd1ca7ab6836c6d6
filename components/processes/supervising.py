"""A process that cannot outlive us: started, watched, and ended for certain."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from kerasline.components.processes.parent import end_of, signal_name

WATCHDOG = Path(__file__).with_name("watchdog.py")
STOP_SECONDS = 20.0
TAIL_BYTES = 64 << 10
# As TensorFlow's native code and the C library write them.
STACK_TRACE = re.compile(r"\s*(@\s+0x|\*\*\*|PC: |\[0x|/\S+\(\S*\)\s?\[0x)")


class Supervised:
    """A command in a session of its own, which ends when `stop` is called or when this process is gone.

    Args:
        command: the program and its arguments.
        log: the file that takes what it prints.
        environment: added to this process's.
        descriptors: open files that it inherits; they are closed here.
        grace_seconds: how long SIGTERM may take; with 0 it is killed at once.
    """

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        environment: Mapping[str, str],
        *,
        descriptors: Sequence[int] = (),
        grace_seconds: float = 0.0,
    ) -> None:
        self.log, self._grace_seconds = log, grace_seconds
        self._status: int | None = None
        self._forgotten = 0
        listed = ",".join(map(str, descriptors))
        with log.open("ab") as out:
            self._watchdog = subprocess.Popen(
                [sys.executable, "-I", "-S", str(WATCHDOG), str(grace_seconds), listed, *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=out,
                env={**os.environ, **environment},
                pass_fds=descriptors,
                start_new_session=True,  # Ctrl-C is for us; we end it then
            )
        for descriptor in descriptors:
            os.close(descriptor)

    @property
    def status(self) -> int | None:
        """How it ended by itself, as `subprocess` tells it; None while it runs."""
        if self._status is None and self._watchdog.poll() is not None:
            told = self._watchdog.stdout.read().strip()
            self._status = int(told) if told else -signal.SIGKILL
        return self._status

    def ending(self, wait_seconds: float = 0.0) -> str | None:
        """How it ended by itself, in words; None if it runs on after the seconds given."""
        if self.status is None and wait_seconds:
            try:
                self._watchdog.wait(wait_seconds)
            except subprocess.TimeoutExpired:
                return None
        if self.status is None:
            return None
        return f"was ended by {signal_name(-self.status)}" if self.status < 0 else f"ended with status {self.status}"

    def stop(self) -> None:
        """Ends it, if it has not ended, and all that it started."""
        self._watchdog.stdin.close()
        try:
            self._watchdog.wait(self._grace_seconds + STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._watchdog.kill()
            self._watchdog.wait()
        self._watchdog.stdout.close()

    def log_tail(self, lines: int = 50) -> list[str]:
        """The last lines that it printed."""
        return end_of(self.log, TAIL_BYTES).decode(errors="replace").splitlines()[-lines:]

    def last_words(self) -> str:
        """The last line that it printed since `forget_words`, but for stack traces, as the end of a sentence."""
        lines = end_of(self.log, TAIL_BYTES, self._forgotten).decode(errors="replace").splitlines()
        words = [line for line in lines if line.strip() and not STACK_TRACE.match(line)]
        return f"; it said last: {' '.join(words[-1].split())[:300]}" if words else ""

    def forget_words(self) -> None:
        """What it printed so far says nothing of how it may end."""
        self._forgotten = self.log.stat().st_size

    def shorten_log(self) -> None:
        """Keeps the end of a long log; call it when the process has ended."""
        if self.log.stat().st_size > TAIL_BYTES:
            self.log.write_bytes(end_of(self.log, TAIL_BYTES))
