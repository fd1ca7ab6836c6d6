"""Several server processes on the same ports."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import time

from tests.components.serving.servers import serving, start, wait_until

PREDICT = "/v1/models/half:predict"


def workers(server) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(server.process.pid)], capture_output=True, text=True)
    return [int(line) for line in found.stdout.split()]


def ask_on_new_connections(server, count: int) -> None:
    """Each connection goes to any of the workers."""
    for _ in range(count):
        connection = http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=60)
        connection.request("POST", PREDICT, b'{"instances": [0.0]}')
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


def test_workers_that_cannot_start_fail_in_one_line(half, tmp_path):
    (tmp_path / "broken" / "1").mkdir(parents=True)
    (tmp_path / "broken" / "1" / "saved_model.pb").write_bytes(b"nonsense")
    server = start(tmp_path, str(tmp_path / "broken"), "--workers", "2")
    assert server.process.wait(120) == 1
    text = server.log.read_text()
    assert "cannot be loaded" in text and "Traceback" not in text
