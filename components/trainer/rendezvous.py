"""Before TensorFlow is loaded: whether the workers reach each other, and on which port each will listen.

TensorFlow waits without end, and without a word, for a worker that it cannot reach.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence

from kerasline.components.core.errors import KeraslineError, ParameterError

SECONDS = 20.0  # for one connection; routers and firewalls that drop packets answer never
PATIENCE_SECONDS = 5.0  # for a port that the worker of an earlier attempt is still to give up


class Meeting:
    """This worker's door, open while the others knock.

    Args:
        port: 0 for one that is free.

    Raises:
        ParameterError: the port is in use.
    """

    def __init__(self, port: int) -> None:
        self._socket = _bound(port)
        self._socket.listen(128)
        self.port: int = self._socket.getsockname()[1]

    def visit(self, own: int, addresses: Sequence[str]) -> None:
        """Connects to each of the workers' addresses.

        Args:
            own: this worker's number.

        Raises:
            KeraslineError: one cannot be reached.
        """
        for number, address in enumerate(addresses):
            host, _, port = address.rpartition(":")
            try:
                socket.create_connection((host, int(port)), SECONDS).close()
            except OSError as error:
                raise KeraslineError(
                    f"worker {own} cannot reach worker {number} at {address}: {error.strerror or error}; they "
                    "talk to each other by TCP: look at names, routes and firewalls"
                ) from error

    def close(self) -> None:
        """Leaves the port to TensorFlow: until that listens there, no one else gets it."""
        self._socket.close()
        self._held = _bound(self.port)


def _bound(port: int) -> socket.socket:
    until = time.monotonic() + PATIENCE_SECONDS
    while True:
        opened = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        # With this on both sides, a port that is held but not listened on may be taken (socket(7), SO_REUSEADDR);
        # TensorFlow's server sets it. A port that the system is to choose must be free altogether.
        if port:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            opened.bind(("", port))
            return opened
        except OSError as error:
            opened.close()
            if time.monotonic() > until:
                raise ParameterError(
                    f"Trainer.workers: port {port} of {socket.gethostname()} cannot be listened on: {error.strerror}"
                ) from error
            time.sleep(0.2)
