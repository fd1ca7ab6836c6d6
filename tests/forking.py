"""The command line in processes forked from one that has already imported TensorFlow.

`Forked` is a `subprocess.Popen` of `run_pipeline.py ARGUMENTS`, and `run` is `subprocess.run`. Each call gets a process
of its own with its own environment, folder, signals and exit status, five seconds sooner than from scratch. Tests about
start-up, such as what a command imports, use processes from scratch.

The parent of these processes is this file, run as a script, one for each pytest process. A request over its socket
carries the descriptors of the standard streams. The response is the process id and, later, the exit status.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
COMMAND = str(REPOSITORY / "run_pipeline.py")
IMPORTED = [
    "tensorflow",
    "keras",
    "apache_beam",
    "apache_beam.runners.portability.fn_api_runner.worker_handlers",
    "pyarrow.parquet",
    "sqlalchemy.dialects.sqlite",
    "sqlalchemy.orm",
    "alembic.command",
    "pydantic",
    "aiohttp.web",
    "h2corn",
    "simdjson",
    "orjson",
    "prometheus_client",
    "jinja2",
    "rich.live",
    "kerasline",
    "kerasline.components.serving.runtime.server",
    "kerasline.components.serving.grpc.services",
    "kerasline.components.serving.grpc.server",
    "kerasline.components.data.fold",
    "kerasline.components.preprocessing.adaptation.passes",
    "kerasline.components.evaluator.evaluate",
    "kerasline.components.bulk_inferrer.inference",
    "kerasline.pipeline.commands.app",
    "kerasline.pipeline.executor",
    "kerasline.pipeline.report.render",
    "kerasline.pipeline.run",
]


def _paths(environment) -> set[str]:
    """Return the extra import paths. A forked process ignores them for modules that are already imported."""
    return {*environment.get("PYTHONPATH", "").split(os.pathsep)} - {"", str(REPOSITORY)}


_OWN_PATHS = _paths(os.environ)


class Forked(subprocess.Popen):
    """Fork `[sys.executable, run_pipeline.py, ...]`. Start other commands, and other import paths, as usual."""

    def _execute_child(self, args, executable, preexec_fn, close_fds, pass_fds, cwd, env, *others):
        words = [os.fspath(word) for word in args]
        is_ours = words[0] == sys.executable and str(Path(cwd or ".", words[1]).resolve()) == COMMAND
        is_ours &= _paths(os.environ if env is None else env) == _OWN_PATHS
        self._line: socket.socket | None = None
        if not is_ours:
            super()._execute_child(args, executable, preexec_fn, close_fds, pass_fds, cwd, env, *others)
            return
        pipes = others[3:9]  # to the child, from it, and its errors: each an end to read and one to write
        given = pipes[0], pipes[3], pipes[5]
        streams = [own if stream == -1 else stream for own, stream in enumerate(given)]
        request = {"arguments": words[1:], "cwd": os.fspath(cwd or Path.cwd()), "env": dict(env or os.environ)}
        self._line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._line.connect(_parent())
        socket.send_fds(self._line, [json.dumps(request).encode() + b"\n"], streams)
        self._answers = self._line.makefile("r")
        self.pid = int(self._answers.readline())
        self._child_created = True
        self._close_pipe_fds(*pipes)

    def _internal_poll(self, *more, **others):
        if self._line is None:
            return super()._internal_poll(*more, **others)
        return self._ended(0)

    def _wait(self, timeout):
        if self._line is None:
            return super()._wait(timeout)
        if self._ended(timeout) is None:
            raise subprocess.TimeoutExpired(self.args, timeout)
        return self.returncode

    def _ended(self, seconds):
        if self.returncode is not None:
            return self.returncode
        waiting = select.poll()  # descriptors may be many, which `select` would not take
        waiting.register(self._line, select.POLLIN)
        if waiting.poll(None if seconds is None else 1e3 * seconds):
            self.returncode = os.waitstatus_to_exitcode(int(self._answers.readline()))
            self._answers.close()
            self._line.close()
        return self.returncode


def run(command, *, capture_output=False, text=False, timeout=None, cwd=None, env=None):
    """Do what `subprocess.run` does, with a process that may be forked."""
    pipe = subprocess.PIPE if capture_output else None
    with Forked(command, stdout=pipe, stderr=pipe, text=text, cwd=cwd, env=env) as process:
        try:
            out, err = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(command, process.returncode, out, err)


@functools.cache
def _parent() -> str:
    """Start the process to fork from and return its address. It ends when this process closes its standard input."""
    address = str(Path(tempfile.mkdtemp(prefix="forking-"), "socket"))
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.forking", address],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    if process.stdout.readline() != "ready\n":
        raise RuntimeError("the process to fork from did not start")
    _kept.append(process)
    return address


_kept: list[subprocess.Popen] = []


def main(address: str) -> bool:
    """Fork a process for each request until the tests end. Return True in a forked process, False in this one."""
    _import_all()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(address)
        listener.listen(64)
        ended = _child_exit_socket()
        print("ready", flush=True)
        children: dict[int, socket.socket] = {}
        while True:
            ready, _, _ = select.select([listener, ended, sys.stdin], [], [])
            if sys.stdin in ready:
                return False
            if ended in ready:
                ended.recv(4096)
                _report_exits(children)
            if listener in ready and _forked(listener, children):
                return True


def _import_all() -> None:
    import gc
    import importlib

    for name in IMPORTED:
        importlib.import_module(name)
    root = logging.getLogger()
    for handler in [one for one in root.handlers if type(one) is logging.StreamHandler]:
        root.removeHandler(handler)  # importing Beam logs a warning, which would configure the root logger
    gc.freeze()
    if threading.active_count() > 1:
        raise SystemExit(f"cannot be forked: {threading.enumerate()}")


def _child_exit_socket() -> socket.socket:
    """Return a socket that becomes readable when a child has ended."""
    readable, writable = socket.socketpair()
    writable.setblocking(False)
    _held.append(writable)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(writable.fileno(), warn_on_full_buffer=False)
    return readable


_held: list[socket.socket] = []


def _report_exits(children: dict[int, socket.socket]) -> None:
    """Send the exit status of each ended child to its requester."""
    while children:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        with contextlib.suppress(OSError), children.pop(pid) as line:
            line.sendall(b"%d\n" % status)


def _forked(listener: socket.socket, children: dict[int, socket.socket]) -> bool:
    """Accept a request and fork a process for it. Return True in that process."""
    line, _ = listener.accept()
    data, streams, _, _ = socket.recv_fds(line, 1 << 20, 3)
    while not data.endswith(b"\n"):
        data += line.recv(1 << 20)
    pid = os.fork()
    if not pid:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for held in (line, *children.values(), *_held):
            held.close()
        _become(json.loads(data), streams)
        return True
    children[pid] = line
    for stream in streams:
        os.close(stream)
    line.sendall(b"%d\n" % pid)
    return False


def _become(request: dict, streams: list[int]) -> None:
    """Give this process the arguments, environment, folder and streams of the request."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    sys.stdin = open(0, closefd=False)
    sys.stdout = open(1, "w", closefd=False)
    sys.stderr = open(2, "w", errors="backslashreplace", buffering=1, closefd=False)
    sys.argv = request["arguments"]
    sys.path[0] = str(REPOSITORY)


if __name__ == "__main__" and main(sys.argv[1]):
    runpy.run_path(COMMAND, run_name="__main__")
