"""A training in a process of its own: for what TensorFlow takes for a whole process, and only at its start.

The parent hands over the job on the child's standard input, and after it single bytes, each a wish; the end
of that pipe tells the child that the parent is gone, and ends it. The child says on its standard output what
it has to say, a JSON object a line; what the user's code prints goes to standard error instead. Nothing else
joins them, so that the child may as well be on another machine, behind ssh.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pickle
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kerasline.components.core import errors, garbage_collection, interruption, malloc
from kerasline.components.core.errors import KeraslineError, one_line
from kerasline.components.core.import_path import search_path
from kerasline.components.core.user_code import import_file, imported_files
from kerasline.components.processes.parent import signal_name
from kerasline.components.trainer.job import Job

if TYPE_CHECKING:
    from kerasline.components.trainer.rendezvous import Meeting

BEAT_SECONDS = 1.0
STOP = b"S"
# What TensorFlow raises in those who are left when one of them is gone.
LEFT_ALONE = frozenset(
    f"{name}Error" for name in ("Unavailable", "Aborted", "Cancelled", "DeadlineExceeded", "Internal", "Unknown")
)
_GRAPH = re.compile(r"\{\{.*?\}\} ")  # where in TensorFlow's graph
Report = Callable[[str], None]


def train_here(job: Job, report: Report) -> dict[str, Any]:
    """Trains in this process: by the user's function, or by the steps of `training`."""
    if job.settings.function is not None:
        from kerasline.components.trainer.custom_train import train_by_function

        return train_by_function(job, report)
    from kerasline.components.trainer.training import train

    return train(job, report)


def train_apart(job: Job, report: Report) -> dict[str, Any]:
    """Trains in a process of its own, or in one for each of the job's workers.

    Returns:
        The figures worth showing.

    Raises:
        KeraslineError: as `training.train`; or a process ended without a word.
    """
    if job.settings.workers:
        from kerasline.components.trainer.supervision import train_together

        return train_together(job, report)
    news = threading.Event()
    with interruption.deferred() as stop:
        child = TrainingProcess(command(), news=news.set, report=report)
        try:
            child.hand_over(job)
            while not child.finished:
                news.wait(0.1)
                news.clear()
                if stop.is_set():
                    child.stop()
                    child.wait()
                    interruption.obey()
        finally:
            child.kill()
    if child.failure is not None:
        raise child.failure
    if child.result is None:
        raise KeraslineError(
            f"the process that trains {child.how_it_ended}; run again to go on from its last checkpoint{child.hint}"
        )
    return child.result


def command(*arguments: str) -> list[str]:
    """The words that start a process which trains; what it is to train it is told."""
    return [sys.executable, "-m", "kerasline.components.trainer.process", *arguments]


class TrainingProcess:
    """A process that trains, seen by its parent.

    Args:
        command: that starts it, here or elsewhere.
        news: called whenever there is something to look at.
        report: takes its lines on how training goes on.
        log: a file for what it prints; None shows that.

    Attributes:
        port: where it listens, once it has said so.
        met: whether it has reached all other workers.
        result: the figures worth showing, once it is done.
        failure: what it says went wrong.
        left_alone: whether that may be because another worker is gone.
        heard, moved: when it last said anything; when it last said that training went on.
        stands: where training stands, in its own words.
    """

    def __init__(
        self, command: Sequence[str], *, news: Callable[[], None], report: Report, log: Path | None = None
    ) -> None:
        self._news, self._report = news, report
        self.port: int | None = None
        self.result: dict[str, Any] | None = None
        self.failure: Exception | None = None
        self.met = self.left_alone = False
        self.heard = self.moved = time.monotonic()
        self.stands = ""
        with contextlib.ExitStack() as opened:
            errors_to = opened.enter_context(log.open("ab")) if log else None
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors_to,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(search_path())},
                start_new_session=True,  # a Ctrl-C is for the parent, who ends its children
            )
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def introduce(self, number: int, addresses: Sequence[str]) -> None:
        """Tells it who it is among the workers at these addresses."""
        self._give((number, list(addresses)))

    def hand_over(self, job: Job, environment: Mapping[str, str] | None = None, *, elsewhere: bool = False) -> None:
        """Gives it what it is to do.

        Args:
            environment: variables to set before TensorFlow is loaded.
            elsewhere: on another machine, whose temporary files are its own.
        """
        files = [str(file) for file in imported_files()]
        around = _Surroundings(dict(environment or {}), search_path(), os.getcwd(), files, elsewhere)
        self.heard = self.moved = time.monotonic()
        self._give(around.__dict__)
        self._give(job)

    @property
    def finished(self) -> bool:
        """Whether nothing more will come of it."""
        return self.result is not None or self.failure is not None or self.ended

    @property
    def ended(self) -> bool:
        """Whether it is gone, and all that it said was heard."""
        return not self._listener.is_alive()

    @property
    def ended_silently(self) -> bool:
        """Whether it is gone without having said how it went."""
        return self.ended and self.result is None and self.failure is None

    @property
    def status(self) -> int | None:
        """Its exit status, or minus the number of the signal that ended it."""
        return self._process.returncode

    @property
    def how_it_ended(self) -> str:
        status = self._process.returncode
        if status is None:
            return "is silent"
        if status < 0:
            return f"was ended by signal {-status} ({signal_name(-status)})"
        return f"ended with status {status}"

    @property
    def hint(self) -> str:
        return "; signal 9 often means too little memory: see `plan`" if self._process.returncode == -9 else ""

    def stop(self) -> None:
        """Asks it to write a checkpoint and to end."""
        with contextlib.suppress(OSError):
            self._process.stdin.write(STOP)
            self._process.stdin.flush()

    def wait(self, seconds: float | None = None) -> None:
        """Until it is gone, or so long."""
        self._listener.join(seconds)

    def leave(self) -> None:
        """Lets it see that it is no longer wanted."""
        with contextlib.suppress(OSError):
            self._process.stdin.close()

    def kill(self) -> None:
        self.leave()
        self._process.kill()
        self._process.wait()

    def _give(self, thing: Any) -> None:
        with contextlib.suppress(OSError):  # it is gone: that is heard
            pickle.dump(thing, self._process.stdin)
            self._process.stdin.flush()

    def _listen(self) -> None:
        with self._process.stdout as lines:
            for line in lines:
                self._take(line)
                self._news()
        self._process.wait()
        self._news()

    def _take(self, line: bytes) -> None:
        try:
            said = json.loads(line)
        except ValueError:
            return  # what a login shell greets with
        if not isinstance(said, dict):
            return
        self.heard = time.monotonic()
        self.port = said.get("port", self.port)
        self.met = said.get("met", self.met)
        if "report" in said:
            self.moved, self.stands = self.heard, said["report"]
            self._report(said["report"])
        if "error" in said:
            kind = getattr(errors, said["error"], None)
            self.left_alone = said["error"] in LEFT_ALONE
            self.failure = (kind or RuntimeError)(said["message"])
        self.result = said.get("result", self.result)


