"""Raw HTTP/2 that no well-behaved client sends: frames of RFC 9113 and literal fields of RFC 7541."""

from __future__ import annotations

import socket
import struct

import hpack

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, CONTINUATION = 0, 1, 3, 4, 6, 7, 9
END_STREAM, END_HEADERS = 1, 4
PREDICT = "/tensorflow.serving.PredictionService/Predict"


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def field(name: str, value: str) -> bytes:
    """Encode a literal field, not indexed and without Huffman code, shorter than 127 bytes."""
    return b"\x00" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()


def call(stream: int, path: str = PREDICT, **more: str | None) -> bytes:
    """Return the HEADERS frame of a gRPC call. In the names of `more`, `_` stands for `-`; None omits a field."""
    fields: dict[str, str | None] = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "a",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    fields |= {name.replace("_", "-"): value for name, value in more.items()}
    block = b"".join(field(name, value) for name, value in fields.items() if value is not None)
    return frame(HEADERS, END_HEADERS, stream, block)


def message(body: bytes, *, length: int | None = None, compressed: int = 0) -> bytes:
    """Return gRPC's prefix and the body. `length` overrides the length in the prefix."""
    return struct.pack(">BI", compressed, len(body) if length is None else length) + body


class Connection:
    """A connection that sends arbitrary bytes."""

    def __init__(self, port: int, seconds: float = 20.0):
        self._socket = socket.create_connection(("127.0.0.1", port), seconds)
        self._socket.settimeout(seconds)

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_error: object) -> None:
        self._socket.close()

    def begin(self) -> Connection:
        self.send(PREFACE + frame(SETTINGS, 0, 0))
        return self

    def send(self, data: bytes) -> bool:
        """Return whether the server still accepted the data."""
        try:
            self._socket.sendall(data)
            return True
        except OSError:
            return False

    def answer(self, stream: int = 1) -> dict[str, str]:
        """Return the header and trailer fields of a response that arrived before the server closed."""
        fields: dict[str, str] = {}
        decoder = hpack.Decoder()
        try:
            while True:
                head = self._receive(9)
                kind, flags, number = struct.unpack(">BBI", head[3:])
                payload = self._receive(int.from_bytes(head[:3], "big"))
                if kind == HEADERS:
                    found = {name: value for name, value in decoder.decode(payload)}
                    fields |= found if number == stream else {}
                if number == stream and (kind == RST_STREAM or flags & END_STREAM and kind in (DATA, HEADERS)):
                    return fields
        except OSError:
            return fields

    def _receive(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            block = self._socket.recv(size - len(data))
            if not block:
                raise ConnectionError
            data += block
        return data

    def is_closed(self) -> bool:
        """Return whether the server closes the connection before the timeout, ignoring what it sends."""
        try:
            while self._socket.recv(65536):
                pass
        except TimeoutError:
            return False
        except OSError:
            pass
        return True
