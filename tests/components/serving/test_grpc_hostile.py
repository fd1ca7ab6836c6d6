"""The gRPC server with hostile clients and unusual requests."""

from __future__ import annotations

import gzip
import time

import grpc
import numpy as np
import pytest

from tests.components.serving.http2_frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    PREDICT,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    Connection,
    call,
    field,
    frame,
    message,
)
from tests.components.serving.servers import serving, wait_until
from tests.components.serving.test_grpc import floats, predict_request

MEBIBYTE = 1 << 20


@pytest.fixture
def predict(ours):
    """Predict from bytes to bytes, over a separate channel."""
    with grpc.insecure_channel(f"127.0.0.1:{ours.grpc_port}") as channel:
        yield channel.unary_unary(PREDICT)


@pytest.fixture(scope="module")
def request_bytes() -> bytes:
    pytest.importorskip("tensorflow_serving", reason="the genuine messages are needed")
    return predict_request("half", x=floats(1)).SerializeToString()


@pytest.fixture(autouse=True)
def still_serves(ours, predict, request_bytes):
    yield
    assert predict(request_bytes, 60)


def refusal(predict, body: bytes, **more) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as refused:
        predict(body, 60, **more)
    return refused.value.code().name, refused.value.details()


def grpc_message(connection: Connection) -> str:
    """Return the grpc-message of a response."""
    return connection.answer().get("grpc-message", "")


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_compressed_messages_are_read(ours, compression):
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_service_pb2_grpc

    values = np.zeros(10_000, np.float32)  # enough for gRPC to compress
    with grpc.insecure_channel(f"127.0.0.1:{ours.grpc_port}", compression=compression) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        outputs = stub.Predict(predict_request("half", x=values), 60).outputs
    np.testing.assert_array_equal(tf.make_ndarray(outputs["y"]), values + 3)


def test_decompression_bomb_is_rejected_without_memory(ours, request_bytes):
    bomb = gzip.compress(b"\x00" * (64 * MEBIBYTE))
    before = ours.resident_bytes()
    with Connection(ours.grpc_port).begin() as connection:
        body = message(bomb, compressed=1)
        pieces = [body[at : at + 16384] for at in range(0, len(body), 16384)]
        connection.send(call(1, grpc_encoding="gzip") + b"".join(frame(DATA, 0, 1, piece) for piece in pieces[:-1]))
        connection.send(frame(DATA, END_STREAM, 1, pieces[-1]))
        assert "larger than" in grpc_message(connection)
    assert ours.resident_bytes() - before < 100 * MEBIBYTE


@pytest.mark.parametrize(
    ("encoding", "body", "words"),
    [
        ("snappy", b"abc", "gzip or deflate"),
        ("gzip", b"abc", "cannot be decompressed"),
        ("gzip", gzip.compress(b"abc" * 100, mtime=0)[:-10], "ends too early"),
    ],
)
def test_undecompressable_messages_are_rejected(ours, encoding, body, words):
    with Connection(ours.grpc_port).begin() as connection:
        connection.send(call(1, grpc_encoding=encoding) + frame(DATA, END_STREAM, 1, message(body, compressed=1)))
        assert words in grpc_message(connection)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "ended before"),
        (b"\x00\x00", "ended before"),
        (message(b"abc", length=10), "ended before"),
        (message(b"abc", length=1), "expected one message"),
        (message(b"") + message(b""), "one message"),
        (message(b"", length=(1 << 32) - 1), "larger than"),
    ],
)
def test_wrong_length_prefixes_are_rejected(ours, body, words):
    with Connection(ours.grpc_port).begin() as connection:
        connection.send(call(1) + frame(DATA, END_STREAM, 1, body))
        assert words in grpc_message(connection)


def test_too_large_message_is_rejected_before_it_arrives(ours):
    with Connection(ours.grpc_port).begin() as connection:
        connection.send(call(1) + frame(DATA, 0, 1, message(b"", length=5 * MEBIBYTE)))
        assert "larger than" in grpc_message(connection)


def test_message_in_single_bytes_is_read(ours, request_bytes):
    with Connection(ours.grpc_port).begin() as connection:
        body = message(request_bytes)
        connection.send(call(1) + b"".join(frame(DATA, 0, 1, body[at : at + 1]) for at in range(len(body))))
        connection.send(frame(DATA, END_STREAM, 1))
        assert connection.answer()["grpc-status"] == "0"


def test_other_methods_are_unimplemented(ours):
    with grpc.insecure_channel(f"127.0.0.1:{ours.grpc_port}") as channel:
        for path in ("/tensorflow.serving.SessionService/SessionRun", "/a/b", "/" + "a" * 5000):
            code, details = refusal(channel.unary_unary(path), b"")
            assert code == "UNIMPLEMENTED" and path[:50] in details


def test_error_messages_keep_all_characters(ours, predict):
    """The message of a status has non-ASCII characters and the percent sign percent-encoded."""
    import tensorflow_serving.apis.predict_pb2 as messages

    request = messages.PredictRequest()
    request.model_spec.name = "héron 100% \n\N{BIRD}"
    code, details = refusal(predict, request.SerializeToString())
    assert code == "NOT_FOUND" and "héron 100% \n\N{BIRD}" in details


def test_other_content_types_are_415(ours):
    with Connection(ours.grpc_port).begin() as connection:
        connection.send(call(1, content_type="application/json") + frame(DATA, END_STREAM, 1, b"{}"))
        assert connection.answer()[":status"] == "415"


