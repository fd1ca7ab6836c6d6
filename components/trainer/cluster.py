"""The workers that train together: their addresses, how each is started, and whether they reach each other."""

from __future__ import annotations

import json
import os
import re
import shlex
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kerasline.components.core.errors import KeraslineError, ParameterError
from kerasline.components.processes import ports

WHERE = "Trainer.workers"
LOOPBACK = ("localhost", ports.LOOPBACK)
SSH = "ssh -o BatchMode=yes {host} {shell_command}"
# Prefixes of the variables that configure TensorFlow, Keras and the libraries beneath them.
LIBRARY_PREFIXES = ("TF_", "KERAS_", "XLA_", "NCCL_", "GRPC_")
CONNECT_SECONDS = 20.0  # a firewall may drop packets, so that a connection is neither accepted nor refused
PORT_WAIT_SECONDS = 5.0  # the worker of an earlier attempt may still hold the port
# TensorFlow's servers listen only on IPv4 addresses (grpc_server_lib.cc: "0.0.0.0:").
_ADDRESS = re.compile(r"([A-Za-z0-9_][A-Za-z0-9_.-]*)(?::(\d+))?")


@dataclass(frozen=True)
class Worker:
    """One of the processes that train together.

    Attributes:
        number: counted from 0. Worker 0 is the chief, which writes the results.
        host: name or address by which the other workers reach it.
        port: None if it takes any free one.
    """

    number: int
    host: str
    port: int | None = None

    def __str__(self) -> str:
        return f"worker {self.number} ({self.host if self.port is None else self.address(self.port)})"

    @property
    def is_local(self) -> bool:
        """Whether its host is this machine, that is, whether a socket can be bound to its address."""
        if self.host in (*LOOPBACK, socket.gethostname()):
            return True
        try:
            found = socket.getaddrinfo(self.host, None, type=socket.SOCK_STREAM)
        except OSError:
            return False  # a name that only the launch command can resolve
        return any(_can_bind(family, address) for family, _, _, _, address in found)

    def address(self, port: int) -> str:
        """Return its address with the port that it took."""
        return f"{self.host}:{port}"


def parse_workers(workers: int | Sequence[str]) -> tuple[Worker, ...]:
    """Return the workers that the parameter `workers` of Trainer describes.

    Args:
        workers: the number of processes on this machine, or a list of "host" or "host:port".

    Raises:
        ParameterError: an address is invalid or occurs twice, or the hosts cannot reach each other by these names.
    """
    names = ["localhost"] * workers if isinstance(workers, int) else workers
    found = tuple(Worker(number, *_parse_address(name)) for number, name in enumerate(names))
    fixed = [(worker.host, worker.port) for worker in found if worker.port is not None]
    for host, port in fixed:
        if fixed.count((host, port)) > 1:
            raise ParameterError(f"{WHERE}: {host}:{port} occurs twice; two workers on a host need different ports")
    loopback = [worker.host for worker in found if worker.host in LOOPBACK]
    if loopback and len(loopback) < len(found):
        raise ParameterError(
            f"{WHERE}: the other hosts cannot reach {loopback[0]!r}; write the address by which they reach this machine"
        )
    return found


def check_launch(template: str) -> None:
    """Raise a ParameterError if a launch command does not contain the worker's command."""
    try:
        text = " ".join(shlex.split(template))
    except ValueError as error:
        raise ParameterError(f"Trainer.launch: {template!r} is not a valid command: {error}") from error
    if "{command}" not in text.split() and "{shell_command}" not in text:
        raise ParameterError(
            f"Trainer.launch: {template!r} does not contain the worker's command; write {{command}} for its separate "
            "words, or {shell_command} for one quoted string that a shell parses, as with ssh"
        )


def launch_command(template: str, host: str, command: Sequence[str]) -> list[str]:
    """Return the command that starts `command` on a host."""
    words: list[str] = []
    for word in shlex.split(template):
        if word == "{command}":
            words += command
        else:
            words.append(word.replace("{host}", host).replace("{shell_command}", shlex.join(command)))
    return words


def tf_config(addresses: Sequence[str], number: int) -> dict[str, str]:
    """Return the environment of a worker, as MultiWorkerMirroredStrategy reads it."""
    cluster = {"cluster": {"worker": list(addresses)}, "task": {"type": "worker", "index": number}}
    return {"TF_CONFIG": json.dumps(cluster)}


def library_environment() -> dict[str, str]:
    """Return the variables here that configure TensorFlow, Keras and the libraries beneath; ssh does not pass them."""
    return {name: value for name, value in os.environ.items() if name.startswith(LIBRARY_PREFIXES)}


def host_of(address: str) -> str:
    """Return the host of "host:port"."""
    return address.rpartition(":")[0]


class Rendezvous:
    """Checks that the workers reach each other, before TensorFlow is loaded.

    TensorFlow waits forever, without a message, for a worker that it cannot reach. Each worker listens while the
    others connect to it.

    Args:
        port: port to listen on, or 0 for any free one.

    Raises:
        ParameterError: the port is in use.
    """

    def __init__(self, port: int) -> None:
        self._socket = _bind(port)
        self._socket.listen(128)
        self.port: int = self._socket.getsockname()[1]

    def connect_to_all(self, own_number: int, addresses: Sequence[str]) -> None:
        """Connect to each worker.

        Args:
            own_number: the number of this worker.
            addresses: "host:port" of each worker.

        Raises:
            KeraslineError: one cannot be reached.
        """
        for number, address in enumerate(addresses):
            host, _, port = address.rpartition(":")
            try:
                socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
            except OSError as error:
                raise KeraslineError(
                    f"worker {own_number} cannot reach worker {number} at {address}: {error.strerror or error}; "
                    "workers communicate over TCP: check names, routes and firewalls"
                ) from error

    def close(self) -> None:
        """Stop listening, but keep the port bound: only TensorFlow's server can take it over."""
        self._socket.close()
        self._held = _bind(self.port)


def _bind(port: int) -> socket.socket:
    try:
        return ports.bind(port, PORT_WAIT_SECONDS)
    except OSError as error:
        raise ParameterError(
            f"{WHERE}: cannot listen on port {port} of {socket.gethostname()}: {error.strerror}"
        ) from error


def _parse_address(name: str) -> tuple[str, int | None]:
    found = _ADDRESS.fullmatch(name)
    if not found:
        raise ParameterError(f"{WHERE}: expected a host or host:port such as 10.0.0.2:4000, received {name!r}")
    host, port = found[1], int(found[2]) if found[2] else None
    if port is not None and not 0 < port < 65536:
        raise ParameterError(f"{WHERE}: expected a port from 1 to 65535, received {name!r}")
    return host, port


def _can_bind(family: int, address: tuple[Any, ...]) -> bool:
    try:
        with socket.socket(family, socket.SOCK_STREAM) as tried:
            tried.bind((address[0], 0, *address[2:]))
            return True
    except OSError:
        return False
