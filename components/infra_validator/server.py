"""The server that the candidate is tried behind: ours, or another by its command line."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shlex
import shutil
import socket
import sys
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kerasline.components.core.errors import KeraslineError, ParameterError, nearest
from kerasline.components.core.import_path import search_path
from kerasline.components.infra_validator.client import HOST, NoAnswer, model_state
from kerasline.components.infra_validator.verdict import Refused
from kerasline.components.processes.supervising import Supervised

# What our server imports; gRPC is left out where its library is not there.
NEEDED = ("aiohttp", "multidict", "orjson", "prometheus_client")
PLACES = ("rest_port", "grpc_port", "name", "folder", "saved_model")
TRIES = 3
POLL_SECONDS = 0.05
GRACE_SECONDS = 5.0  # of a server that is not ours; ours has nothing to put away


@dataclass(frozen=True)
class Address:
    """Where a model is served; `grpc_port` is None where gRPC is not."""

    name: str
    rest_port: int
    grpc_port: int | None


class CandidateServer:
    """A server of the candidate: started at once, ended on leaving the context.

    Args:
        folder: takes the folder of versions that the server is given.
        log: takes what the server prints.
        settings: `command`, `ready_seconds` and `request_seconds` of InfraValidator.
        environment: added to this process's.
    """

    def __init__(
        self, saved_model: Path, folder: Path, log: Path, settings: Any, environment: Mapping[str, str]
    ) -> None:
        self._saved_model, self._log, self._settings, self._environment = (
            saved_model.absolute(),
            log,
            settings,
            environment,
        )
        self._versions = folder / "versions"
        self._versions.mkdir()
        (self._versions / "1").symlink_to(self._saved_model, target_is_directory=True)  # nothing is copied
        self.ready_rule = f"the server is ready within {settings.ready_seconds:g} s"
        self._start()

    def __enter__(self) -> CandidateServer:
        return self

    def __exit__(self, *_error: Any) -> None:
        self._process.stop()
        self._process.shorten_log()

    def wait_until_ready(self, seconds: float) -> None:
        """Waits until the model can be asked; `address` is settled then.

        Raises:
            Refused: the server ends, says that it cannot load the model, or takes too long.
            KeraslineError: others take the ports as often as they are found free.
        """
        end, tries = time.monotonic() + seconds, 1
        while time.monotonic() < end:
            if ending := self.ending():
                if not self._lost_its_port():
                    raise Refused(
                        self.ready_rule,
                        f"{ending} before it was ready",
                        maybe_the_machine="SIGKILL" in ending,
                    )
                if tries == TRIES:
                    raise KeraslineError(f"InfraValidator: no port of {HOST} stays free; try again")
                tries += 1
                self._process.stop()
                self._start()
            if self._is_ready():
                self._process.forget_words()
                return
            time.sleep(POLL_SECONDS)
        why = f"the server is not ready after {seconds:g} s{self.last_words()}"
        raise Refused(self.ready_rule, why, maybe_the_machine=True)

    def ending(self, wait_seconds: float = 0.0) -> str | None:
        """How it ended by itself; None if it runs."""
        ending = self._process.ending(wait_seconds)
        return f"the server {ending}" if ending else None

    def last_words(self) -> str:
        """What it said last since it was ready, as the end of a sentence."""
        return self._process.last_words()

    def log_tail(self) -> list[str]:
        return self._process.log_tail()

    def _start(self) -> None:
        self.address = new_address(with_grpc=_talks_grpc(self._settings.command))
        program = self._program()
        grace = GRACE_SECONDS if self._settings.command else 0.0
        self._process = Supervised(program, self._log, self._environment, grace_seconds=grace)

    def _program(self) -> list[str]:
        address, command = self.address, self._settings.command
        if command is not None:
            places = {**vars(address), "folder": self._versions, "saved_model": self._saved_model}
            return command_line(command, places)
        return [
            sys.executable,
            "-m",
            "kerasline.components.infra_validator.serving",
            str(self._saved_model),
            address.name,
            str(address.rest_port),
            str(address.grpc_port or 0),
            str(self._settings.request_seconds),
        ]

    def _is_ready(self) -> bool:
        """Raises Refused where the server runs on without the model, as TensorFlow Serving does."""
        try:
            state, error = model_state(self.address)
        except NoAnswer:
            return False
        if state == "END" and error:
            raise Refused(self.ready_rule, f"the server cannot load the model: {' '.join(error.split())[:300]}")
        return state == "AVAILABLE" and (self.address.grpc_port is None or _listens(self.address.grpc_port))

    def _lost_its_port(self) -> bool:
        """Whether somebody else listens where it should have."""
        return any(port and not _is_free(port) for port in (self.address.rest_port, self.address.grpc_port))


def check_command(command: str | None) -> str:
    """What serves, by name.

    Raises:
        KeraslineError: our server's libraries are not installed.
        ParameterError: the command names no program, or a place that there is not.
    """
    if command is None:
        for library in NEEDED:
            if importlib.util.find_spec(library) is None:
                raise KeraslineError(
                    f"InfraValidator starts a server, which needs {library}: pip install 'kerasline[serve]'"
                )
        return "kerasline"
    words = command_line(command, dict.fromkeys(PLACES, 0))
    if "{rest_port}" not in command or not ("{folder}" in command or "{saved_model}" in command):
        raise ParameterError(
            "InfraValidator.command: the server must be told {rest_port}, and {folder} or {saved_model}"
        )
    if not words or shutil.which(words[0]) is None:
        raise ParameterError(f"InfraValidator.command: {words[0]!r} is no program here; install it or give its path")
    return Path(words[0]).name


def command_line(command: str, places: Mapping[str, Any]) -> list[str]:
    """The words of a command with its places filled in.

    Raises:
        ParameterError: it cannot be taken apart, or names a place that there is not.
    """
    try:
        return [word.format(**places) for word in shlex.split(command)]
    except KeyError as error:
        name = error.args[0]
        raise ParameterError(f"InfraValidator.command: no place {{{name}}}; {nearest(name, PLACES)}") from None
    except (ValueError, IndexError) as error:
        raise ParameterError(f"InfraValidator.command: {error}; a place is written as in {{rest_port}}") from None


def importable() -> dict[str, str]:
    """The environment in which a child of ours finds what this process has imported."""
    return {"PYTHONPATH": os.pathsep.join(search_path())}


def new_address(*, with_grpc: bool) -> Address:
    """Two free ports, and a name that no other server's model has: a stranger on a port is told by it.

    Raises:
        KeraslineError: no port is free.
    """
    try:
        with socket.socket() as rest, socket.socket() as grpc:
            for one in (rest, grpc):
                one.bind((HOST, 0))
            ports = [one.getsockname()[1] for one in (rest, grpc)]
    except OSError as error:
        raise KeraslineError(f"InfraValidator: no port of {HOST} is free: {error.strerror}") from error
    return Address(f"candidate_{uuid.uuid4().hex[:8]}", ports[0], ports[1] if with_grpc else None)


def _talks_grpc(command: str | None) -> bool:
    """With a server that does, and grpcio to ask it."""
    is_served = "{grpc_port}" in command if command else importlib.util.find_spec("h2corn") is not None
    return is_served and importlib.util.find_spec("grpc") is not None


def _is_free(port: int) -> bool:
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that rest do not count
        with contextlib.suppress(OSError):
            one.bind((HOST, port))
            return True
    return False


def _listens(port: int) -> bool:
    with socket.socket() as one:
        one.settimeout(1.0)
        return one.connect_ex((HOST, port)) == 0
