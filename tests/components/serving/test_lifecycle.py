"""Start, readiness, security and shutdown of real server processes."""

from __future__ import annotations

import concurrent.futures
import http.client
import json
import os
import shutil
import signal
import socket
import ssl
import sys
import threading
import time
import urllib.request

import grpc
import pytest

from tests import forking
from tests.components.serving.saved_models import save_functions, save_heavy
from tests.components.serving.servers import self_signed, serving, start, wait_until
from tests.conftest import REPOSITORY
from tests.ports import free_port

# Root ignores file permissions; this wrapper drops the capabilities for that.
WITHOUT_ROOT_ACCESS = (
    ("setpriv", "--bounding-set", "-dac_override,-dac_read_search")
    if os.geteuid() == 0 and shutil.which("setpriv")
    else ()
)


def refused(*arguments: str, within: tuple[str, ...] = ()) -> str:
    """Return the one-line error of a `serve` that does not start."""
    done = forking.run(
        [*within, sys.executable, "run_pipeline.py", "serve", *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1 and "Traceback" not in done.stderr
    return errors[0]


def test_folder_without_model_fails_in_one_line(tmp_path, half):
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("")
    assert "nowhere: no such folder" in refused(str(tmp_path / "nowhere"))
    assert "empty is empty; push a model there first" in refused(str(tmp_path / "empty"))
    assert "other holds no SavedModel" in refused(str(tmp_path / "other"))
    assert "no model; pass a folder" in refused()
    assert "expected NAME=DIR" in refused("--model", "half")
    assert "has no version 7; it has 1" in refused(str(half), "--label", "stable=7")
    assert "two models are named 'half'" in refused(str(half), "--model", f"half={half}")


@pytest.mark.slow
@pytest.mark.parametrize("as_option", [False, True], ids=["MODEL-DIR", "--model"])
def test_unreadable_folder_fails_in_one_line(tmp_path, as_option):
    def refused_folder(folder) -> str:
        return refused(*(["--model", f"half={folder}"] if as_option else [str(folder)]), within=WITHOUT_ROOT_ACCESS)

    (tmp_path / "circle").symlink_to("circle")
    assert "circle cannot be read: Too many levels" in refused_folder(tmp_path / "circle")
    assert "cannot be read: File name too long" in refused_folder(tmp_path / ("x" * 300) / "half")
    assert "nowhere: no such folder" in refused_folder(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    assert "file: not a folder" in refused_folder(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    assert "empty is empty; push a model there first" in refused_folder(tmp_path / "empty")
    if os.geteuid() == 0 and not WITHOUT_ROOT_ACCESS:
        pytest.skip("root reads everything, and setpriv is not available")
    (tmp_path / "closed").mkdir(mode=0)
    closed = refused_folder(tmp_path / "closed")
    assert "closed" in closed and ("cannot be read: Permission denied" in closed or "is not readable" in closed)
    version = tmp_path / "half" / "1"
    version.mkdir(parents=True)
    (version / "saved_model.pb").write_bytes(b"")
    version.chmod(0)
    assert "half holds no SavedModel" in refused_folder(tmp_path / "half")
    version.chmod(0o700)
    (version / "saved_model.pb").chmod(0)
    assert "half: cannot be loaded: version 1" in refused_folder(tmp_path / "half")


def test_damaged_model_fails_in_one_line(tmp_path):
    folder = tmp_path / "broken" / "1"
    folder.mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"nonsense")
    assert "broken: cannot be loaded: version 1" in refused(str(folder.parent), "--rest-port", "0", "--grpc-port", "0")


def test_port_in_use_fails_in_one_line(half):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert "REST cannot listen" in refused(str(half), "--rest-port", port, "--grpc-port", "0")
        assert "gRPC cannot listen" in refused(str(half), "--rest-port", "0", "--grpc-port", port)


def test_health_precedes_readiness(half, tmp_path):
    """Every endpoint responds while the model loads; readiness and predictions follow the model."""
    server = start(tmp_path, str(half))
    try:
        seen = []

        def ready() -> bool:
            try:
                health, readiness = server.get("/healthz")[0], server.get("/readyz")[0]
                state = server.get("/v1/models/half")[1].get("model_version_status", [{"state": "NONE"}])[0]["state"]
                server.get("/v1/models/half/metadata")
                predicted = server.post("/v1/models/half:predict", {"instances": [2.0]})[0]
                server.metric("kerasline_rest_connections")
            except OSError:
                return False
            seen.append((health, readiness, state, predicted))
            return seen[-1] == (200, 200, "AVAILABLE", 200)

        wait_until(ready, server)
        assert (200, 503, "LOADING", 503) in seen
        assert {state for _, readiness, state, _ in seen if readiness == 200} == {"AVAILABLE"}
    finally:
        server.stop()


def test_sigterm_finishes_requests_in_progress(tmp_path):
    """Readiness ends at once, the request is answered, the port closes, and the exit status is 0."""
    folder = tmp_path / "heavy"
    folder.mkdir()
    save_heavy(folder / "1")
    with serving(tmp_path / "log", str(folder)) as server:
        answers = []

        def ask() -> None:
            answers.append(server.post("/v1/models/heavy:predict", {"instances": [1.0] * 8}))

        asking = threading.Thread(target=ask)
        asking.start()
        wait_until(lambda: server.metric("kerasline_requests_under_way") >= 1, server)
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: _ready_status(server) != 200)
        asking.join()
        assert server.process.wait(60) == 0
    (answer,) = answers
    assert answer[0] == 200
    assert answer[1]["predictions"] == pytest.approx([1.0] * 8, rel=1e-5)
    with pytest.raises(OSError):
        server.get("/healthz")


def _ready_status(server) -> int:
    try:
        return server.get("/readyz")[0]
    except OSError:
        return 0


@pytest.mark.slow
def test_sigterm_under_load_loses_no_request(half, tmp_path):
    """Clients that receive `Connection: close` reconnect until the port closes. No request in between fails."""
    lost, answered = [], []
    with serving(tmp_path / "log", str(half)) as server:

        def ask_once(connection: http.client.HTTPConnection) -> bool:
            connection.request("POST", "/v1/models/half:predict", b'{"instances": [2.0]}')
            answer = connection.getresponse()
            answered.append((answer.status, json.loads(answer.read())))
            return answer.getheader("Connection") != "close"

        def ask() -> None:
            while True:
                connection = http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=30)
                try:
                    stays = ask_once(connection)
                except OSError:
                    return  # the port is closed, or the connection was never accepted
                try:
                    while stays:
                        stays = ask_once(connection)
                except (OSError, http.client.HTTPException) as error:
                    lost.append(repr(error))

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        time.sleep(2)
        assert server.stop() == 0
        for thread in threads:
            thread.join()
    assert lost == []
    assert len(answered) > 100
    assert all(one == (200, {"predictions": [2.0]}) for one in answered)


def test_requests_end_at_their_deadline(tmp_path):
    folder = tmp_path / "heavy"
    folder.mkdir()
    save_heavy(folder / "1", 1500)
    with serving(tmp_path / "log", str(folder), "--timeout", "20") as server:
        body = {"instances": [1.0] * 40}
        began = time.monotonic()
        status, answer = server.post("/v1/models/heavy:predict", body, **{"X-Request-Timeout": "0.2"})
        assert (status, answer) == (504, {"error": "the deadline of the request was exceeded"})
        assert server.post("/v1/models/heavy:predict", body, **{"X-Request-Timeout": "soon"})[0] == 400
        # With a gRPC deadline the client gives up by itself, and the server drops the waiting request.
        with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
            predict = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
            with pytest.raises(grpc.RpcError) as late:
                predict(_heavy_request(), 0.2)
            assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert time.monotonic() - began < 20
        assert server.get("/readyz")[0] == 200


def _heavy_request() -> bytes:
    from kerasline.components.serving.runtime.messages import messages

    request = messages().PredictRequest()
    request.model_spec.name = "heavy"
    request.inputs["x"].dtype = 1
    request.inputs["x"].tensor_shape.dim.add(size=4)
    request.inputs["x"].float_val.append(1.0)
    return request.SerializeToString()


def test_full_queue_answers_429(tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    folder = tmp_path / "heavy"
    folder.mkdir()
    save_heavy(folder / "1", 1500)
    with serving(tmp_path / "log", str(folder), "--queue", "4", "--batching", "off") as server:
        with ThreadPoolExecutor(24) as threads:
            answers = list(
                threads.map(lambda _: server.post("/v1/models/heavy:predict", {"instances": [1.0] * 3}), range(24))
            )
        statuses = sorted({status for status, _body in answers})
        assert statuses == [200, 429]
        assert all("queue" in body["error"] for status, body in answers if status == 429)
        assert server.post("/v1/models/heavy:predict", {"instances": [1.0]})[0] == 200


def test_rest_and_grpc_require_the_api_key(half, tmp_path):
    with serving(tmp_path, str(half), environment={"KERASLINE_API_KEY": "a long secret"}) as server:
        body = {"instances": [2.0]}
        assert server.get("/healthz")[0] == server.get("/readyz")[0] == 200
        assert server.post("/v1/models/half:predict", body)[0] == 401
        assert server.get("/metrics")[0] == 401
        assert server.post("/v1/models/half:predict", body, **{"X-API-Key": "wrong"})[0] == 401
        assert server.post("/v1/models/half:predict", body, **{"X-API-Key": "a long secret"})[0] == 200
        assert server.post("/v1/models/half:predict", body, Authorization="Bearer a long secret")[0] == 200
        with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
            status = channel.unary_unary("/tensorflow.serving.ModelService/GetModelStatus")
            with pytest.raises(grpc.RpcError) as refused_call:
                status(b"\x0a\x06\x0a\x04half", 60)
            assert refused_call.value.code() is grpc.StatusCode.UNAUTHENTICATED
            assert status(b"\x0a\x06\x0a\x04half", 60, metadata=[("x-api-key", "a long secret")])


def test_rest_and_grpc_use_tls(half, tmp_path):
    certificate, key = self_signed(tmp_path)
    arguments = ("--tls-certificate", str(certificate), "--tls-key", str(key), "--idle", "3")
    with serving(tmp_path, str(half), *arguments) as server:
        trusting = ssl.create_default_context(cafile=str(certificate))
        request = urllib.request.Request(
            f"https://localhost:{server.rest_port}/v1/models/half:predict", b'{"instances": [2.0]}'
        )
        with urllib.request.urlopen(request, context=trusting, timeout=60) as answer:
            assert json.loads(answer.read()) == {"predictions": [2.0]}
        with pytest.raises(OSError):  # plain HTTP is not answered
            server.get("/healthz")
        with socket.create_connection(("127.0.0.1", server.rest_port), 30) as silent:
            assert silent.recv(1) == b"", "a client that starts no handshake is disconnected"
        credentials = grpc.ssl_channel_credentials(certificate.read_bytes())
        with grpc.secure_channel(f"localhost:{server.grpc_port}", credentials) as channel:
            status = channel.unary_unary("/tensorflow.serving.ModelService/GetModelStatus")
            assert status(b"\x0a\x06\x0a\x04half", 60)


def test_unsupported_tls_key_fails_in_one_line(half, tmp_path):
    certificate, key = self_signed(tmp_path, curve="SECP256K1")
    given = ("--tls-certificate", str(certificate), "--tls-key", str(key))
    error = refused(str(half), "--no-rest", "--grpc-port", "0", *given)
    assert "gRPC cannot listen" in error and "private key" in error and "--grpc-port" not in error


def test_server_listens_on_loopback_by_default(half, tmp_path):
    with serving(tmp_path, str(half)) as server:
        ports = {f"{port:04X}" for port in (server.rest_port, server.grpc_port)}
        listening = set()
        for table in ("/proc/net/tcp", "/proc/net/tcp6"):
            with open(table) as lines:
                for line in list(lines)[1:]:
                    address, state = line.split()[1], line.split()[3]
                    if state == "0A" and address.split(":")[1] in ports:
                        listening.add(address.split(":")[0])
        assert listening == {"0100007F"}  # 127.0.0.1


def test_access_log_is_json_lines(half, tmp_path):
    file = tmp_path / "access.jsonl"
    with serving(tmp_path / "log", str(half), "--access-log", str(file)) as server:
        server.post("/v1/models/half:predict", {"instances": [1.0, 2.0]}, **{"X-Request-Id": "abc-1"})
        server.post("/v1/models/half:predict", {"instances": ["x"]})
        server.get("/v1/models/half")
    entries = [json.loads(line) for line in file.read_text().splitlines()]
    predicted, wrong, status = [e for e in entries if e["path"].startswith("/v1/models/half")]
    assert (predicted["status"], predicted["rows"], predicted["version"]) == (200, 2, 1)
    assert (predicted["request_id"], predicted["protocol"], predicted["model"]) == ("abc-1", "rest", "half")
    assert predicted["milliseconds"] > 0 and predicted["bytes_in"] > 0 and predicted["time"].endswith("Z")
    assert wrong["status"] == 400 and wrong["code"] == "INVALID_ARGUMENT" and "String" in wrong["error"]
    assert status["method"] == "status"


def test_full_access_log_fails_no_request(half, tmp_path):
    with serving(tmp_path, str(half), "--access-log", "/dev/full") as server:
        for _ in range(400):
            assert server.post("/v1/models/half:predict", {"instances": [1.0]})[0] == 200
        time.sleep(1.5)
        assert server.get("/healthz")[0] == 200
        assert server.stop() == 0
    log = server.log.read_text()
    assert log.count("access log /dev/full: No space left on device") == 1 and "Traceback" not in log


def test_empty_api_key_or_bad_certificate_fails_in_one_line(half, tmp_path):
    assert "the API key is empty" in refused(str(half), "--api-key", "")
    assert "the API key is empty" in refused(str(half), within=("env", "KERASLINE_API_KEY="))
    (tmp_path / "bad.pem").write_text("no certificate")
    bad = ("--tls-certificate", str(tmp_path / "bad.pem"), "--tls-key", str(tmp_path / "bad.pem"))
    assert "bad.pem" in refused(str(half), "--no-rest", *bad)


@pytest.mark.slow
def test_missing_h2corn_names_the_extra_and_no_grpc(half, tmp_path):
    (tmp_path / "h2corn.py").write_text("raise ImportError")
    error = refused(str(half), "--rest-port", "0", within=("env", f"PYTHONPATH={tmp_path}"))
    assert "pip install 'kerasline[serve]'" in error and "--no-grpc" in error


def test_rest_and_grpc_can_be_disabled(half, tmp_path):
    with serving(tmp_path, str(half), "--no-grpc") as server:
        assert server.get("/readyz")[0] == 200
        with pytest.raises(OSError):
            socket.create_connection(("127.0.0.1", server.grpc_port), 5)
    assert "both disabled" in refused(str(half), "--no-grpc", "--no-rest")
    assert "cannot share port" in refused(str(half), "--rest-port", "9", "--grpc-port", "9")
    assert free_port()


def test_execution_that_takes_long_for_its_values_does_not_stop_the_server(tmp_path):
    """The time of a loop depends on values, not on shapes: it never runs in the event loop, however quick it was."""
    import tensorflow as tf

    def count_to(n):
        return tf.while_loop(lambda at, _: at < n[0], lambda at, total: (at + 1, total + 1), [0, 0])[1] + n * 0

    (tmp_path / "loop").mkdir()
    save_functions(tmp_path / "loop" / "1", {"serving_default": (count_to, [None], tf.int32)})
    with serving(tmp_path / "log", str(tmp_path / "loop")) as server:
        for _ in range(30):
            assert server.post("/v1/models/loop:predict", {"instances": [1]})[0] == 200
        with concurrent.futures.ThreadPoolExecutor(1) as client:
            answer = client.submit(server.post, "/v1/models/loop:predict", {"instances": [200_000]})
            slowest = 0.0
            while not answer.done():
                started = time.monotonic()
                assert server.get("/healthz")[0] == 200
                slowest = max(slowest, time.monotonic() - started)
            assert answer.result() == (200, {"predictions": [200_000]})
    assert slowest < 2.0
