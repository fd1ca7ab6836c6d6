"""TCP ports of this machine that child processes are to listen on."""

from __future__ import annotations

import contextlib
import socket
import time

LOOPBACK = "127.0.0.1"
RETRY_SECONDS = 0.2


def free_ports(count: int) -> list[int]:
    """Return distinct ports of the loopback interface that nobody uses at the moment.

    Raises:
        OSError: there are none.
    """
    with contextlib.ExitStack() as opened:
        sockets = [opened.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind((LOOPBACK, 0))
        return [one.getsockname()[1] for one in sockets]


def is_free(port: int) -> bool:
    """Return whether a port of the loopback interface can be listened on."""
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # ignore closed connections in TIME_WAIT
        with contextlib.suppress(OSError):
            one.bind((LOOPBACK, port))
            return True
    return False


def is_listening(port: int) -> bool:
    """Return whether a process accepts connections at a port of the loopback interface."""
    with socket.socket() as one:
        one.settimeout(1.0)
        return one.connect_ex((LOOPBACK, port)) == 0


def bind(port: int, wait_seconds: float) -> socket.socket:
    """Bind a port on all interfaces.

    A process of ours that holds the port may need a moment to release it.

    Args:
        port: the port, or 0 for any free one.
        wait_seconds: how long to retry.

    Raises:
        OSError: it is still in use after `wait_seconds`.
    """
    deadline = time.monotonic() + wait_seconds
    while True:
        opened = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        # If both sides set SO_REUSEADDR, a port that is bound but not listened on can be bound again (socket(7)).
        # TensorFlow's server sets it. A port that the system chooses must be entirely free.
        if port:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            opened.bind(("", port))
            return opened
        except OSError:
            opened.close()
            if time.monotonic() > deadline:
                raise
            time.sleep(RETRY_SECONDS)
