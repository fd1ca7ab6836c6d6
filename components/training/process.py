"""A training in a process of its own: for what TensorFlow takes for a whole process, and only at its start.

The parent hands over the job on the child's standard input and reads from a pipe what the child has to
say, a JSON object a line. The child ends when its parent does.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from components import errors, interruption
from components.errors import KeraslineError, ParameterError
from components.training.job import Job
from components.user_code import import_file, imported_files

HERE = ("localhost", "127.0.0.1", "::1")
Report = Callable[[str], None]


def train_here(job: Job, report: Report) -> dict[str, Any]:
    """Trains in this process: by the user's function, or by the steps of `training`."""
    if job.settings.function is not None:
        from components.training.own import train_by_function

        return train_by_function(job, report)
    from components.training.training import train

    return train(job, report)


def train_apart(job: Job, report: Report) -> dict[str, Any]:
    """Trains in a process of its own, or in one for each of the job's workers.

    Returns:
        The figures worth showing.

    Raises:
        KeraslineError: as `training.train`; or a process ended without a word.
    """
    workers = job.settings.workers if job.settings.distribution == "multi_worker" else None
    environments = [_config(workers, number) for number in range(len(workers))] if workers else [{}]
    with interruption.deferred() as stop:
        children = [_Child(job, environment) for environment in environments]
        try:
            threads = [threading.Thread(target=child.listen, args=(report if n == 0 else _nothing,), daemon=True)
                       for n, child in enumerate(children)]  # fmt: skip
            for thread in threads:
                thread.start()
            while any(thread.is_alive() for thread in threads):
                threads[0].join(0.1)
                if stop.is_set():
                    for child in children:
                        child.terminate()
                    interruption.obey()
                if any(child.failed for child in children):
                    break
        finally:
            for child in children:
                child.kill()
    for child in children:
        child.raise_failure()
    return children[0].result


class _Child:
    """One process that trains."""

    def __init__(self, job: Job, environment: Mapping[str, str]) -> None:
        reading, writing = os.pipe()
        path = os.pathsep.join(dict.fromkeys(filter(None, [*sys.path, os.environ.get("PYTHONPATH")])))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "components.training.process", str(writing)],
            stdin=subprocess.PIPE, pass_fds=[writing],
            env={**os.environ, "PYTHONPATH": path, **environment},
        )  # fmt: skip
        os.close(writing)
        self._said = os.fdopen(reading, encoding="utf-8")
        self.result: dict[str, Any] = {}
        self._failure: Exception | None = None
        self._done = False
        # The pipe stays open: its end tells the child that the parent is gone.
        pickle.dump([str(file) for file in imported_files()], self._process.stdin)
        pickle.dump(job, self._process.stdin)
        self._process.stdin.flush()

    @property
    def failed(self) -> bool:
        return self._failure is not None

    def listen(self, report: Report) -> None:
        for line in self._said:
            said = json.loads(line)
            if "report" in said:
                report(said["report"])
            elif "result" in said:
                self.result, self._done = said["result"], True
            elif "error" in said:
                kind = getattr(errors, said["error"], None)
                self._failure = (kind or RuntimeError)(said["message"])
        status = self._process.wait()
        if not self._done and self._failure is None:
            told = (
                f"by signal {-status} ({signal.Signals(-status).name})"
                if status < 0
                else f"with status {status}"
            )
            self._failure = KeraslineError(
                f"the process that trains ended {told}; run again to go on from its last checkpoint"
                + ("; signal 9 often means too little memory: see `plan`" if status == -9 else "")
            )

    def terminate(self) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            self._process.wait()

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._process.stdin.close()

    def raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure


def _config(workers: list[str], number: int) -> dict[str, str]:
    """The environment of one worker, as MultiWorkerMirroredStrategy reads it."""
    for address in workers:
        host = address.rpartition(":")[0]
        if host.strip("[]") not in (*HERE, socket.gethostname()):
            raise ParameterError(
                f"Trainer.workers: {address!r} is not on this machine; start the same command on each machine "
                "with the environment variable TF_CONFIG instead"
            )
    return {
        "TF_CONFIG": json.dumps({"cluster": {"worker": workers}, "task": {"type": "worker", "index": number}})
    }


def _nothing(text: str) -> None:
    """The workers say the same; one is heard."""


def _main(pipe: int) -> None:
    interruption.install()
    with os.fdopen(pipe, "w", encoding="utf-8", buffering=1) as say:

        def tell(**what: Any) -> None:
            say.write(json.dumps(what) + "\n")

        for file in pickle.load(sys.stdin.buffer):
            import_file(Path(file))
        job = pickle.load(sys.stdin.buffer)
        threading.Thread(target=_end_with_parent, daemon=True).start()
        try:
            tell(result=train_here(job, lambda text: tell(report=text)))
        except KeraslineError as error:
            tell(error=type(error).__name__, message=str(error))
        except Exception as error:
            import traceback

            tell(error=type(error).__name__, message=traceback.format_exc())
    os._exit(0)  # at once: TensorFlow's threads need not be waited for


def _end_with_parent() -> None:
    os.read(sys.stdin.fileno(), 1)
    os._exit(1)


if __name__ == "__main__":
    _main(int(sys.argv[1]))
