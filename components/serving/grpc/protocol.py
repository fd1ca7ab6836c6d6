"""gRPC calls over HTTP/2 for an ASGI application.

A message has a prefix of five bytes: whether it is compressed, and its length. The status of a call follows the
response in trailers (https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md).
"""

from __future__ import annotations

import contextlib
import functools
import re
import string
import struct
import time
import zlib
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any
from urllib.parse import quote

from kerasline.components.serving.runtime.admission import Reservation
from kerasline.components.serving.runtime.errors import CODE_NUMBERS, RequestError, invalid
from kerasline.components.serving.runtime.settings import Limits

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

MEDIA_TYPE = b"application/grpc"
# Compress responses from this size on.
COMPRESSED_BYTES = 1 << 10
COMPRESSION_LEVEL = 1
_PREFIX = struct.Struct(">BI")
# The `wbits` argument of zlib for each encoding.
_WBITS = {b"gzip": 31, b"deflate": 15}
_TIMEOUT = re.compile(rb"([0-9]{1,8})([HMSmun])")
_UNIT_SECONDS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_UNESCAPED = "".join(sorted({*string.printable[:95]} - {"%"}))

_RESPONSE_HEADERS = [(b"content-type", MEDIA_TYPE), (b"grpc-accept-encoding", b"identity,deflate,gzip")]
# The body that ends a response.
_LAST_BODY = {"type": "http.response.body", "body": b""}
_OK_TRAILERS = {"type": "http.response.trailers", "headers": [(b"grpc-status", b"0")]}


class ClientDisconnected(Exception):
    """The client no longer waits for the response."""


def is_grpc(headers: Mapping[bytes, bytes]) -> bool:
    return headers.get(b"content-type", b"").startswith(MEDIA_TYPE)


def timeout_seconds(headers: Mapping[bytes, bytes]) -> float | None:
    """Return the timeout that the client set, or None. Raise INVALID_ARGUMENT for a malformed one."""
    given = headers.get(b"grpc-timeout")
    if given is None:
        return None
    match = _TIMEOUT.fullmatch(given)
    if match is None:
        raise invalid(f"grpc-timeout: expected digits and one of H, M, S, m, u, n, received {given[:40]!r}")
    return int(match[1]) * _UNIT_SECONDS[match[2]]


