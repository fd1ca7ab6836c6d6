"""REST connections under guard: not too many, and none that takes for ever to send or to read."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import orjson
from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from kerasline.components.serving.runtime.metrics import Metrics
from kerasline.components.serving.settings import Limits

TOO_MANY = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: 32\r\n"
    b'Retry-After: 1\r\nConnection: close\r\n\r\n{"error":"too many connections"}'
)
CHECK_SECONDS = 1.0
# aiohttp discards what is left of a refused body for so long, then hangs up.
LINGERING_SECONDS = 2.0


class GuardedServer(web.Server):
    """aiohttp's server of connections, with bounds."""

    def __init__(self, handler: Any, limits: Limits, metrics: Metrics):
        super().__init__(
            handler, access_log=None, lingering_time=LINGERING_SECONDS, keepalive_timeout=limits.idle_seconds
        )
        self.limits, self._metrics = limits, metrics

    def __call__(self) -> RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs)

    async def watch(self) -> None:
        """Hangs up, again and again, on clients that send or read too slowly."""
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            connections = self.connections
            self._metrics.connections.set(len(connections))
            now = time.monotonic()
            for connection in connections:
                connection.notice_reading(now)
                if connection.is_overdue(now) and connection.transport is not None:
                    connection.transport.abort()


class _Connection(RequestHandler):
    """A connection; `busy_since` and `idle_since` are kept by the REST face."""

    __slots__ = ("busy_since", "idle_since", "_limits", "_unsent")

    def __init__(self, manager: GuardedServer, **options: Any):
        super().__init__(manager, **options)
        self._limits = manager.limits
        self.busy_since: float | None = None
        self.idle_since = time.monotonic()
        self._unsent = 0

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if len(self._manager.connections) > self._limits.connections:
            transport.write(TOO_MANY)
            transport.close()

    def handle_error(
        self, request: Any, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """What aiohttp itself refuses, such as a malformed head, in the form of all our errors."""
        error = message or (str(exc).splitlines() or ["the server failed"])[0]
        response = web.Response(
            body=orjson.dumps({"error": error[:200]}), status=status, content_type="application/json"
        )
        response.force_close()
        return response

    def notice_reading(self, now: float) -> None:
        """A client that reads its answer, however slowly, is not idle."""
        unsent = self.transport.get_write_buffer_size() if self.transport is not None else 0
        if unsent != self._unsent:
            self._unsent, self.idle_since = unsent, now

    def is_overdue(self, now: float) -> bool:
        if self.busy_since is not None:
            return now - self.busy_since > self._limits.timeout_seconds + self._limits.idle_seconds
        return now - self.idle_since > self._limits.idle_seconds