@pytest.mark.parametrize("given", ["1", "1x", "-1S", "123456789S", "1.5S", "S"])
def test_malformed_timeouts_are_rejected(ours, given, request_bytes):
    with Connection(ours.grpc_port).begin() as connection:
        connection.send(call(1, grpc_timeout=given) + frame(DATA, END_STREAM, 1, message(request_bytes)))
        assert "grpc-timeout" in grpc_message(connection)


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"a" * 600,
        b"\xff" * 100_000,
        PREFACE + b"\xff" * 100,
        PREFACE + frame(SETTINGS, 0, 0, b"\x00"),
        PREFACE + frame(SETTINGS, 0, 0) + frame(DATA, 0, 0, b"a"),
        PREFACE + frame(SETTINGS, 0, 0) + frame(HEADERS, END_HEADERS, 2, b"\xff\xff\xff\xff\xff\xff"),
        PREFACE + frame(SETTINGS, 0, 0) + frame(HEADERS, END_HEADERS, 1, b"\x00\x7f"),
        PREFACE + frame(SETTINGS, 0, 0) + frame(CONTINUATION, END_HEADERS, 1, b""),
        PREFACE + frame(SETTINGS, 0, 0) + frame(PING, 0, 0, b"short"),
    ],
    ids=["HTTP/1.1", "TLS", "bytes", "frame", "settings", "data", "index", "literal", "continuation", "ping"],
)
def test_connections_without_http2_are_closed(ours, data):
    with Connection(ours.grpc_port) as connection:
        connection.send(data)
        assert connection.is_closed()


def test_endless_headers_are_limited(ours):
    """CVE-2024-27316: endless CONTINUATION frames."""
    before = ours.resident_bytes()
    block = b"".join(field(f"x-{number}", "a" * 100) for number in range(140))
    with Connection(ours.grpc_port).begin() as connection:
        connection.send(frame(HEADERS, 0, 1, field(":method", "POST")))
        for _ in range(5000):
            if not connection.send(frame(CONTINUATION, 0, 1, block)):
                break
        assert connection.is_closed()
    assert ours.resident_bytes() - before < 50 * MEBIBYTE


def test_rapidly_reset_streams_are_limited(ours, request_bytes):
    """CVE-2023-44487: a client that opens and resets streams as fast as it can."""
    before = ours.resident_bytes()
    with Connection(ours.grpc_port).begin() as connection:
        for number in range(20_000):
            stream = 2 * number + 1
            data = call(stream) + frame(DATA, END_STREAM, stream, message(request_bytes))
            if not connection.send(data + frame(RST_STREAM, 0, stream, b"\x00\x00\x00\x08")):
                break
    assert ours.resident_bytes() - before < 100 * MEBIBYTE


def test_endless_pings_and_settings_take_no_memory(ours):
    """CVE-2019-9512 and 9515: the client does not read the responses."""
    before = ours.resident_bytes()
    with Connection(ours.grpc_port, seconds=2.0).begin() as connection:
        for _ in range(200):
            if not connection.send((frame(PING, 0, 0, b"12345678") + frame(SETTINGS, 0, 0)) * 1000):
                break
    assert ours.resident_bytes() - before < 100 * MEBIBYTE


def test_cancelled_calls_are_released(ours, request_bytes):
    cancelled = ours.metric("kerasline_requests_total", protocol="grpc", code="CANCELLED")
    with Connection(ours.grpc_port).begin() as connection:
        connection.send(call(1) + frame(DATA, 0, 1, message(request_bytes, length=MEBIBYTE)))
        time.sleep(0.2)
        connection.send(frame(RST_STREAM, 0, 1, b"\x00\x00\x00\x08"))
        wait_until(
            lambda: ours.metric("kerasline_requests_total", protocol="grpc", code="CANCELLED") > cancelled,
            seconds=20,
        )


def test_slow_and_excess_clients_are_disconnected(model_folders, tmp_path, request_bytes):
    with serving(
        tmp_path,
        str(model_folders["half"]),
        "--idle",
        "1",
        "--connections",
        "8",
        "--pending-megabytes",
        "2",
    ) as server:
        port = server.grpc_port
        with Connection(port) as silent, Connection(port).begin() as headless, Connection(port).begin() as slow:
            headless.send(frame(HEADERS, 0, 1, field(":method", "POST")))
            slow.send(call(1) + frame(DATA, 0, 1, message(request_bytes, length=MEBIBYTE)))
            ends = time.monotonic() + 3
            assert silent.is_closed() and headless.is_closed()
            while slow.send(frame(DATA, 0, 1, b"a")) and time.monotonic() < ends:
                time.sleep(0.3)
            assert slow.answer().get("grpc-status", "reset") in ("4", "reset")

        crowd = [Connection(port).begin() for _ in range(40)]
        time.sleep(0.5)
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel, pytest.raises(grpc.RpcError):
            channel.unary_unary(PREDICT)(request_bytes, 0.5)
        for connection in crowd:
            connection.__exit__()
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            assert channel.unary_unary(PREDICT)(request_bytes, 60, wait_for_ready=True)

        # The limit on pending bytes applies before they arrive.
        with Connection(port).begin() as connection:
            announced = message(b"", length=3 * MEBIBYTE // 2)
            connection.send(call(1) + frame(DATA, 0, 1, announced))
            time.sleep(0.3)
            connection.send(call(3) + frame(DATA, 0, 3, announced))
            assert "too many bytes" in connection.answer(stream=3)["grpc-message"]


def test_abrupt_disconnects_are_not_logged_as_errors(ours, request_bytes):
    for _ in range(50):
        with Connection(ours.grpc_port).begin() as connection:
            connection.send(call(1) + frame(DATA, END_STREAM, 1, message(request_bytes)))
            connection.send(frame(GOAWAY, 0, 0, b"\x00" * 8))
    assert "Traceback" not in ours.log.read_text()
