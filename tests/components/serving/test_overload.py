"""Requests that the event loop cannot handle in time are rejected before they are parsed."""

from __future__ import annotations

import asyncio
import collections
import time

import pytest
from aiohttp import web

from kerasline.components.serving.http.connections import BoundedServer
from kerasline.components.serving.http.overload import LEAST_WAIT_SECONDS, WAIT_SHARE, patience_seconds
from kerasline.components.serving.runtime.metrics import Metrics
from kerasline.components.serving.runtime.settings import Limits

HANDLING_SECONDS = 0.005
REQUEST = b"POST / HTTP/1.1\r\nHost: localhost\r\nX-Request-Timeout: 0.5\r\nContent-Length: 2\r\n\r\n{}"


async def handle(request: web.BaseRequest) -> web.Response:
    """Occupy the event loop, as parsing does."""
    request.protocol.begin(time.monotonic())
    time.sleep(HANDLING_SECONDS)
    request.protocol.end(time.monotonic())
    return web.Response(body=b"{}")


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
    writer.write(REQUEST)
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length"))
    await reader.readexactly(int(length.split(b":")[1]))
    return int(head.split()[1])


def test_requests_beyond_their_share_of_the_wait_are_rejected():
    async def work() -> tuple[collections.Counter[int], int, float]:
        metrics = Metrics()
        server = await asyncio.get_running_loop().create_server(
            BoundedServer(handle, Limits(), metrics), "127.0.0.1", 0, backlog=256
        )
        port = server.sockets[0].getsockname()[1]
        clients = [await asyncio.open_connection("127.0.0.1", port) for _ in range(150)]
        await asyncio.gather(*(ask(*client) for client in clients))  # measures the time of a request
        statuses = await asyncio.gather(*(ask(*client) for client in clients))
        after = await ask(*clients[statuses.index(429)])
        counted = metrics.registry.get_sample_value(
            "kerasline_requests_total",
            {"protocol": "rest", "model": "", "version": "", "method": "POST", "code": "RESOURCE_EXHAUSTED"},
        )
        for _, writer in clients:
            writer.close()
        server.close()
        return collections.Counter(statuses), after, counted

    statuses, after, counted = asyncio.run(work())
    assert set(statuses) == {200, 429} and 1 <= statuses[200] < 75
    assert after == 200
    assert counted >= statuses[429]


@pytest.mark.parametrize(
    ("data", "seconds"),
    [
        (REQUEST, WAIT_SHARE * 0.5),
        (REQUEST.replace(b"X-Request-Timeout: 0.5\r\n", b""), WAIT_SHARE * 30),
        (REQUEST.replace(b"0.5", b"40"), WAIT_SHARE * 30),
        (REQUEST.replace(b"0.5", b"0.001"), LEAST_WAIT_SECONDS),
        (REQUEST.replace(b"X-Request-Timeout", b"x-request-timeout"), WAIT_SHARE * 0.5),
        (REQUEST.replace(b"0.5", b"1.2.3"), None),
        (REQUEST[:-1], None),
        (REQUEST + REQUEST, None),
        (REQUEST.replace(b"POST", b"GET"), None),
        (REQUEST.replace(b"Host", b"Expect: 100-continue\r\nHost"), None),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", None),
    ],
)
def test_only_whole_requests_have_patience(data, seconds):
    assert patience_seconds(data, 30.0) == (seconds if seconds is None else pytest.approx(seconds))
