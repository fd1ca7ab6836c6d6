"""Cheap rejection of requests that the event loop cannot handle in time.

When requests cost more than the model, the event loop is overloaded: it would read and parse requests whose deadlines
pass before it answers. `Backlog` estimates the wait for the event loop, and `Connection` rejects a request that would
wait too long before it is parsed, at a tenth of the cost of an answer.
"""

from __future__ import annotations

import re

# Share of its timeout that a request may wait for the event loop. It also waits before it is read, and for its answer.
WAIT_SHARE = 0.25
# Requests are never rejected for a shorter wait.
LEAST_WAIT_SECONDS = 0.02
# How long nothing is read from a client that was rejected, at most, as Retry-After says.
MAX_PAUSE_SECONDS = 1.0
# Fewest requests ahead of one whose wait is measured.
MEASURED_AHEAD = 8
_WEIGHT = 0.05
_TIMEOUT = re.compile(rb"\r\nx-request-timeout: *([\d.]+)\r\n", re.IGNORECASE)
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_SPECIAL = re.compile(rb"\r\n(?:transfer-encoding|expect|upgrade):", re.IGNORECASE)
_BODY = b'{"error":"the server is overloaded: an answer would come after the deadline of the request; try again"}'
REJECTION = (
    b"HTTP/1.1 429 Too Many Requests\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\nRetry-After: 1\r\n\r\n%s" % (len(_BODY), _BODY)
)


class Backlog:
    """The requests that were received and have not begun to be handled."""

    def __init__(self) -> None:
        self._waiting = 0
        self._seconds = 0.0

    def enter(self, now: float) -> tuple[float, int]:
        """Add a request, and return a ticket for `leave`."""
        ticket = (now, self._waiting)
        self._waiting += 1
        return ticket

    def leave(self, ticket: tuple[float, int], now: float | None) -> None:
        """Remove a request that begins to be handled now, or that never will (None)."""
        self._waiting -= 1
        entered, ahead = ticket
        if now is not None and ahead >= MEASURED_AHEAD:
            self._seconds += _WEIGHT * ((now - entered) / ahead - self._seconds)

    def expected_seconds(self) -> float:
        """Return how long a request that is received now will wait until it is handled."""
        return self._waiting * self._seconds


def patience_seconds(data: bytes, default: float) -> float | None:
    """Return how long the request in `data` may wait for the event loop, or None if it is not one whole POST request.

    Args:
        default: timeout of requests that set none.
    """
    end = data.find(b"\r\n\r\n")
    head = data[: end + 2]
    length = _LENGTH.search(head)
    if end < 0 or length is None or len(data) != end + 4 + int(length[1]):
        return None
    if not data.startswith(b"POST ") or _SPECIAL.search(head):
        return None
    timeout = _TIMEOUT.search(head)
    try:
        seconds = min(default, float(timeout[1])) if timeout else default
    except ValueError:  # which is answered with its own error
        return None
    return max(LEAST_WAIT_SECONDS, WAIT_SHARE * seconds)
