"""REST connections within limits: their number, and how slowly a client may send or read."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import orjson
from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from kerasline.components.serving.http.overload import (
    LEAST_WAIT_SECONDS,
    MAX_PAUSE_SECONDS,
    REJECTION,
    Backlog,
    patience_seconds,
)
from kerasline.components.serving.runtime.metrics import Metrics
from kerasline.components.serving.runtime.settings import Limits

TOO_MANY_RESPONSE = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: 32\r\n"
    b'Retry-After: 1\r\nConnection: close\r\n\r\n{"error":"too many connections"}'
)
# Instead of the names and versions of aiohttp and Python.
SERVER_NAME = "kerasline"
CHECK_SECONDS = 1.0
# After a rejected request, aiohttp discards the rest of its body for this long, then closes the connection.
LINGERING_SECONDS = 2.0


class BoundedServer(web.Server):
    """aiohttp's low-level server with limits on its connections."""

    def __init__(self, handler: Any, limits: Limits, metrics: Metrics):
        super().__init__(
            handler,
            handler_cancellation=True,  # a client that hung up needs no execution
            access_log=None,
            lingering_time=LINGERING_SECONDS,
            keepalive_timeout=limits.keep_alive_seconds,
        )
        self.limits, self._metrics = limits, metrics
        self.backlog = Backlog()

    def count_rejection(self) -> None:
        """Count a request that was rejected because the event loop is overloaded."""
        self._metrics.count_request("rest", "", None, "POST", "RESOURCE_EXHAUSTED", 0.0)

    def __call__(self) -> RequestHandler:
        return Connection(self, loop=self._loop, **self._kwargs)

    async def watch(self) -> None:
        """Close connections of clients that send or read too slowly, until cancelled."""
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            connections = [one for one in self.connections if isinstance(one, Connection)]
            self._metrics.connections.set(len(connections))
            now = time.monotonic()
            for connection in connections:
                connection.note_progress(now)
                if connection.is_overdue(now) and connection.transport is not None:
                    connection.transport.abort()


class Connection(RequestHandler):
    """A connection. `RestEndpoints` calls `begin` and `end`."""

    __slots__ = (
        "busy_since",
        "idle_since",
        "_server",
        "_limits",
        "_unsent",
        "_is_receiving",
        "_has_answered",
        "_ticket",
    )

    def __init__(self, manager: BoundedServer, **options: Any):
        super().__init__(manager, **options)
        self._server, self._limits = manager, manager.limits
        self.busy_since: float | None = None
        self.idle_since = time.monotonic()
        self._unsent = 0
        self._is_receiving = self._has_answered = False
        self._ticket: tuple[float, int] | None = None

    def data_received(self, data: bytes) -> None:
        if not self._is_receiving and b"\r\n\r\n" in data:
            if self._is_rejected(data):
                return
            self._ticket = self._server.backlog.enter(time.monotonic())
        self._is_receiving = True
        super().data_received(data)

    def _is_rejected(self, data: bytes) -> bool:
        """Reject a request that the event loop cannot handle in time, and read nothing from its client for a while."""
        wait = self._server.backlog.expected_seconds()
        if wait <= LEAST_WAIT_SECONDS or not isinstance(self.transport, asyncio.Transport):
            return False
        patience = patience_seconds(data, self._limits.timeout_seconds)
        if patience is None or wait <= patience:
            return False
        self.transport.write(REJECTION)
        self._server.count_rejection()
        self.transport.pause_reading()
        asyncio.get_running_loop().call_later(min(patience, MAX_PAUSE_SECONDS), self._read_again)
        self.idle_since, self._has_answered = time.monotonic(), True
        return True

    def _read_again(self) -> None:
        if isinstance(self.transport, asyncio.Transport):
            self.transport.resume_reading()

    def _leave_backlog(self, now: float | None) -> None:
        if self._ticket is not None:
            self._server.backlog.leave(self._ticket, now)
            self._ticket = None

    def begin(self, now: float) -> None:
        """Note that a request is being answered."""
        self._leave_backlog(now)
        self.busy_since = now

    def end(self, now: float) -> None:
        """Note that it was answered."""
        self.busy_since, self.idle_since = None, now
        self._is_receiving, self._has_answered = False, True

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if self._manager is not None and len(self._manager.connections) > self._limits.connections:
            transport.write(TOO_MANY_RESPONSE)
            transport.close()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._leave_backlog(None)
        super().connection_lost(exc)

    def handle_error(
        self, request: Any, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """Return errors that aiohttp raises itself, such as malformed headers, in the JSON form of all errors."""
        self._leave_backlog(None)
        error = message or (str(exc).splitlines() or ["the server failed"])[0]
        response = web.Response(
            body=orjson.dumps({"error": error[:200]}),
            status=status,
            content_type="application/json",
            headers={"Server": SERVER_NAME},
        )
        response.force_close()
        return response

    def note_progress(self, now: float) -> None:
        """Restart the idle timer if the client has read some of its response since the last check."""
        unsent = self.transport.get_write_buffer_size() if self.transport is not None else 0
        if unsent != self._unsent:
            self._unsent, self.idle_since = unsent, now

    def is_overdue(self, now: float) -> bool:
        if self.busy_since is not None:
            return now - self.busy_since > self._limits.timeout_seconds + self._limits.idle_seconds
        waits = self._has_answered and not self._is_receiving and not self._unsent
        return now - self.idle_since > (self._limits.keep_alive_seconds if waits else self._limits.idle_seconds)
