"""What operators and browsers need: HEAD, CORS, log rotation, client certificates, safe models."""

from __future__ import annotations

import http.client
import json
import os
import signal
import ssl
import urllib.error
import urllib.request

import pytest

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
        asked = {"Origin": "https://good.example", "Access_Control_Request_Method": "POST"}
        status, headers, body = exchange(server, "OPTIONS", PREDICT, **asked)
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
