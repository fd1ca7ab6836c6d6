"""Unary gRPC calls over HTTP/2 for an ASGI application.

A message has a prefix of five bytes: whether it is compressed, and its length. The status of a call follows the
response in trailers (https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md).
"""

from __future__ import annotations

import re
import string
import struct
import time
import zlib
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any
from urllib.parse import quote

from kerasline.components.serving.runtime.admission import AdmissionControl
from kerasline.components.serving.runtime.errors import CODE_NUMBERS, RequestError, invalid

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

MEDIA_TYPE = b"application/grpc"
_PREFIX = struct.Struct(">BI")
# The `wbits` argument of zlib for each encoding.
_WBITS = {b"gzip": 31, b"deflate": 15}
_TIMEOUT = re.compile(rb"([0-9]{1,8})([HMSmun])")
_UNIT_SECONDS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_UNESCAPED = "".join(sorted({*string.printable[:95]} - {"%"}))

_RESPONSE_START = {
    "type": "http.response.start",
    "status": 200,
    "trailers": True,
    "headers": [(b"content-type", MEDIA_TYPE), (b"grpc-accept-encoding", b"identity,deflate,gzip")],
}
_EMPTY_BODY = {"type": "http.response.body", "body": b""}
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


async def read_message(
    receive: Receive, headers: Mapping[bytes, bytes], admission: AdmissionControl, reserved: list[int]
) -> bytes:
    """Read the message of a call.

    Args:
        reserved: receives the number of bytes that were admitted, before they arrive. The caller releases them.

    Raises:
        RequestError: the message is too large, malformed, too slow, or uses an unsupported compression.
        ClientDisconnected: the client closed the stream.
    """
    started = time.monotonic()
    blocks: list[bytes] = []
    size, is_compressed, is_over = 0, 0, False
    end: int | None = None
    while not is_over and size != end:
        event = await receive()
        if event["type"] != "http.request":
            raise ClientDisconnected
        is_over = not event.get("more_body", False)
        block = event.get("body", b"")
        if not block:
            continue
        blocks.append(block)
        size += len(block)
        if end is None and size >= _PREFIX.size:
            blocks = [b"".join(blocks)]
            is_compressed, length = _PREFIX.unpack_from(blocks[0])
            admission.admit(length)
            reserved.append(length)
            end = _PREFIX.size + length
        if end is not None and size > end:
            raise invalid("expected one message in the call, received more")
        if time.monotonic() - started > admission.limits.idle_seconds:
            raise RequestError("DEADLINE_EXCEEDED", "the message did not arrive in time")
    if size != end:
        raise invalid("the call ended before its message did")
    message = b"".join(blocks)[_PREFIX.size :]
    return _decompressed(message, headers.get(b"grpc-encoding"), admission, reserved) if is_compressed else message


def _decompressed(message: bytes, encoding: bytes | None, admission: AdmissionControl, reserved: list[int]) -> bytes:
    if encoding is None or encoding not in _WBITS:
        received = (encoding or b"")[:40]
        raise RequestError("UNIMPLEMENTED", f"grpc-encoding: expected gzip or deflate, received {received!r}")
    limit = admission.limits.request_bytes
    reader = zlib.decompressobj(_WBITS[encoding])
    try:
        plain = reader.decompress(message, limit + 1)
    except zlib.error as error:
        raise invalid(f"the message cannot be decompressed: {error}") from None
    admission.admit(len(plain))
    reserved.append(len(plain))
    if not reader.eof:
        raise invalid("the message cannot be decompressed: it ends too early")
    return plain


async def send_message(send: Send, message: bytes) -> None:
    """Send a response. Raise ClientDisconnected if the client is gone."""
    await _send(send, {"type": "http.response.body", "body": _PREFIX.pack(0, len(message)) + message}, _OK_TRAILERS)


async def send_error(send: Send, error: RequestError) -> None:
    """Send the status of a failed call. Raise ClientDisconnected if the client is gone."""
    status = [
        (b"grpc-status", b"%d" % CODE_NUMBERS[error.code]),
        (b"grpc-message", quote(str(error), safe=_UNESCAPED).encode()),
    ]
    await _send(send, _EMPTY_BODY, {"type": "http.response.trailers", "headers": status})


async def reject_other_media(send: Send) -> None:
    """Answer a request that is not a gRPC call with 415."""
    await send({"type": "http.response.start", "status": 415, "headers": []})
    await send(_EMPTY_BODY)


async def _send(send: Send, body: dict[str, Any], trailers: dict[str, Any]) -> None:
    try:
        await send(_RESPONSE_START)
        await send(body)
        await send(trailers)
    except OSError:
        raise ClientDisconnected from None
