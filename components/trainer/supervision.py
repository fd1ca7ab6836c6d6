"""Training in other processes: started, watched, and started again when one of several workers is lost.

All workers wait for each other in every step, so one that is gone or hangs holds up the rest. Then all of them are
ended, and all resume from the last checkpoint.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from pathlib import Path
from typing import Any

from kerasline.components.core import interruption
from kerasline.components.core.errors import KeraslineError
from kerasline.components.core.import_path import package_root
from kerasline.components.processes.child import Log
from kerasline.components.processes.parent import HEARTBEAT_SECONDS
from kerasline.components.trainer import cluster
from kerasline.components.trainer.cluster import Worker
from kerasline.components.trainer.job import Job
from kerasline.components.trainer.process import Report, TrainingProcess, training_command

LOG = logging.getLogger("kerasline")
# The pause before the first restart. It doubles with each restart.
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 30.0
# When one worker is lost the others fail too: wait this long to identify the root failure.
ROOT_FAILURE_SECONDS = 1.5
# Once another worker's TensorFlow has reported a lost peer, this silence counts instead of `worker_timeout`.
SILENT_SECONDS = 5 * HEARTBEAT_SECONDS
# Time to write a checkpoint when stopped. Less once a worker has ended, because the others would wait for it.
STOP_SECONDS, STOP_AFTER_FIRST_SECONDS = 60.0, 15.0
# Time to remove temporary files on other machines.
END_SECONDS = 3.0


def train_apart(job: Job, report: Report) -> dict[str, Any]:
    """Train in a process of its own, or in one for each of the job's workers.

    Returns:
        The metrics to display. With workers they are the chief's, and `restarts` if there were any.

    Raises:
        KeraslineError: as `training.train`; or the process ended without a result; or workers were lost more often
            than `max_restarts`.
    """
    return _train_together(job, report) if job.settings.workers else _train_alone(job, report)


def _train_alone(job: Job, report: Report) -> dict[str, Any]:
    changed = threading.Event()
    with interruption.deferred() as stop:
        child = TrainingProcess(training_command(), on_change=changed.set, report=report)
        try:
            child.start_job(job)
            while not child.is_finished:
                changed.wait(0.1)
                changed.clear()
                if stop.is_set():
                    child.request_stop()
                    child.wait()
                    interruption.obey()
        finally:
            child.kill()
    if child.failure is not None:
        raise child.failure
    if child.result is None:
        raise KeraslineError(
            f"the training process {child.ending}; run again to resume from its last checkpoint{child.hint}"
        )
    return child.result


def _train_together(job: Job, report: Report) -> dict[str, Any]:
    settings, restarts = job.settings, 0
    job = dataclasses.replace(job, state_dir=job.state_dir or job.work_dir / "state")
    with interruption.deferred() as stop:
        while True:
            attempt = _Attempt(job, report, is_first=restarts == 0)
            try:
                return {**attempt.result(stop), **({"restarts": restarts} if restarts else {})}
            except WorkerLost as lost:
                if not lost.can_retry or restarts == settings.max_restarts:
                    raise KeraslineError(_final_message(lost, restarts, attempt.logs)) from None
                restarts += 1
                message = f"{lost}; restarting all workers from the last checkpoint "
                message += f"(restart {restarts} of {settings.max_restarts})"
                LOG.warning(message)
                report(message)
            finally:
                attempt.end()
            if stop.wait(min(FIRST_PAUSE_SECONDS * 2 ** (restarts - 1), LONGEST_PAUSE_SECONDS)):
                interruption.obey()


class WorkerLost(Exception):
    """A worker has ended or hangs.

    Attributes:
        can_retry: whether another start may help.
        hint: the likely cause, if it is known.
    """

    def __init__(self, worker: Worker, why: str, *, can_retry: bool = True, hint: str = "") -> None:
        super().__init__(f"{worker} {why}")
        self.worker, self.can_retry, self.hint = worker, can_retry, hint


class _Attempt:
    """One start of all workers, watched until the chief has its result."""

    def __init__(self, job: Job, report: Report, *, is_first: bool) -> None:
        assert job.settings.workers is not None and job.state_dir is not None
        self._job, self._settings, self._is_first = job, job.settings, is_first
        self._changed = threading.Event()
        self.workers = cluster.parse_workers(job.settings.workers)
        self.logs = job.state_dir / "workers"
        self.logs.mkdir(parents=True, exist_ok=True)
        self._is_local = {worker: worker.is_local for worker in self.workers}
        self._report = report
        self._children: dict[Worker, TrainingProcess] = {}

    def result(self, stop: threading.Event) -> dict[str, Any]:
        """Return the result of the chief, which alone writes.

        Raises:
            WorkerLost: a worker was lost before that.
            KeraslineError: a worker cannot train, and a restart would not help.
        """
        for worker in self.workers:
            self._children[worker] = self._start(worker)
        addresses: list[str] = []
        is_training = False
        while self._chief.result is None:
            self._changed.wait(0.2)
            self._changed.clear()
            if stop.is_set():
                self._stop(is_training)
            self._check(is_training)
            ports = {worker: child.port for worker, child in self._children.items() if child.port}
            if not addresses and len(ports) == len(self.workers):
                addresses = [worker.address(port) for worker, port in ports.items()]
                for worker, child in self._children.items():
                    child.introduce(worker.number, addresses)
            if not is_training and all(child.connected for child in self._children.values()):
                self._start_jobs(addresses)
                is_training = True
        return self._chief.result

    def end(self) -> None:
        """End all remaining workers. Those that react in time end by themselves."""
        for child in self._children.values():
            child.release()
        deadline = time.monotonic() + END_SECONDS
        for child in self._children.values():
            child.wait(max(0.0, deadline - time.monotonic()))
            child.kill()

    @property
    def _chief(self) -> TrainingProcess:
        return self._children[self.workers[0]]

    def _start(self, worker: Worker) -> TrainingProcess:
        # All workers report the same progress: only the chief's is passed on.
        report = self._report if worker.number == 0 else _ignore
        command = training_command(str(worker.port or 0))
        if not self._is_local[worker]:
            template = self._settings.launch or cluster.SSH
            command = cluster.launch_command(template, worker.host, [*_import_prefix(), *command])
        try:
            return TrainingProcess(
                command, on_change=self._changed.set, report=report, log=_log_path(self.logs, worker)
            )
        except OSError as error:
            raise WorkerLost(worker, f"cannot be started: {command[0]}: {error.strerror}", can_retry=False) from error

    def _start_jobs(self, addresses: list[str]) -> None:
        # A single worker is not a cluster for TensorFlow. It is watched all the same.
        is_alone = len(self.workers) == 1
        settings = dataclasses.replace(self._settings, workers=None)
        if is_alone:
            settings = dataclasses.replace(settings, distribution="none")
        job = dataclasses.replace(self._job, settings=settings)
        for worker, child in self._children.items():
            environment = {} if is_alone else cluster.tf_config(addresses, worker.number)
            if not self._is_local[worker]:
                environment = {**cluster.library_environment(), **environment}
            child.start_job(job, environment, is_remote=not self._is_local[worker])

    # Failures

    def _check(self, is_training: bool) -> None:
        if any(child.failure or child.has_ended for child in self._children.values()):
            self._raise_root_failure()
        now = time.monotonic()
        for worker, child in self._children.items():
            if now - child.last_heard > self._settings.worker_timeout:
                raise _hangs(worker, child)
        if is_training and self._settings.function is None:
            self._check_progress(now)

    def _check_progress(self, now: float) -> None:
        timeout = self._settings.stall_timeout
        if timeout is None or any(child.result is not None for child in self._children.values()):
            return  # no limit, or the chief is writing the results, which may take any time
        worker, child = min(self._children.items(), key=lambda pair: pair[1].last_progress)
        if now - child.last_progress > timeout:
            raise WorkerLost(worker, f"made no progress for {now - child.last_progress:.0f} s{_when(child)}")

    def _raise_root_failure(self) -> None:
        """Raise the failure that caused the others, unless the chief has succeeded meanwhile."""
        time.sleep(ROOT_FAILURE_SECONDS)
        if self._chief.result is not None:
            return
        gone = [pair for pair in self._children.items() if pair[1].ended_silently]
        # TensorFlow may abort a process that has lost a peer, so look at aborted workers (-6, SIGABRT) last.
        for worker, child in sorted(gone, key=lambda pair: pair[1].status == -6):
            if child.status == -6 and self._own_failures():
                break
            if child.port is None:
                why = f"could not be started: its command {child.ending}"
                raise WorkerLost(worker, why, can_retry=not self._is_first)
            raise WorkerLost(worker, f"{child.ending}{_when(child)}", hint=child.hint)
        for failure in self._own_failures():
            raise failure
        now = time.monotonic()
        for worker, child in self._children.items():
            if not child.is_finished and now - child.last_heard > SILENT_SECONDS:
                raise _hangs(worker, child)
        for worker, child in self._children.items():
            if child.failure is not None:
                raise WorkerLost(worker, f"failed{_when(child)}: {child.failure}")

    def _own_failures(self) -> list[Exception]:
        return [child.failure for child in self._children.values() if child.failure and not child.lost_a_peer]

    def _stop(self, is_training: bool) -> None:
        """Let the workers write a checkpoint, if they train already, and end this process."""
        for child in self._children.values():
            child.request_stop()
        deadline = time.monotonic() + (STOP_SECONDS if is_training else 0)
        while time.monotonic() < deadline:
            left = [child for child in self._children.values() if not child.has_ended]
            if not left:
                break
            if len(left) < len(self._children):
                deadline = min(deadline, time.monotonic() + STOP_AFTER_FIRST_SECONDS)
            left[0].wait(0.1)
        for worker, child in self._children.items():
            if is_training and not child.has_ended:
                LOG.warning("%s did not stop on request and is killed", worker)
        self.end()
        interruption.obey()


def _log_path(folder: Path, worker: Worker) -> Path:
    return folder / f"worker-{worker.number}.log"


def _final_message(lost: WorkerLost, restarts: int, logs: Path) -> str:
    log = Log(_log_path(logs, lost.worker))
    attempts = f"; {restarts} restarts did not help (Trainer.max_restarts)" if restarts else ""
    return f"{lost}{attempts}{log.last_words()}; its log: {log.path}{lost.hint}"


def _hangs(worker: Worker, child: TrainingProcess) -> WorkerLost:
    seconds = time.monotonic() - child.last_heard
    return WorkerLost(worker, f"hangs: no sign of life for {seconds:.0f} s{_when(child)}")


def _when(child: TrainingProcess) -> str:
    """Return the time of a failure by the last progress message, such as "epoch 1 of 2, step 30 of 938: loss ..."."""
    return f" after {child.progress.partition(':')[0]!r}" if child.progress else " before its first step"


def _ignore(text: str) -> None:
    pass


def _import_prefix() -> list[str]:
    """Return what precedes a command on another machine so that it finds kerasline, if it is not installed here."""
    root = package_root()
    return ["env", f"PYTHONPATH={root}"] if root else []
