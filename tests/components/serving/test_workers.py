"""Several server processes on the same ports."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import time

import grpc
import pytest
from google.protobuf import text_format

from kerasline.components.serving.runtime.messages import messages
from tests.components.serving.servers import serving, start, wait_until

PREDICT = "/v1/models/half:predict"


def workers(server) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(server.process.pid)], capture_output=True, text=True)
    return [int(line) for line in found.stdout.split()]


def write_broken_model(folder):
    (folder / "broken" / "1").mkdir(parents=True)
    (folder / "broken" / "1" / "saved_model.pb").write_bytes(b"nonsense")
    return folder / "broken"


def ask_on_new_connections(server, count: int, path: str = PREDICT) -> None:
    """Each connection goes to any of the workers."""
    for _ in range(count):
        connection = http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=60)
        connection.request("POST", path, b'{"instances": [0.0]}')
        answer = connection.getresponse()
        assert (answer.status, json.loads(answer.read())) == (200, {"predictions": [1.0]})
        connection.close()


def test_workers_share_ports_and_metrics_and_are_replaced(half, tmp_path):
    with serving(tmp_path, str(half), "--workers", "2") as server:
        first = workers(server)
        assert len(first) == 2
        ask_on_new_connections(server, 20)
        answered = {"protocol": "rest", "method": "predict", "code": "OK"}
        assert server.metric("kerasline_requests_total", **answered) == 20
        time.sleep(5)  # so that a worker is replaced at once
        os.kill(first[0], signal.SIGKILL)
        wait_until(lambda: "it is replaced" in server.log.read_text(), server)
        wait_until(lambda: len(workers(server)) == 2 and set(workers(server)) != set(first), server)
        assert server.stop() == 0
        wait_until(lambda: not any(os.path.exists(f"/proc/{process}") for process in first))


def reload_request(**models) -> bytes:
    configs = " ".join(f'config {{ name: "{name}" base_path: "{path}" }}' for name, path in models.items())
    request = text_format.Parse(f"config {{ model_config_list {{ {configs} }} }}", messages().ReloadConfigRequest())
    return request.SerializeToString()


def test_configuration_by_grpc_reaches_all_workers(half, tmp_path):
    broken = write_broken_model(tmp_path)
    with serving(tmp_path, str(half), "--workers", "2") as server:
        with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
            reload = channel.unary_unary("/tensorflow.serving.ModelService/HandleReloadConfigRequest")
            with pytest.raises(grpc.RpcError, match="config: .*none") as error:
                reload(reload_request(other=tmp_path / "none"), timeout=60)
            assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
            ask_on_new_connections(server, 10)
            reload(reload_request(other=half), timeout=60)
            ask_on_new_connections(server, 20, "/v1/models/other:predict")
            with pytest.raises(grpc.RpcError, match="worker .*cannot be loaded.*; worker .*cannot be loaded") as error:
                reload(reload_request(third=half, broken=broken), timeout=60)
            assert error.value.code() == grpc.StatusCode.UNAVAILABLE
        first = workers(server)
        os.kill(first[0], signal.SIGKILL)
        wait_until(lambda: server.log.read_text().count("third version 1 loaded") == 3, server)
        ask_on_new_connections(server, 20, "/v1/models/third:predict")


def test_workers_that_cannot_start_fail_in_one_line(half, tmp_path):
    server = start(tmp_path, str(write_broken_model(tmp_path)), "--workers", "2")
    assert server.process.wait(120) == 1
    text = server.log.read_text()
    assert "cannot be loaded" in text and "Traceback" not in text
