"""What operators and browsers need: HEAD, CORS, sockets, logs, certificates, compression, traces, safe models."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import os
import signal
import socket
import ssl
import threading
import time
import urllib.error
import urllib.request
from dataclasses import replace

import grpc
import pytest

from kerasline.components.core.errors import KeraslineError
from kerasline.components.serving.runtime.settings import ModelSource, ServerSettings
from kerasline.components.serving.runtime.sockets import ServerSockets
from tests.components.serving.http2_frames import DATA, END_STREAM, Connection, call, frame, message
from tests.components.serving.http2_frames import PREDICT as PREDICT_CALL
from tests.components.serving.saved_models import save_functions
from tests.components.serving.servers import self_signed, serving, start, wait_until

PREDICT = "/v1/models/half:predict"


def exchange(server, method: str, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=60)
    connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    response = connection.getresponse()
    return response.status, dict(response.getheaders()), response.read()


def test_head_cors_and_log_rotation(half, tmp_path):
    log = tmp_path / "access.log"
    options = ("--cors", "https://good.example", "--access-log", str(log))
    with serving(tmp_path, str(half), *options) as server:
        for path in ("/healthz", "/readyz", "/v1/models/half", "/v1/models/half/metadata", "/metrics", "/v1/models"):
            assert exchange(server, "HEAD", path)[::2] == (200, b"")
        assert exchange(server, "HEAD", PREDICT)[0] == 400
        preflight = {"Origin": "https://good.example", "Access_Control_Request_Method": "POST"}
        status, headers, body = exchange(server, "OPTIONS", PREDICT, **preflight)
        assert (status, body, headers["Access-Control-Allow-Origin"]) == (200, b"", "https://good.example")
        assert "POST" in headers["Access-Control-Allow-Methods"]
        _, headers, _ = exchange(server, "GET", "/v1/models/half", Origin="https://good.example")
        assert headers["Access-Control-Allow-Origin"] == "https://good.example"
        _, headers, _ = exchange(server, "GET", "/v1/models/half", Origin="https://bad.example")
        assert "Access-Control-Allow-Origin" not in headers
        assert "aiohttp" not in str(headers) + str(exchange(server, "NON SENSE", "/healthz"))

        os.rename(log, tmp_path / "access.log.1")
        server.process.send_signal(signal.SIGHUP)
        wait_until(log.exists, server)
        assert exchange(server, "GET", "/v1/models/half?key=secret")[0] == 200
        assert server.stop() == 0
    assert "secret" not in log.read_text()
    assert [json.loads(line)["path"] for line in log.read_text().splitlines()] == ["/v1/models/half"]


def test_clients_need_a_certificate_of_the_authority(half, tmp_path):
    certificate, key = self_signed(tmp_path)
    options = ("--tls-certificate", str(certificate), "--tls-key", str(key), "--tls-client-ca", str(certificate))
    with serving(tmp_path / "log", str(half), *options) as server:
        url = f"https://localhost:{server.rest_port}/v1/models/half"
        context = ssl.create_default_context(cafile=str(certificate))
        with pytest.raises((urllib.error.URLError, ConnectionError)):
            urllib.request.urlopen(url, timeout=30, context=context)
        context.load_cert_chain(certificate, key)
        assert urllib.request.urlopen(url, timeout=30, context=context).status == 200


def test_safe_refuses_a_model_that_reads_files(half, tmp_path):
    import tensorflow as tf

    (tmp_path / "reader").mkdir()
    read = (lambda name: tf.map_fn(tf.io.read_file, name), [None], tf.string)
    save_functions(tmp_path / "reader" / "1", {"serving_default": read})
    server = start(tmp_path / "log", str(tmp_path / "reader"), "--safe")
    assert server.process.wait(120) == 2
    assert "operations that access files or processes, which --safe refuses: ReadFile" in server.log.read_text()
    with serving(tmp_path / "log", str(half), "--safe") as server:
        assert server.post(PREDICT, {"instances": [0.0]}) == (200, {"predictions": [1.0]})


def test_unix_sockets_replace_the_ports(half, tmp_path):
    rest, rpc = tmp_path / "rest.sock", tmp_path / "grpc.sock"
    with serving(tmp_path, str(half), "--rest-socket", str(rest), "--grpc-socket", str(rpc)) as server:
        assert f"REST unix:{rest}, gRPC unix:{rpc}" in server.log.read_text()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(rest))
            client.sendall(b"GET /v1/models/half HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            answer = b"".join(iter(lambda: client.recv(4096), b""))
        assert answer.startswith(b"HTTP/1.1 200 OK") and b"AVAILABLE" in answer
        with grpc.insecure_channel(f"unix:{rpc}") as channel:
            assert channel.unary_unary("/grpc.health.v1.Health/Check")(b"", 60) == b"\x08\x01"
        for port in (server.rest_port, server.grpc_port):
            assert socket.socket().connect_ex(("127.0.0.1", port)) != 0
        assert server.stop() == 0
    assert not rest.exists() and not rpc.exists()


def test_two_workers_share_unix_sockets_that_a_crash_left(half, tmp_path):
    rest = tmp_path / "rest.sock"
    with socket.socket(socket.AF_UNIX) as crashed:
        crashed.bind(str(rest))
    options = ("--no-grpc", "--rest-socket", str(rest), "--workers", "2")
    with serving(tmp_path, str(half), *options):
        for _ in range(8):
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(rest))
                client.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
                assert b"alive" in client.recv(4096)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda path: path.write_text("data"), "the file exists and is not a socket"),
        (lambda path: None, "No such file or directory"),
    ],
)
def test_unusable_socket_paths_are_refused(tmp_path, build, words):
    path = tmp_path / "there" / "rest.sock"
    if words.startswith("the file"):
        path.parent.mkdir()
    build(path)
    settings = ServerSettings((ModelSource("half", tmp_path),), rest_socket=path, grpc_port=None)
    with pytest.raises(KeraslineError, match=f"serve: REST cannot listen on .*{words}"):
        ServerSockets(settings)


@pytest.mark.parametrize("host", ["::", "localhost"])
def test_both_families_listen_on_the_same_port(tmp_path, host):
    settings = ServerSettings((ModelSource("half", tmp_path),), host=host, rest_port=0, grpc_port=0)
    with contextlib.closing(ServerSockets(settings)) as sockets:
        families = {one.family for one in sockets.rest}
        assert families == {one.family for one in sockets.grpc}
        assert families == ({socket.AF_INET, socket.AF_INET6} if has_ipv6() else {socket.AF_INET})
        assert len({one.getsockname()[1] for one in sockets.rest}) == 1
        assert sockets.is_reachable() == (host == "::")
        for one in sockets.rest:
            one.listen()
            address = "127.0.0.1" if one.family == socket.AF_INET else "::1"
            with socket.create_connection((address, one.getsockname()[1]), 10):
                pass
        with pytest.raises(KeraslineError, match="Address already in use; try --rest-port"):
            ServerSockets(replace(settings, rest_port=sockets.rest[0].getsockname()[1]))


def has_ipv6() -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        return True
    return False


def test_connections_stay_open_as_long_as_keep_alive_says(half, tmp_path):
    with serving(tmp_path, str(half), "--keep-alive", "1", "--idle", "60") as server:
        with socket.create_connection(("127.0.0.1", server.rest_port), 30) as client:
            for wait in (0, 0.2):
                time.sleep(wait)
                client.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
                assert b"alive" in client.recv(4096)
            started = time.monotonic()
            assert client.recv(4096) == b""
            assert 0.5 < time.monotonic() - started < 15


def test_certificates_are_read_again_when_they_change(half, tmp_path):
    def presented(port: int) -> str:
        return ssl.get_server_certificate(("127.0.0.1", port), timeout=30)

    certificate, key = self_signed(tmp_path)
    options = ("--tls-certificate", str(certificate), "--tls-key", str(key))
    with serving(tmp_path / "log", str(half), *options) as server:
        ports = (server.rest_port, server.grpc_port)
        before = certificate.read_text()
        assert [presented(port) for port in ports] == [before, before]
        context = ssl.create_default_context(cafile=str(certificate))
        connection = http.client.HTTPSConnection("localhost", server.rest_port, timeout=30, context=context)
        connection.request("GET", "/healthz")
        assert connection.getresponse().read()

        (tmp_path / "new").mkdir()
        key.write_text("damaged")
        wait_until(lambda: "stays in use" in server.log.read_text(), server)
        assert presented(server.rest_port) == before
        for new, old in zip(self_signed(tmp_path / "new"), (certificate, key)):
            os.replace(new, old)
        assert certificate.read_text() != before
        for port in ports:
            wait_until(lambda port=port: presented(port) == certificate.read_text(), server)
        connection.request("GET", "/healthz")  # a connection from before
        assert connection.getresponse().status == 200
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: server.log.read_text().count("the certificate was read again") == 2, server)
        assert server.stop() == 0


def test_large_answers_are_compressed_for_clients_that_ask(ours):
    body = json.dumps({"instances": [0.5] * 5000})

    def post(encoding: str, sent: str = body) -> tuple[dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", ours.rest_port, timeout=60)
        connection.request("POST", PREDICT, sent, {"Accept-Encoding": encoding})
        response = connection.getresponse()
        return dict(response.getheaders()), response.read()

    for encoding in ("gzip", "br;q=1.0, gzip;q=0.8, *;q=0.1", "GZIP"):
        headers, answer = post(encoding)
        assert headers["Content-Encoding"] == "gzip" and "Accept-Encoding" in headers["Vary"]
        assert json.loads(gzip.decompress(answer))["predictions"] == [3.25] * 5000
    for encoding in ("identity", "gzip;q=0", "br", ""):
        headers, answer = post(encoding)
        assert "Content-Encoding" not in headers and len(json.loads(answer)["predictions"]) == 5000
    assert "Content-Encoding" not in post("gzip", '{"instances": [1]}')[0]


def test_grpc_answers_are_compressed_as_the_requests_are(ours):
    import tensorflow as tf
    from tensorflow.core.framework.tensor_pb2 import TensorProto

    from kerasline.components.serving.runtime.messages import messages

    request = messages().PredictRequest()
    request.model_spec.name = "half"
    request.inputs["x"].ParseFromString(TensorProto(**{"dtype": 1}).SerializeToString())
    request.inputs["x"].tensor_shape.dim.add(size=5000)
    sent = request.SerializeToString()
    for compressed in (False, True):
        body = gzip.compress(sent) if compressed else sent
        with Connection(ours.grpc_port).begin() as connection:
            encoding = "gzip" if compressed else None
            fields = {"grpc_encoding": encoding, "grpc_accept_encoding": "identity, gzip"}
            head = call(1, **fields)
            connection.send(head + frame(DATA, END_STREAM, 1, message(body, compressed=int(compressed))))
            answer = connection.answer()
        assert answer["grpc-status"] == "0" and answer.get("grpc-encoding") == encoding
    compression = grpc.Compression.Gzip
    with grpc.insecure_channel(f"127.0.0.1:{ours.grpc_port}", compression=compression) as channel:
        answer = channel.unary_unary(PREDICT_CALL)(sent, 60)
    (output,) = messages().PredictResponse.FromString(answer).outputs.values()
    assert tf.make_ndarray(TensorProto.FromString(output.SerializeToString())).tolist() == [3.0] * 5000


TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def test_trace_context_is_in_the_answer_and_the_log(half, tmp_path):
    log = tmp_path / "access.log"
    with serving(tmp_path, str(half), "--access-log", str(log)) as server:
        _, headers, _ = exchange(server, "GET", "/v1/models/half", traceparent=TRACE, X_Request_Id="seven")
        headers = {name.lower(): value for name, value in headers.items()}
        assert (headers["traceparent"], headers["x-request-id"]) == (TRACE, "seven")
        for wrong in (TRACE[:-1], TRACE.replace("00f067aa0ba902b7", "0" * 16), "ff" + TRACE[2:], "a b"):
            assert "traceparent" not in exchange(server, "GET", "/v1/models/half", traceparent=wrong)[1]
        with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
            metadata = (("traceparent", TRACE), ("x-request-id", "eight"))
            check = channel.unary_unary("/grpc.health.v1.Health/Check")
            _, done = check.with_call(b"", 60, metadata=metadata)
            assert dict(done.initial_metadata())["traceparent"] == TRACE
        assert server.stop() == 0
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    found = [(one["request_id"], one["traceparent"]) for one in entries if one["traceparent"]]
    assert found == [("seven", TRACE), ("eight", TRACE)]


def test_streams_end_when_the_server_stops(half, tmp_path):
    with serving(tmp_path, str(half)) as server, grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        watching = channel.unary_stream("/grpc.health.v1.Health/Watch")(b"", 60)
        assert next(watching) == b"\x08\x01"
        asked, end = threading.Event(), threading.Event()

        def questions():
            asked.set()
            end.wait(60)
            yield b""

        reflecting = channel.stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")(questions())
        assert asked.wait(30)
        used = cpu_seconds(server)
        time.sleep(1)
        assert cpu_seconds(server) - used < 0.3  # waiting costs nothing
        server.process.send_signal(signal.SIGTERM)
        assert next(watching) == b"\x08\x02"  # NOT_SERVING
        for stream in (watching, reflecting):
            with pytest.raises(grpc.RpcError) as ended:
                next(stream)
            assert ended.value.code() is grpc.StatusCode.UNAVAILABLE
        end.set()
        assert server.process.wait(20) == 0


def cpu_seconds(server) -> float:
    with open(f"/proc/{server.process.pid}/stat") as file:
        user, system = file.read().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
