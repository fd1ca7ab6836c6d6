"""The server that serves the candidate: kerasline's own, or another one given by its command line.

`python -m kerasline.components.infra_validator.server FOLDER NAME REST_PORT GRPC_PORT SECONDS` runs our own.
"""

from __future__ import annotations

import importlib.util
import sys
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kerasline.components.core.errors import KeraslineError
from kerasline.components.infra_validator.client import Address, NoAnswer, model_state
from kerasline.components.infra_validator.command import fill_in
from kerasline.components.infra_validator.settings import InfraValidatorSettings
from kerasline.components.infra_validator.verdict import Refused
from kerasline.components.processes import ports
from kerasline.components.processes.child import GuardedProcess, module_command

PORT_ATTEMPTS = 3
POLL_SECONDS = 0.05
GRACE_SECONDS = 5.0  # for another server; ours has nothing to save


class CandidateServer:
    """A server of the candidate. It starts at once; as a context manager it ends the server.

    Args:
        saved_model: the candidate.
        folder: a folder for temporary files.
        log: the file to append the server's output to.
        settings: the parameters of InfraValidator.
        environment: variables added to this process's.
    """

    def __init__(
        self,
        saved_model: Path,
        folder: Path,
        log: Path,
        settings: InfraValidatorSettings,
        environment: Mapping[str, str],
    ) -> None:
        self._saved_model, self._log_path = saved_model.absolute(), log
        self._settings, self._environment = settings, environment
        self._versions = folder / "versions"
        self._versions.mkdir()
        (self._versions / "1").symlink_to(self._saved_model, target_is_directory=True)  # avoids a copy
        self.ready_rule = f"the server is ready within {settings.ready_seconds:g} s"
        self._start()

    def __enter__(self) -> CandidateServer:
        return self

    def __exit__(self, *_error: Any) -> None:
        self._process.stop()
        self._process.log.truncate()

    def wait_until_ready(self) -> None:
        """Wait until the model is served. `address` is final then.

        Raises:
            Refused: the server ends, reports that it cannot load the model, or takes too long.
            KeraslineError: other programs took the ports at each of several attempts.
        """
        seconds, attempts = self._settings.ready_seconds, 1
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if ending := self.ending():
                if not self._port_is_taken():
                    why = f"{ending} before it was ready{self.last_words()}"
                    raise Refused(self.ready_rule, why, may_be_transient="SIGKILL" in ending)
                if attempts == PORT_ATTEMPTS:
                    raise KeraslineError(f"InfraValidator: no port of {ports.LOOPBACK} stays free; try again")
                attempts += 1
                self._process.stop()
                self._start()
            if self._is_ready():
                self._process.log.skip()
                return
            time.sleep(POLL_SECONDS)
        why = f"the server is not ready after {seconds:g} s{self.last_words()}"
        raise Refused(self.ready_rule, why, may_be_transient=True)

    def ending(self, wait_seconds: float = 0.0) -> str | None:
        """Return how the server ended by itself, or None if it still runs after `wait_seconds`."""
        ending = self._process.ending(wait_seconds)
        return f"the server {ending}" if ending else None

    def last_words(self) -> str:
        """Return the last line that it printed since it was ready, as the end of a sentence."""
        return self._process.log.last_words()

    def log_tail(self) -> list[str]:
        return self._process.log.tail()

    def _start(self) -> None:
        self.address = new_address(with_grpc=_supports_grpc(self._settings.command))
        grace = GRACE_SECONDS if self._settings.command else 0.0
        self._process = GuardedProcess(self._command(), self._log_path, self._environment, grace_seconds=grace)

    def _command(self) -> list[str]:
        address, command = self.address, self._settings.command
        if command is not None:
            values = {**vars(address), "folder": self._versions, "saved_model": self._saved_model}
            return fill_in(command, values)
        return module_command(
            "kerasline.components.infra_validator.server",
            str(self._saved_model),
            address.name,
            str(address.rest_port),
            str(address.grpc_port or 0),
            str(self._settings.request_seconds),
        )

    def _is_ready(self) -> bool:
        """Return whether the model is served. Raise Refused if the server cannot load it but continues to run."""
        try:
            state, error = model_state(self.address)
        except NoAnswer:
            return False
        if state == "END" and error:
            raise Refused(self.ready_rule, f"the server cannot load the model: {' '.join(error.split())[:300]}")
        return state == "AVAILABLE" and (self.address.grpc_port is None or ports.is_listening(self.address.grpc_port))

    def _port_is_taken(self) -> bool:
        return any(port and not ports.is_free(port) for port in (self.address.rest_port, self.address.grpc_port))


def new_address(*, with_grpc: bool) -> Address:
    """Return free ports and a unique model name, by which another server on these ports would be recognised.

    Raises:
        KeraslineError: no port is free.
    """
    try:
        rest_port, grpc_port = ports.free_ports(2)
    except OSError as error:
        raise KeraslineError(f"InfraValidator: no port of {ports.LOOPBACK} is free: {error.strerror}") from error
    return Address(f"candidate_{uuid.uuid4().hex[:8]}", rest_port, grpc_port if with_grpc else None)


def _supports_grpc(command: str | None) -> bool:
    """Return whether the server supports gRPC and grpcio is installed for the client."""
    is_served = "{grpc_port}" in command if command else importlib.util.find_spec("h2corn") is not None
    return is_served and importlib.util.find_spec("grpc") is not None


# In the child


def _main(folder: str, name: str, rest_port: int, grpc_port: int, request_seconds: float) -> None:
    """Serve a SavedModel until the process is ended. `grpc_port` 0 switches gRPC off."""
    from kerasline.components.core import garbage_collection, malloc
    from kerasline.components.serving.runtime.settings import Limits, ModelSource, ServerSettings

    garbage_collection.skip_at_exit()
    malloc.retain_freed()
    settings = ServerSettings(
        models=(ModelSource(name, Path(folder)),),
        rest_port=rest_port,
        grpc_port=grpc_port or None,
        limits=Limits(timeout_seconds=request_seconds),
    )
    from kerasline.components.serving.runtime.server import run

    try:
        run(settings, lambda line: print(line, flush=True))
    except KeraslineError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    _main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5]))
