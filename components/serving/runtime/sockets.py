"""The sockets that the server listens on: TCP, of both families where the host has both, or a Unix socket."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Sequence
from pathlib import Path

from kerasline.components.core.errors import KeraslineError
from kerasline.components.serving.runtime.settings import ServerSettings

BACKLOG = 1024
LOOPBACKS = ("127.0.0.1", "::1")
# Hosts that are addresses of both families, whatever the resolver of this machine knows.
BOTH_FAMILIES = {"::": ("0.0.0.0", "::"), "localhost": LOOPBACKS}
# A free port of one family may be in use in the other.
FREE_PORT_TRIES = 20
_NO_FAMILY = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


class ServerSockets:
    """The sockets of REST and of gRPC, bound but not listening yet.

    Several processes bind the same ports, among which the kernel distributes connections (SO_REUSEPORT), but share one
    Unix socket.

    Attributes:
        rest, grpc: the sockets; empty if the interface is disabled.

    Raises:
        KeraslineError: an address is in use or does not exist.
    """

    def __init__(self, settings: ServerSettings):
        self._settings = settings
        self._paths: list[Path] = []
        self._ports: dict[str, int | None] = {"rest": settings.rest_port, "grpc": settings.grpc_port}
        self.rest: list[socket.socket] = []
        self.grpc: list[socket.socket] = []
        try:
            self.rest = self._open("rest", settings.rest_socket)
            self.grpc = self._open("grpc", settings.grpc_socket)
        except BaseException:
            self.close()
            raise

    def _open(self, interface: str, path: Path | None) -> list[socket.socket]:
        port = self._ports[interface]
        if port is None:
            return []
        name = "REST" if interface == "rest" else "gRPC"
        if path is not None:
            try:
                bound = _bind_unix(path)
            except OSError as error:
                reason = error.strerror or error
                raise KeraslineError(f"serve: {name} cannot listen on {path}: {reason}; try another path") from error
            self._paths.append(path)
            return [bound]
        try:
            sockets = _bind_tcp(self._settings.host, port, is_shared=self._settings.workers > 1)
        except OSError as error:
            address = f"{self._settings.host}:{port}"
            hint = f"--{interface}-port" if error.errno == errno.EADDRINUSE else "--host"
            raise KeraslineError(f"serve: {name} cannot listen on {address}: {error.strerror}; try {hint}") from error
        self._ports[interface] = sockets[0].getsockname()[1]
        return sockets

    def open_in_worker(self) -> None:
        """Bind the same ports again, for a process of its own."""
        for interface in ("rest", "grpc"):
            sockets = getattr(self, interface)
            if sockets and sockets[0].family != socket.AF_UNIX:
                setattr(self, interface, self._open(interface, None))

    def address(self, interface: str) -> str:
        """Return the address as text, such as `127.0.0.1:8501` or `unix:/run/model.sock`."""
        first = getattr(self, interface)[0]
        if first.family == socket.AF_UNIX:
            return f"unix:{first.getsockname()}"
        host = self._settings.host
        return f"[{host}]:{self._ports[interface]}" if ":" in host else f"{host}:{self._ports[interface]}"

    def is_reachable(self) -> bool:
        """Return whether other machines may connect."""
        tcp = [one for one in (*self.rest, *self.grpc) if one.family != socket.AF_UNIX]
        return any(one.getsockname()[0] not in LOOPBACKS for one in tcp)

    def close(self) -> None:
        for one in (*self.rest, *self.grpc):
            one.close()
        for path in self._paths:
            path.unlink(missing_ok=True)


def _bind_tcp(host: str, port: int, *, is_shared: bool) -> list[socket.socket]:
    """Bind a port on each address of a host. Port 0 takes a port that is free on all."""
    names = BOTH_FAMILIES.get(host, (host,))
    found = [one for name in names for one in socket.getaddrinfo(name, 0, type=socket.SOCK_STREAM)]
    addresses = list(dict.fromkeys((family, str(address[0])) for family, _, _, _, address in found))
    for last in reversed(range(FREE_PORT_TRIES if port == 0 else 1)):
        try:
            return _bind_all(addresses, port, is_shared)
        except OSError as error:
            if last == 0 or error.errno != errno.EADDRINUSE:
                raise
    raise AssertionError("the last try returns or raises")


def _bind_all(addresses: Sequence[tuple[socket.AddressFamily, str]], port: int, is_shared: bool) -> list[socket.socket]:
    bound: list[socket.socket] = []
    with contextlib.ExitStack() as sockets:
        for number, (family, address) in enumerate(addresses, 1):
            try:
                one = sockets.enter_context(socket.socket(family, socket.SOCK_STREAM))
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if is_shared:
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                if family == socket.AF_INET6:
                    one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                one.bind((address, port))
            except OSError as error:
                if error.errno in _NO_FAMILY and (bound or number < len(addresses)):
                    continue  # a machine without IPv6 has the name, but not the address
                raise
            one.setblocking(False)
            port = one.getsockname()[1]
            bound.append(one)
        sockets.pop_all()
    return bound


def _bind_unix(path: Path) -> socket.socket:
    """Bind a Unix socket, which only users who may write to it can connect to. Replace one that nobody serves."""
    if path.exists():
        if not stat.S_ISSOCK(path.stat().st_mode):
            raise OSError(errno.EEXIST, "the file exists and is not a socket")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            if probe.connect_ex(os.fspath(path)) == 0:
                raise OSError(errno.EADDRINUSE, "another server listens there")
        path.unlink()
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        bound.bind(os.fspath(path))
    except BaseException:
        bound.close()
        raise
    bound.setblocking(False)
    return bound
