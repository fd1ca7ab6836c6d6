"""Workers that train together, started, watched, and started again when one of them is lost.

All wait for each other in every step, so that one which is gone or hangs holds up the rest: they are all
ended, and all go on from the last checkpoint.
"""

from __future__ import annotations

import dataclasses
import logging
import re
import threading
import time
from pathlib import Path
from typing import Any

from kerasline.components.core import interruption
from kerasline.components.core.errors import KeraslineError
from kerasline.components.core.import_path import package_root
from kerasline.components.processes.parent import end_of
from kerasline.components.trainer import cluster
from kerasline.components.trainer.cluster import Worker
from kerasline.components.trainer.job import Job
from kerasline.components.trainer.process import BEAT_SECONDS, Report, TrainingProcess, command

LOG = logging.getLogger("kerasline")
# Before the second start, and twice as much before each after that.
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 30.0
# When one is lost the others fail too: so long is waited to see who was first.
FIND_CAUSE_SECONDS = 1.5
# Where TensorFlow in another worker gave one up already, less than `worker_timeout` will do.
SILENT_SECONDS = 5 * BEAT_SECONDS
# For a checkpoint when told to stop; less where one is gone already, whom the others would wait for.
STOP_SECONDS, STOP_TOGETHER_SECONDS = 60.0, 15.0
# To clear away what is temporary elsewhere.
END_SECONDS = 3.0
# Lines that TensorFlow prints whatever happens.
_NOISE = re.compile(rb"[IW]\d{4} |\d{4}-\d\d-\d\d .*: [IW] |WARNING: All log|To enable the following")
MOST_TOLD = 200


class WorkerLost(Exception):
    """A worker is gone, or as good as gone.

    Attributes:
        again: whether another start may help.
        hint: what may be behind it, if that is known.
    """

    def __init__(self, worker: Worker, why: str, *, again: bool = True, hint: str = "") -> None:
        super().__init__(f"{worker} {why}")
        self.worker, self.again, self.hint = worker, again, hint


def train_together(job: Job, report: Report) -> dict[str, Any]:
    """Trains in a process for each of the job's workers.

    Returns:
        The figures worth showing, as the chief has them, and `restarts` if there were any.

    Raises:
        KeraslineError: as `training.train`; or a worker was lost once more than `max_restarts`.
    """
    settings, restarts = job.settings, 0
    job = dataclasses.replace(job, state_dir=job.state_dir or job.work_dir / "state")
    with interruption.deferred() as stop:
        while True:
            attempt = _Attempt(job, report, first=restarts == 0)
            try:
                return {**attempt.result(stop), **({"restarts": restarts} if restarts else {})}
            except WorkerLost as lost:
                if not lost.again or restarts == settings.max_restarts:
                    raise KeraslineError(_given_up(lost, restarts, attempt.logs)) from None
                restarts += 1
                which = f"restart {restarts} of {settings.max_restarts}"
                told = f"{lost}; all start again from the last checkpoint ({which})"
                LOG.warning(told)
                report(told)
            finally:
                attempt.end()
            if stop.wait(min(FIRST_PAUSE_SECONDS * 2 ** (restarts - 1), LONGEST_PAUSE_SECONDS)):
                interruption.obey()