@dataclasses.dataclass(frozen=True)
class _Surroundings:
    """What a process is to find as its parent does.

    Attributes:
        path: folders to import from.
        files: of the user, to be imported.
        elsewhere: whether the machine is another, so that temporary files are its own.
    """

    environment: dict[str, str]
    path: list[str]
    folder: str
    files: list[str]
    elsewhere: bool

    def enter(self) -> None:
        os.environ.update(self.environment)
        sys.path += [folder for folder in self.path if folder not in sys.path]
        with contextlib.suppress(OSError):
            os.chdir(self.folder)
        for file in self.files:
            import_file(Path(file))


# In the child


def _main(port: int | None) -> None:
    _die_with_parent()
    interruption.install()
    garbage_collection.spare_exit()
    malloc.keep_freed()
    parent = _Parent()
    try:
        parent.tell(result=_trained(parent, port))
    except KeraslineError as error:
        parent.tell(error=type(error).__name__, message=str(error))
    except Exception as error:
        import traceback

        traceback.print_exc()
        alone = type(error).__name__ in LEFT_ALONE
        told = _GRAPH.sub("", one_line(error, 300)) if alone else traceback.format_exc()
        parent.tell(error=type(error).__name__, message=told)
    # TensorFlow takes it ill if one goes while another still writes the results: the parent says when.
    parent.wait_for_end()


def _trained(parent: _Parent, port: int | None) -> dict[str, Any]:
    meeting = None if port is None else _met(parent, port)
    around = _Surroundings(**parent.take())
    if meeting:
        meeting.close()  # all have met
    around.enter()
    job = parent.take()
    parent.listen()
    if around.elsewhere:
        _look_for(job)
        job = dataclasses.replace(job, work_dir=parent.own_folder())
    return train_here(job, lambda text: parent.tell(report=text))


def _met(parent: _Parent, port: int) -> Meeting:
    from kerasline.components.trainer.rendezvous import Meeting

    meeting = Meeting(port)
    parent.tell(port=meeting.port)
    meeting.visit(*parent.take())
    parent.tell(met=True)
    return meeting


def _look_for(job: Job) -> None:
    for folder in (job.examples.path, job.preprocessing.path, job.model.path, job.trained.path):
        if not folder.exists():
            raise KeraslineError(
                f"{folder} is not there on {socket.gethostname()}: the root of a pipeline on several machines "
                "must be the same folder, by the same path, on each of them"
            )


class _Parent:
    """The parent, seen by its child."""

    def __init__(self) -> None:
        self._pipe = os.fdopen(os.dup(1), "wb", buffering=0)
        os.dup2(2, 1)
        self._turn = threading.Lock()
        self._folder: Path | None = None
        self._listener = threading.Thread(target=self._obey, daemon=True)
        threading.Thread(target=self._beat, daemon=True).start()

    def tell(self, **what: Any) -> None:
        with self._turn:
            try:
                self._pipe.write(json.dumps(what).encode() + b"\n")
            except BrokenPipeError:
                self._end(1)

    def take(self) -> Any:
        try:
            return pickle.load(sys.stdin.buffer)
        except EOFError:
            self._end(1)

    def listen(self) -> None:
        """From here on only wishes come."""
        self._listener.start()

    def own_folder(self) -> Path:
        """On this machine; gone when the process ends."""
        self._folder = Path(tempfile.mkdtemp(prefix="kerasline-"))
        return self._folder

    def wait_for_end(self) -> None:
        if self._listener.ident is None:
            self.listen()
        self._listener.join()

    def _obey(self) -> None:
        while wish := sys.stdin.buffer.read(1):
            if wish == STOP:  # no signal: TensorFlow's coordination of workers takes SIGTERM for itself
                interruption.request()
        self._end(1)

    def _beat(self) -> None:
        while True:
            self.tell(beat=True)
            time.sleep(BEAT_SECONDS)

    def _end(self, status: int) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        os._exit(status)  # at once: TensorFlow's threads need not be waited for


def _die_with_parent() -> None:
    """Even where this process is stopped, and cannot see its standard input end (prctl(2), Linux alone)."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


if __name__ == "__main__":
    _main(int(sys.argv[1]) if len(sys.argv) > 1 else None)
