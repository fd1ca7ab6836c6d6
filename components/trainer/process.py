"""Training in a process of its own: some settings of TensorFlow hold for a whole process and only from its start.

`python -m kerasline.components.trainer.process` is the child. Its job arrives on standard input. Nothing but its
standard streams connects it to its parent, so it may also run on another machine, behind ssh.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kerasline.components.core import errors, garbage_collection, interruption, malloc
from kerasline.components.core.errors import KeraslineError, one_line
from kerasline.components.core.import_path import search_path
from kerasline.components.core.user_code import import_file, imported_files
from kerasline.components.processes.child import MessagingProcess, describe_status, module_command
from kerasline.components.processes.parent import Parent
from kerasline.components.trainer.job import Job

# What TensorFlow raises in the remaining workers when one is lost.
PEER_LOST = frozenset(
    f"{name}Error" for name in ("Unavailable", "Aborted", "Cancelled", "DeadlineExceeded", "Internal", "Unknown")
)
Report = Callable[[str], None]


def train_here(job: Job, report: Report) -> dict[str, Any]:
    """Train in this process, with the user's function or the built-in loop, and return the metrics to display."""
    if job.settings.function is not None:
        from kerasline.components.trainer.custom_train import train_by_function

        return train_by_function(job, report)
    from kerasline.components.trainer.training import train

    return train(job, report)


def training_command(*arguments: str) -> list[str]:
    """Return the command that starts a training process on this machine."""
    return module_command("kerasline.components.trainer.process", *arguments)


class TrainingProcess(MessagingProcess):
    """A training process as its parent sees it.

    Args:
        command: starts it, here or on another machine.
        on_change: called from another thread whenever an attribute may have changed.
        report: receives its progress messages.
        log: the file to append its output to. With None it prints where this process prints.

    Attributes:
        port: the port where it listens for other workers, once it is known.
        connected: whether it has reached all other workers.
        result: the metrics to display, once it is done.
        failure: the error that it reported.
        lost_a_peer: whether the error may be the consequence of another worker's end.
        last_progress: the time of its last progress message, by `time.monotonic`.
        progress: its last progress message.
    """

    def __init__(
        self, command: Sequence[str], *, on_change: Callable[[], None], report: Report, log: Path | None = None
    ) -> None:
        self._report = report
        self.port: int | None = None
        self.result: dict[str, Any] | None = None
        self.failure: Exception | None = None
        self.connected = self.lost_a_peer = False
        self.last_progress = time.monotonic()
        self.progress = ""
        super().__init__(command, on_change=on_change, log=log)

    def introduce(self, number: int, addresses: Sequence[str]) -> None:
        """Send its number among the workers, and the addresses of all workers."""
        self.send((number, list(addresses)))

    def start_job(self, job: Job, environment: Mapping[str, str] | None = None, *, is_remote: bool = False) -> None:
        """Send its job.

        Args:
            job: the training.
            environment: variables to set before TensorFlow is loaded.
            is_remote: whether it runs on another machine, where it needs a temporary folder of its own.
        """
        files = [str(file) for file in imported_files()]
        self.last_heard = self.last_progress = time.monotonic()
        self.send(_Surroundings(dict(environment or {}), search_path(), os.getcwd(), files, is_remote).__dict__)
        self.send(job)

    def receive(self, message: Mapping[str, Any]) -> None:
        self.port = message.get("port", self.port)
        self.connected = message.get("connected", self.connected)
        if "report" in message:
            self.last_progress, self.progress = self.last_heard, message["report"]
            self._report(message["report"])
        if "error" in message:
            kind = getattr(errors, message["error"], RuntimeError)
            self.lost_a_peer = message["error"] in PEER_LOST
            self.failure = kind(message["message"])
        self.result = message.get("result", self.result)

    @property
    def is_finished(self) -> bool:
        """Whether it reported its result or an error, or has ended."""
        return self.result is not None or self.failure is not None or self.has_ended

    @property
    def ended_silently(self) -> bool:
        """Whether it has ended without a result or an error."""
        return self.has_ended and self.result is None and self.failure is None

    @property
    def ending(self) -> str:
        return "sends no messages" if self.status is None else describe_status(self.status)

    @property
    def hint(self) -> str:
        return "; signal 9 often means too little memory: see `plan`" if self.status == -9 else ""


@dataclasses.dataclass(frozen=True)
class _Surroundings:
    """What the child takes over from its parent.

    Attributes:
        environment: variables to set.
        path: folders to import from.
        folder: working folder.
        files: modules of the user to import.
        is_remote: whether it runs on another machine.
    """

    environment: dict[str, str]
    path: list[str]
    folder: str
    files: list[str]
    is_remote: bool

    def enter(self) -> None:
        os.environ.update(self.environment)
        sys.path += [folder for folder in self.path if folder not in sys.path]
        with contextlib.suppress(OSError):
            os.chdir(self.folder)
        for file in self.files:
            import_file(Path(file))


# In the child


def _main(port: int | None) -> None:
    interruption.install()
    garbage_collection.skip_at_exit()
    malloc.retain_freed()
    # A message and not a signal asks it to stop: TensorFlow's coordination of workers handles SIGTERM itself.
    parent = Parent(on_stop=interruption.request)
    try:
        parent.tell(result=_train(parent, port))
    except KeraslineError as error:
        parent.tell(error=type(error).__name__, message=str(error))
    except Exception as error:
        import traceback

        traceback.print_exc()
        lost_a_peer = type(error).__name__ in PEER_LOST
        message = one_line(error) if lost_a_peer else traceback.format_exc()
        parent.tell(error=type(error).__name__, message=message)
    # The chief may still write the results, and TensorFlow in it fails if this worker leaves: the parent decides.
    parent.wait_for_end()


def _train(parent: Parent, port: int | None) -> dict[str, Any]:
    rendezvous = None if port is None else _meet(parent, port)
    surroundings = _Surroundings(**parent.take())
    if rendezvous:
        rendezvous.close()  # all workers have connected
    surroundings.enter()
    job: Job = parent.take()
    parent.listen()
    if surroundings.is_remote:
        _check_folders(job)
        job = dataclasses.replace(job, work_dir=parent.temporary_folder())
    return train_here(job, lambda text: parent.tell(report=text))


def _meet(parent: Parent, port: int) -> Any:
    from kerasline.components.trainer.cluster import Rendezvous

    rendezvous = Rendezvous(port)
    parent.tell(port=rendezvous.port)
    rendezvous.connect_to_all(*parent.take())
    parent.tell(connected=True)
    return rendezvous


def _check_folders(job: Job) -> None:
    for folder in (job.examples.path, job.preprocessing.path, job.model.path, job.trained.path):
        if not folder.exists():
            raise KeraslineError(
                f"{folder} does not exist on {socket.gethostname()}: all machines must see the root of the pipeline "
                "at the same path"
            )


if __name__ == "__main__":
    _main(int(sys.argv[1]) if len(sys.argv) > 1 else None)