class _Attempt:
    """One start of all the workers, to their end."""

    def __init__(self, job: Job, report: Report, *, first: bool) -> None:
        self._job, self._settings, self._first = job, job.settings, first
        self._news = threading.Event()
        self.workers = cluster.workers(self._settings.workers)
        self.logs = job.state_dir / "workers"
        self.logs.mkdir(parents=True, exist_ok=True)
        self._here = {worker: worker.is_here for worker in self.workers}
        self._report = report
        self._children: dict[Worker, TrainingProcess] = {}

    def result(self, stop: threading.Event) -> dict[str, Any]:
        """What the chief leaves: it alone writes.

        Raises:
            WorkerLost: before that, one was.
            KeraslineError: one cannot train, now or later.
        """
        for worker in self.workers:
            self._children[worker] = self._started(worker)
        addresses: list[str] = []
        handed_over = False
        while self._chief.result is None:
            self._news.wait(0.2)
            self._news.clear()
            if stop.is_set():
                self._stop(training=handed_over)
            self._look(training=handed_over)
            if not addresses and all(child.port for child in self._children.values()):
                addresses = [worker.at(child.port) for worker, child in self._children.items()]
                for worker, child in self._children.items():
                    child.introduce(worker.number, addresses)
            if not handed_over and all(child.met for child in self._children.values()):
                self._hand_over(addresses)
                handed_over = True
        return self._chief.result

    def end(self) -> None:
        """Ends all that are left; those who can see it, in their own way."""
        for child in self._children.values():
            child.leave()
        until = time.monotonic() + END_SECONDS
        for child in self._children.values():
            child.wait(max(0.0, until - time.monotonic()))
            child.kill()

    @property
    def _chief(self) -> TrainingProcess:
        return self._children[self.workers[0]]

    def _started(self, worker: Worker) -> TrainingProcess:
        report = _nothing if worker.number else self._report
        words = self._command(worker)
        try:
            return TrainingProcess(words, news=self._news.set, report=report, log=log_of(self.logs, worker))
        except OSError as error:
            raise WorkerLost(worker, f"cannot be started: {words[0]}: {error.strerror}", again=False) from error

    def _command(self, worker: Worker) -> list[str]:
        words = command(str(worker.port or 0))
        if self._here[worker]:
            return words
        template = self._settings.launch or cluster.LAUNCH
        return cluster.launched(template, worker.host, [*_importing(), *words])

    def _hand_over(self, addresses: list[str]) -> None:
        # One alone is no cluster; it is watched all the same.
        alone = len(self.workers) == 1
        changes = {"distribution": "none"} if alone else {}
        settings = type(self._settings)(**{**vars(self._settings), **changes, "workers": None})
        job = dataclasses.replace(self._job, settings=settings)
        for worker, child in self._children.items():
            environment = {} if alone else cluster.tf_config(addresses, worker.number)
            if not self._here[worker]:
                environment = {**cluster.environment_of_libraries(), **environment}
            child.hand_over(job, environment, elsewhere=not self._here[worker])

    # What may go wrong

    def _look(self, training: bool) -> None:
        if any(child.failure or child.ended for child in self._children.values()):
            self._tell_cause()
        now = time.monotonic()
        for worker, child in self._children.items():
            if now - child.heard > self._settings.worker_timeout:
                raise _hung(worker, child)
        if training and self._settings.stall_timeout is not None and self._settings.function is None:
            self._look_for_stall(now)

    def _look_for_stall(self, now: float) -> None:
        if any(child.result is not None for child in self._children.values()):
            return  # the chief is writing the results, however long that takes
        worker, child = min(self._children.items(), key=lambda pair: pair[1].moved)
        if now - child.moved > self._settings.stall_timeout:
            raise WorkerLost(worker, f"got no further for {now - child.moved:.0f} s{_where(child)}")

    def _tell_cause(self) -> None:
        """Raises what was the matter with the one that failed first; the others failed for want of it."""
        time.sleep(FIND_CAUSE_SECONDS)
        if self._chief.result is not None:
            return
        gone = [pair for pair in self._children.items() if pair[1].ended_silently]
        # A process that TensorFlow aborts may have been left alone, too.
        for worker, child in sorted(gone, key=lambda pair: pair[1].status == -6):
            if child.status == -6 and self._own_failures():
                break
            if child.port is None:
                why = f"could not be started: its command {child.how_it_ended}"
                raise WorkerLost(worker, why, again=not self._first)
            raise WorkerLost(worker, f"{child.how_it_ended}{_where(child)}", hint=child.hint)
        for failure in self._own_failures():
            raise failure
        now = time.monotonic()
        for worker, child in self._children.items():
            if not child.finished and now - child.heard > SILENT_SECONDS:
                raise _hung(worker, child)
        for worker, child in self._children.items():
            if child.failure is not None:
                raise WorkerLost(worker, f"failed{_where(child)}: {child.failure}")

    def _own_failures(self) -> list[Exception]:
        return [child.failure for child in self._children.values() if child.failure and not child.left_alone]

    def _stop(self, *, training: bool) -> None:
        """Has a checkpoint written if they train by now, and ends this process too."""
        for child in self._children.values():
            child.stop()
        until = time.monotonic() + (STOP_SECONDS if training else 0)
        while time.monotonic() < until:
            left = [child for child in self._children.values() if not child.ended]
            if not left:
                break
            if len(left) < len(self._children):
                until = min(until, time.monotonic() + STOP_TOGETHER_SECONDS)
            left[0].wait(0.1)
        for worker, child in self._children.items():
            if training and not child.ended:
                LOG.warning("%s did not stop when told to, and is killed", worker)
        self.end()
        interruption.obey()


def log_of(folder: Path, worker: Worker) -> Path:
    """Where what a worker prints is kept until training is done."""
    return folder / f"worker-{worker.number}.log"


def _given_up(lost: WorkerLost, restarts: int, logs: Path) -> str:
    log = log_of(logs, lost.worker)
    last = _last_line(log)
    tried = f"; that was the last of {restarts} restarts (Trainer.max_restarts)" if restarts else ""
    ends = f"; its last line: {last}" if last else ""
    return f"{lost}{tried}{ends}; all that it said: {log}{lost.hint}"


def _last_line(log: Path) -> str:
    if not log.exists():
        return ""
    lines = [line.strip() for line in end_of(log, 8192).splitlines()]
    told = [line for line in lines if line and not _NOISE.match(line)]
    return told[-1].decode(errors="replace")[:MOST_TOLD] if told else ""


def _hung(worker: Worker, child: TrainingProcess) -> WorkerLost:
    return WorkerLost(worker, f"hangs: no sign of life for {time.monotonic() - child.heard:.0f} s{_where(child)}")


def _where(child: TrainingProcess) -> str:
    """When, in terms of what it said last: "epoch 1 of 2, step 30 of 938: loss ..."."""
    return f" after {child.stands.partition(':')[0]!r}" if child.stands else " before its first step"


def _nothing(text: str) -> None:
    """The workers say the same; one is heard."""


def _importing() -> list[str]:
    """The words before a command on another machine that let it import kerasline where it is not installed."""
    root = package_root()
    return ["env", f"PYTHONPATH={root}"] if root else []
