"""HTTP/2 by hand, for what no well-behaved client sends: RFC 9113's frames, RFC 7541's literal fields."""

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
    """Literal, neither indexed nor of Huffman's code; shorter than 127 bytes."""
    return b"\x00" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()


def call(stream: int, path: str = PREDICT, **more: str) -> bytes:
    """The HEADERS of a gRPC call; `more` by names with `_` for `-`."""
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "a",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    fields |= {name.replace("_", "-"): value for name, value in more.items()}
    block = b"".join(field(name, value) for name, value in fields.items())
    return frame(HEADERS, END_HEADERS, stream, block)


def message(body: bytes, *, length: int | None = None, compressed: int = 0) -> bytes:
    """gRPC's prefix and the body; `length` as the prefix has it."""
    return struct.pack(">BI", compressed, len(body) if length is None else length) + body


class Connection:
    """A connection over which anything can be sent."""

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
        """Whether the server still took it."""
        try:
            self._socket.sendall(data)
            return True
        except OSError:
            return False

    def answer(self, stream: int = 1) -> dict[str, str]:
        """The fields of an answer, head and trailers together; those that came before the server hung up."""
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
        """Whether the server hangs up, whatever it sends before, within the connection's seconds."""
        try:
            while self._socket.recv(65536):
                pass
        except TimeoutError:
            return False
        except OSError:
            pass
        return True
