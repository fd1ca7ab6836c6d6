"""Server processes on free ports of the loopback interface."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REPOSITORY
from tests.forking import Forked
from tests.ports import free_port

START_SECONDS = 120.0
TENSORFLOW_SERVING = shutil.which("tensorflow_model_server")


class Server:
    """A running server: kerasline's or TensorFlow Serving's."""

    def __init__(self, process: subprocess.Popen, rest_port: int, grpc_port: int, log: Path):
        self.process, self.rest_port, self.grpc_port, self.log = process, rest_port, grpc_port, log

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.rest_port}{path}"

    def get(self, path: str, **headers: str) -> tuple[int, Any]:
        return self.request("GET", path, None, **headers)

    def post(self, path: str, body: Any, **headers: str) -> tuple[int, Any]:
        """Return status and decoded JSON. Bytes are sent unchanged."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.request("POST", path, data, **headers)

    def request(self, method: str, path: str, data: bytes | None, **headers: str) -> tuple[int, Any]:
        request = urllib.request.Request(self.url(path), data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    def metric(self, name: str, **labels: str) -> float:
        with urllib.request.urlopen(self.url("/metrics"), timeout=60) as answer:
            text = answer.read().decode()
        total = 0.0
        for line in text.splitlines():
            match = re.fullmatch(rf"{name}(?:{{(.*)}})? (\S+)", line)
            if match and all(f'{key}="{value}"' in (match[1] or "") for key, value in labels.items()):
                total += float(match[2])
        return total

    def resident_bytes(self) -> int:
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("no VmRSS")

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@contextlib.contextmanager
def serving(folder: Path, *arguments: str, environment: dict[str, str] | None = None) -> Iterator[Server]:
    """Run `run_pipeline.py serve ARGUMENTS`, wait until it is ready, and write its log to `folder`."""
    server = start(folder, *arguments, environment=environment)
    try:
        wait_until(lambda: "ready" in server.log.read_text(), server)
        yield server
    finally:
        server.stop()


def start(folder: Path, *arguments: str, environment: dict[str, str] | None = None) -> Server:
    rest_port, grpc_port = free_port(), free_port()
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / f"server-{rest_port}.log"
    command = [sys.executable, "run_pipeline.py", "serve", *arguments]
    command += ["--rest-port", str(rest_port), "--grpc-port", str(grpc_port)]
    with log.open("wb") as out:
        process = Forked(
            command,
            cwd=REPOSITORY,
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
        )
    return Server(process, rest_port, grpc_port, log)


@contextlib.contextmanager
def tensorflow_serving(folder: Path, models: dict[str, Path]) -> Iterator[Server]:
    """Run TensorFlow Serving's own server from the PATH."""
    rest_port, grpc_port = free_port(), free_port()
    config = folder / "models.config"
    entries = "".join(
        f'config {{ name: "{name}" base_path: "{path}" model_platform: "tensorflow" }}\n'
        for name, path in models.items()
    )
    config.write_text(f"model_config_list {{\n{entries}}}\n")
    log = folder / "tensorflow_serving.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [
                TENSORFLOW_SERVING,
                f"--rest_api_port={rest_port}",
                f"--port={grpc_port}",
                f"--model_config_file={config}",
            ],
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    server = Server(process, rest_port, grpc_port, log)

    def is_up() -> bool:
        try:
            states = [server.get(f"/v1/models/{name}")[1]["model_version_status"][0]["state"] for name in models]
        except (OSError, KeyError, ValueError):
            return False
        return states == ["AVAILABLE"] * len(models)

    try:
        wait_until(is_up, server)
        yield server
    finally:
        server.stop()


def wait_until(is_so: Any, server: Server | None = None, seconds: float = START_SECONDS) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        if server is not None and server.process.poll() is not None:
            raise AssertionError(f"the server exited: {server.log.read_text()}")
        if time.monotonic() > end:
            raise AssertionError(f"timed out; {server.log.read_text() if server else ''}")
        time.sleep(0.05)


def self_signed(folder, curve="SECP256R1"):
    """Create a certificate for localhost and its key."""
    x509 = pytest.importorskip("cryptography.x509", reason="cryptography makes the certificate")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(getattr(ec, curve)())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "certificate.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder / "certificate.pem", folder / "key.pem"
