"""Unary calls of gRPC over HTTP/2, as an ASGI application sees them.

https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md: a message has a prefix of five bytes, whether it is
compressed and how long it is; the status of a call comes after its answer, in trailers.
"""

from __future__ import annotations

import re
import string
import struct
import time
import zlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import quote

from kerasline.components.serving.http.gate import Gate
from kerasline.components.serving.runtime.errors import CODE_NUMBERS, RequestError, invalid

Receive, Send = Callable[[], Awaitable[dict[str, Any]]], Callable[[dict[str, Any]], Awaitable[None]]

MEDIA_TYPE = b"application/grpc"
_PREFIX = struct.Struct(">BI")
# zlib's own number for a format, as `wbits`.
_FORMATS = {b"gzip": 31, b"deflate": 15}
_TIMEOUT = re.compile(rb"([0-9]{1,8})([HMSmun])")
_UNIT_SECONDS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_PLAIN = "".join(sorted({*string.printable[:95]} - {"%"}))

_START = {
    "type": "http.response.start",
    "status": 200,
    "trailers": True,
    "headers": [(b"content-type", MEDIA_TYPE), (b"grpc-accept-encoding", b"identity,deflate,gzip")],
}
_NOTHING = {"type": "http.response.body", "body": b""}
_OK = {"type": "http.response.trailers", "headers": [(b"grpc-status", b"0")]}


class ClientGone(Exception):
    """Nobody waits for an answer any more."""


def is_grpc(headers: Mapping[bytes, bytes]) -> bool:
    return headers.get(b"content-type", b"").startswith(MEDIA_TYPE)


def timeout_seconds(headers: Mapping[bytes, bytes]) -> float | None:
    """How long the client waits; None where it does not say. Raises INVALID_ARGUMENT."""
    given = headers.get(b"grpc-timeout")
    if given is None:
        return None
    match = _TIMEOUT.fullmatch(given)
    if match is None:
        raise invalid("grpc-timeout: digits and one of H, M, S, m, u, n wanted")
    return int(match[1]) * _UNIT_SECONDS[match[2]]


async def read_message(receive: Receive, headers: Mapping[bytes, bytes], gate: Gate, taken: list[int]) -> bytes:
    """The call's message. What it takes of the gate's bound on bytes is put into `taken`, before it has come.

    Raises:
        RequestError: it is too large, malformed, too slow, or compressed in a way unknown here.
        ClientGone: the client hung up.
    """
    started = time.monotonic()
    blocks, size, end, is_compressed, is_over = [], 0, None, 0, False
    while not is_over and size != end:
        event = await receive()
        if event["type"] != "http.request":
            raise ClientGone
        is_over = not event.get("more_body", False)
        block = event.get("body", b"")
        if not block:
            continue
        blocks.append(block)
        size += len(block)
        if end is None and size >= _PREFIX.size:
            blocks = [b"".join(blocks)]
            is_compressed, length = _PREFIX.unpack_from(blocks[0])
            gate.admit(length)
            taken.append(length)
            end = _PREFIX.size + length
        if end is not None and size > end:
            raise invalid("a call of this method has one message")
        if time.monotonic() - started > gate.limits.idle_seconds:
            raise RequestError("DEADLINE_EXCEEDED", "the message did not come in time")
    if size != end:
        raise invalid("the call ended before its message did")
    message = b"".join(blocks)[_PREFIX.size :]
    return _decompressed(message, headers.get(b"grpc-encoding"), gate, taken) if is_compressed else message


def _decompressed(message: bytes, encoding: bytes | None, gate: Gate, taken: list[int]) -> bytes:
    if encoding not in _FORMATS:
        raise RequestError("UNIMPLEMENTED", "messages may be compressed by gzip or deflate")
    limit = gate.limits.request_bytes
    reader = zlib.decompressobj(_FORMATS[encoding])
    try:
        plain = reader.decompress(message, limit + 1)
    except zlib.error as error:
        raise invalid(f"the message cannot be decompressed: {error}") from None
    gate.admit(len(plain))
    taken.append(len(plain))
    if not reader.eof:
        raise invalid("the message cannot be decompressed: it ends too early")
    return plain


async def answer(send: Send, message: bytes) -> None:
    """Raises ClientGone."""
    await _send(send, {"type": "http.response.body", "body": _PREFIX.pack(0, len(message)) + message}, _OK)


async def refuse(send: Send, error: RequestError) -> None:
    """Raises ClientGone."""
    status = [
        (b"grpc-status", b"%d" % CODE_NUMBERS[error.code]),
        (b"grpc-message", quote(str(error), safe=_PLAIN).encode()),
    ]
    await _send(send, _NOTHING, {"type": "http.response.trailers", "headers": status})


async def refuse_other(send: Send) -> None:
    """A request that is no call of gRPC's."""
    await send({"type": "http.response.start", "status": 415, "headers": []})
    await send(_NOTHING)


async def _send(send: Send, body: dict[str, Any], trailers: dict[str, Any]) -> None:
    try:
        await send(_START)
        await send(body)
        await send(trailers)
    except OSError:
        raise ClientGone from None