class Call:
    """A call: the messages of its client, and the responses to it.

    Args:
        headers: the header fields of the request.
        reserved: counts the bytes of messages before they arrive.
        repeated: header fields that the response repeats.
    """

    def __init__(
        self,
        receive: Receive,
        send: Send,
        headers: Mapping[bytes, bytes],
        *,
        limits: Limits,
        reserved: Reservation,
        repeated: Mapping[str, str],
    ):
        self.reserved = reserved
        self._receive, self._send, self._request_headers, self._limits = receive, send, headers, limits
        self._headers = [*_RESPONSE_HEADERS, *((name.encode(), value.encode()) for name, value in repeated.items())]
        self._unread = b""
        self._is_over = self._has_started = False

    async def read_only(self) -> bytes:
        """Return the message of a call that consists of one.

        Raises:
            RequestError: the message is too large, malformed, too slow, uses an unsupported compression, or is not the
                only one.
            ClientDisconnected: the client closed the stream.
        """
        message = await self.read()
        if message is None:
            raise invalid("the call ended before its message did")
        if self._unread:
            raise invalid("expected one message in the call, received more")
        return message

    async def read(self) -> bytes | None:
        """Return the next message, or None after the last one. Raise as `read_only` does."""
        started = time.monotonic()
        blocks, size = [self._unread], len(self._unread)
        is_compressed, end = 0, _PREFIX.size
        has_prefix = False
        while True:
            if size >= end and not has_prefix:
                blocks, has_prefix = [b"".join(blocks)], True
                is_compressed, length = _PREFIX.unpack_from(blocks[0])
                self.reserved.add(length)
                end += length
            if size >= end and has_prefix:
                break
            if self._is_over:
                if size:
                    raise invalid("the call ended before its message did")
                return None
            block = await self._read_block()
            blocks.append(block)
            size += len(block)
            if time.monotonic() - started > self._limits.idle_seconds:
                raise RequestError("DEADLINE_EXCEEDED", "the message did not arrive in time")
        received = b"".join(blocks)
        self._unread = received[end:]
        message = received[_PREFIX.size : end]
        return self._decompressed(message) if is_compressed else message

    async def wait_for_end(self) -> None:
        """Return when the client has ended its side of the call and closed the stream. Messages are ignored."""
        with contextlib.suppress(ClientDisconnected):
            while True:
                await self._read_block()

    async def _read_block(self) -> bytes:
        event = await self._receive()
        if event["type"] != "http.request":
            raise ClientDisconnected
        self._is_over = not event.get("more_body", False)
        return event.get("body", b"")

    def _decompressed(self, message: bytes) -> bytes:
        encoding = self._request_headers.get(b"grpc-encoding")
        if encoding is None or encoding not in _WBITS:
            received = (encoding or b"")[:40]
            raise RequestError("UNIMPLEMENTED", f"grpc-encoding: expected gzip or deflate, received {received!r}")
        reader = zlib.decompressobj(_WBITS[encoding])
        try:
            plain = reader.decompress(message, self._limits.request_bytes + 1)
        except zlib.error as error:
            raise invalid(f"the message cannot be decompressed: {error}") from None
        self.reserved.add(len(plain))
        if not reader.eof:
            raise invalid("the message cannot be decompressed: it ends too early")
        return plain

    async def send(self, message: bytes) -> None:
        """Send a response of a stream. Raise ClientDisconnected if the client is gone."""
        events = [] if self._has_started else [self._start()]
        await self._send_all(*events, {**self._body(message), "more_body": True})

    async def finish(self, message: bytes | None = None) -> None:
        """Send the only response, or none after those of a stream, and the status OK."""
        events = [] if self._has_started else [self._start()]
        await self._send_all(*events, _LAST_BODY if message is None else self._body(message), _OK_TRAILERS)

    async def fail(self, error: RequestError) -> None:
        """Send the status of a failed call. Raise ClientDisconnected if the client is gone."""
        status = [
            (b"grpc-status", b"%d" % CODE_NUMBERS[error.code]),
            (b"grpc-message", quote(str(error), safe=_UNESCAPED).encode()),
        ]
        if self._has_started:
            await self._send_all(_LAST_BODY, {"type": "http.response.trailers", "headers": status})
        else:  # status and headers in one, which also reaches clients that accept no trailers
            start = {"type": "http.response.start", "status": 200, "headers": [*self._headers, *status]}
            await self._send_all(start, _LAST_BODY)

    def _start(self) -> dict[str, Any]:
        self._has_started = True
        encoding = [(b"grpc-encoding", self._encoding)] if self._encoding else []
        headers = [*self._headers, *encoding]
        return {"type": "http.response.start", "status": 200, "trailers": True, "headers": headers}

    def _body(self, message: bytes) -> dict[str, Any]:
        is_compressed = bool(self._encoding) and len(message) >= COMPRESSED_BYTES
        if is_compressed:
            writer = zlib.compressobj(COMPRESSION_LEVEL, wbits=_WBITS[self._encoding])
            message = writer.compress(message) + writer.flush()
        return {"type": "http.response.body", "body": _PREFIX.pack(is_compressed, len(message)) + message}

    @functools.cached_property
    def _encoding(self) -> bytes:
        """The compression of the responses: that of the client's own messages, if it accepts it."""
        encoding = self._request_headers.get(b"grpc-encoding", b"")
        accepted = self._request_headers.get(b"grpc-accept-encoding", b"").replace(b" ", b"").split(b",")
        return encoding if encoding in _WBITS and encoding in accepted else b""

    async def _send_all(self, *events: dict[str, Any]) -> None:
        try:
            for event in events:
                await self._send(event)
        except OSError:
            raise ClientDisconnected from None


async def reject_other_media(send: Send) -> None:
    """Answer a request that is not a gRPC call with 415."""
    await send({"type": "http.response.start", "status": 415, "headers": []})
    await send(_LAST_BODY)
