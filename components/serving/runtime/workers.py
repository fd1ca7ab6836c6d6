"""Several server processes on the same ports: the kernel distributes the connections among them (SO_REUSEPORT)."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from kerasline.components.core.errors import KeraslineError

log = logging.getLogger(__name__)
# A worker that lived this long is replaced at once, others after this time.
RESTART_SECONDS = 5.0
# prometheus_client adds up the metrics of all processes that share this folder. Workers exchange configurations there.
METRICS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
# Serve until SIGTERM and report lines for the user.
Serve = Callable[[Callable[[str], None]], None]


def run_workers(count: int, serve: Serve, report: Callable[[str], None]) -> None:
    """Run processes until SIGTERM or SIGINT. A worker that ends by itself is replaced.

    Args:
        serve: serves in a worker process until SIGTERM.
        report: receives the lines for the user, once all workers are ready.

    Raises:
        KeraslineError: a worker ends before all are ready. The worker has printed the reason.
    """
    with tempfile.TemporaryDirectory(prefix="kerasline-workers-") as folder:
        os.environ[METRICS_VARIABLE] = folder
        _Supervisor(count, serve, report).run()


def shared_folder() -> Path:
    """Return a private folder of all workers of this server."""
    return Path(os.environ[METRICS_VARIABLE])


class _Supervisor:
    def __init__(self, count: int, serve: Serve, report: Callable[[str], None]):
        self._count, self._serve, self._report = count, serve, report
        self._started: dict[int, float] = {}
        self._pipes: list[int] = []
        self._is_stopping = False

    def run(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGHUP, lambda *_: self._send(signal.SIGHUP))
        for _ in range(self._count):
            self._start()
        lines = [self._wait_until_ready(pipe) for pipe in self._pipes]
        if not self._is_stopping and all(lines):
            for line in lines[0].splitlines():
                self._report(line)
        is_ready = bool(lines) and all(lines)
        while self._started:
            process, status = os.wait()
            lived = time.monotonic() - self._started.pop(process, 0.0)
            if self._is_stopping:
                continue
            if not is_ready:
                self._stop()
                continue
            log.error("worker %d ended (%s); it is replaced", process, _ending(status))
            _forget_metrics(process)
            time.sleep(0 if lived > RESTART_SECONDS else RESTART_SECONDS)
            self._start()
        if not is_ready and not lines[0]:
            raise SystemExit(1)

    def _start(self) -> None:
        reader, writer = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        process = os.fork()
        if process == 0:
            os.close(reader)
            _exit_after(lambda: self._serve(lambda line: _write(writer, line)))
        os.close(writer)
        self._started[process] = time.monotonic()
        self._pipes.append(reader)

    def _wait_until_ready(self, pipe: int) -> str:
        """Return the lines that a worker reports, of which the last begins with `ready`; "" if it ends before."""
        text = b""
        while block := os.read(pipe, 1 << 12):
            text += block
            if text.splitlines()[-1].startswith(b"ready") and text.endswith(b"\n"):
                return text.decode()
        return ""

    def _stop(self, *_signal: object) -> None:
        self._is_stopping = True
        self._send(signal.SIGTERM)

    def _send(self, number: int) -> None:
        for process in list(self._started):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, number)


def _exit_after(work: Callable[[], None]) -> None:
    """Run the work of a worker process, and end the process."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    status = 1
    try:
        work()
        status = 0
    except KeraslineError as error:
        print(f"error: {error}", file=sys.stderr)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _write(pipe: int, line: str) -> None:
    os.write(pipe, line.encode() + b"\n")


def _ending(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    return f"signal {-code}" if code < 0 else f"status {code}"


def _forget_metrics(process: int) -> None:
    from prometheus_client import multiprocess

    multiprocess.mark_process_dead(process)
