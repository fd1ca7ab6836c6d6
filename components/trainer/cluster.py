"""Who trains together: the workers of Trainer's `workers`, where each is, and how it is started there."""

from __future__ import annotations

import json
import os
import re
import shlex
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from kerasline.components.core.errors import ParameterError

WHERE = "Trainer.workers"
LOOPBACK = ("localhost", "127.0.0.1")
LAUNCH = "ssh -o BatchMode=yes {host} {shell_command}"
PASSED_ON = ("TF_", "KERAS_", "XLA_", "NCCL_", "GRPC_")
# TensorFlow's servers listen on IPv4 addresses alone (grpc_server_lib.cc: "0.0.0.0:").
_ADDRESS = re.compile(r"([A-Za-z0-9_][A-Za-z0-9_.-]*)(?::(\d+))?")


@dataclass(frozen=True)
class Worker:
    """One of those who train together.

    Attributes:
        number: from 0; that one is the chief, who writes.
        host: its name or address, as the others reach it.
        port: None where it takes one that is free.
    """

    number: int
    host: str
    port: int | None = None

    def __str__(self) -> str:
        return f"worker {self.number} ({self.host if self.port is None else self.at(self.port)})"

    @property
    def is_here(self) -> bool:
        """Whether its host is this machine: an address is, if a socket can be bound to it."""
        if self.host in (*LOOPBACK, socket.gethostname()):
            return True
        try:
            found = socket.getaddrinfo(self.host, None, type=socket.SOCK_STREAM)
        except OSError:
            return False  # a name that only those who start it there know
        return any(_can_bind(family, address) for family, _, _, _, address in found)

    def at(self, port: int) -> str:
        """Its address, with the port that it took."""
        return f"{self.host}:{port}"


def workers(asked: int | Sequence[str]) -> tuple[Worker, ...]:
    """The workers that a number of processes here, or a list of hosts, stands for.

    Args:
        asked: each "host" or "host:port".

    Raises:
        ParameterError: no such address, one twice, or hosts that do not reach each other by these names.
    """
    names = ["localhost"] * asked if isinstance(asked, int) else asked
    found = tuple(Worker(number, *_parsed(name)) for number, name in enumerate(names))
    fixed = [(worker.host, worker.port) for worker in found if worker.port is not None]
    for address in fixed:
        if fixed.count(address) > 1:
            told = ":".join(map(str, address))
            raise ParameterError(f"{WHERE}: {told} is named twice; two workers of a host need two ports")
    loopback = [worker.host for worker in found if worker.host in LOOPBACK]
    if loopback and len(loopback) < len(found):
        raise ParameterError(
            f"{WHERE}: the other hosts cannot reach {loopback[0]!r}; write the address by which they reach this machine"
        )
    return found


def check_launch(template: str) -> None:
    """Raises a ParameterError if a worker cannot be started by this."""
    try:
        text = " ".join(shlex.split(template))
    except ValueError as error:
        raise ParameterError(f"Trainer.launch: {template!r} is no command: {error}") from error
    if "{command}" not in text.split() and "{shell_command}" not in text:
        raise ParameterError(
            f"Trainer.launch: {template!r} does not say where the command of a worker goes; write {{command}} "
            "for its words, or {shell_command} for one text that a shell there takes apart, as ssh's does"
        )


def launched(template: str, host: str, command: Sequence[str]) -> list[str]:
    """The words of the command that starts `command` on a host."""
    words: list[str] = []
    for word in shlex.split(template):
        if word == "{command}":
            words += command
        else:
            words.append(word.replace("{host}", host).replace("{shell_command}", shlex.join(command)))
    return words


def tf_config(addresses: Sequence[str], number: int) -> dict[str, str]:
    """The environment of one worker, as MultiWorkerMirroredStrategy reads it."""
    cluster = {"cluster": {"worker": list(addresses)}, "task": {"type": "worker", "index": number}}
    return {"TF_CONFIG": json.dumps(cluster)}


def environment_of_libraries() -> dict[str, str]:
    """The variables here by which TensorFlow, Keras and what is beneath them are set; ssh takes none along."""
    return {name: value for name, value in os.environ.items() if name.startswith(PASSED_ON)}


def host_of(address: str) -> str:
    """Of "host:port"."""
    return address.rpartition(":")[0]


def _parsed(name: str) -> tuple[str, int | None]:
    found = _ADDRESS.fullmatch(name)
    if not found:
        raise ParameterError(f"{WHERE}: {name!r} given; a host or host:port wanted, such as 10.0.0.2:4000")
    host, port = found[1], found[2] and int(found[2])
    if port is not None and not 0 < port < 65536:
        raise ParameterError(f"{WHERE}: {name!r} given; its port is no number from 1 to 65535")
    return host, port


def _can_bind(family: int, address: tuple) -> bool:
    try:
        with socket.socket(family, socket.SOCK_STREAM) as tried:
            tried.bind((address[0], 0, *address[2:]))
            return True
    except OSError:
        return False
