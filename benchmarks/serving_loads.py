"""Load generators for benchmarks/serving.py, and the requests that they send."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

CONNECTIONS, SECONDS = 32, 4
PREDICT = "tensorflow.serving.PredictionService"
PROTOSET = "serving.protoset"


class Load(NamedTuple):
    """The result of a load generator. The percentile is as the generator printed it."""

    rate: float
    p99: str
    requests: int


def write_lua(body: bytes, headers: dict[str, str] | None = None) -> None:
    lines = [f"wrk.method = 'POST'\nwrk.body = [==[{body.decode()}]==]"]
    for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
        lines.append(f"wrk.headers['{name}'] = '{value}'")
    Path("body.lua").write_text("\n".join(lines) + "\n")


def wrk(port: int, path: str, scheme: str = "http") -> Load:
    """Load a URL with wrk. Exit unless all responses are 2xx."""
    done = subprocess.run(
        [
            "wrk",
            "-t1",
            f"-c{CONNECTIONS}",
            f"-d{SECONDS}",
            "--latency",
            "-s",
            "body.lua",
            f"{scheme}://127.0.0.1:{port}{path}",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    if "Non-2xx" in done.stdout or "Socket errors" in done.stdout:
        raise SystemExit(done.stdout)
    return Load(
        float(re.search(r"Requests/sec:\s+(\S+)", done.stdout)[1]),
        re.search(r"^\s+99%\s+(\S+)", done.stdout, re.MULTILINE)[1],
        int(re.search(r"(\d+) requests in", done.stdout)[1]),
    )


def hey(port: int, path: str, rate: float) -> str:
    workers = 16
    done = subprocess.run(
        [
            "hey",
            "-z",
            f"{2 * SECONDS}s",
            "-c",
            str(workers),
            "-q",
            str(max(1, round(rate / workers))),
            "-m",
            "POST",
            "-T",
            "application/json",
            "-D",
            "body.json",
            f"http://127.0.0.1:{port}{path}",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    got = float(re.search(r"Requests/sec:\s+(\S+)", done.stdout)[1])
    p50, p99 = (float(re.search(rf"{p}% in (\S+) secs", done.stdout)[1]) * 1e3 for p in (50, 99))
    return f"{got:.0f}/s (requested {rate:.0f}), p50 {p50:.2f} ms, p99 {p99:.2f} ms, ratio {p99 / p50:.1f}"


def h2load(url: str, body: Path, *options: str) -> Load:
    """Load REST over HTTP/1.1 with `--h1`, otherwise gRPC over HTTP/2. Only HTTP statuses are checked, not gRPC's."""
    done = subprocess.run(
        ["h2load", "-t1", f"-c{CONNECTIONS}", "-m1", f"-D{SECONDS}", *options, "-d", str(body), url],
        capture_output=True,
        text=True,
        check=True,
    )
    succeeded, failed, wrong = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored", done.stdout).groups()
    if int(failed) or int(wrong):
        raise SystemExit(done.stdout)
    rate = float(re.search(r"finished in \S+, (\S+) req/s", done.stdout)[1])
    return Load(rate, "not reported", int(succeeded))


def h2load_grpc(port: int, request: Path) -> Load:
    message = request.read_bytes()
    framed = request.with_suffix(".framed")
    framed.write_bytes(struct.pack(">BI", 0, len(message)) + message)
    headers = ["-H", "te: trailers", "-H", "content-type: application/grpc"]
    return h2load(f"http://127.0.0.1:{port}/{PREDICT}/Predict", framed, *headers)


def ghz(port: int, request: Path) -> Load:
    if shutil.which("ghz") is None:
        return Load(float("nan"), "ghz is not on the PATH", 0)
    done = subprocess.run(
        [
            "ghz",
            "--insecure",
            "--protoset",
            PROTOSET,
            "--call",
            f"{PREDICT}/Predict",
            "-B",
            str(request),
            "-c",
            str(CONNECTIONS),
            "--connections",
            "4",
            "-z",
            f"{SECONDS}s",
            "--duration-stop",
            "wait",
            f"127.0.0.1:{port}",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    if re.search(r"\[(?!OK)\w+\]\s+\d+ responses", done.stdout):
        raise SystemExit(done.stdout)
    return Load(
        float(re.search(r"Requests/sec:\s+(\S+)", done.stdout)[1]),
        re.search(r"99 % in (\S+ \S+)", done.stdout)[1].replace(" ", ""),
        int(re.search(r"Count:\s+(\d+)", done.stdout)[1]),
    )


def sequential_latency(name: str, rest: int, grpc_port: int, path: str, body: bytes, request: Path) -> str:
    """Measure the latency of one client without concurrency, with http.client and the original gRPC stub."""
    import http.client

    import grpc
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    connection = http.client.HTTPConnection("127.0.0.1", rest)

    def send_rest() -> None:
        connection.request("POST", path, body)
        connection.getresponse().read()

    message = predict_pb2.PredictRequest.FromString(request.read_bytes())
    with grpc.insecure_channel(f"127.0.0.1:{grpc_port}") as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        return ", ".join(
            f"{what} {microseconds(work) / 1e3:.2f}"
            for what, work in (("REST", send_rest), ("gRPC", lambda: stub.Predict(message)))
        )


def write_grpc(name: str, row: dict[str, Any], rows: int) -> Path:
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2

    request = predict_pb2.PredictRequest()
    request.model_spec.name = name
    for key, value in row.items():
        kind = tf.string if isinstance(value[0], str) else tf.float32
        request.inputs[key].CopyFrom(tf.make_tensor_proto([value] * rows, kind))
    file = Path(f"{name}-{rows}.bin")
    file.write_bytes(request.SerializeToString())
    return file.absolute()


def write_protoset() -> None:
    """Write the descriptor of the original service for ghz."""
    from google.protobuf import descriptor_pb2
    from tensorflow_serving.apis import prediction_service_pb2

    files, seen = descriptor_pb2.FileDescriptorSet(), set()

    def add(file: Any) -> None:
        if file.name not in seen:
            seen.add(file.name)
            for other in file.dependencies:
                add(other)
            file.CopyToProto(files.file.add())

    add(prediction_service_pb2.DESCRIPTOR)
    Path(PROTOSET).write_bytes(files.SerializeToString())


def microseconds(work: Callable[[], Any]) -> float:
    """Return the minimum of seven mean durations: other load on the machine only adds time."""
    for _ in range(30):
        work()
    means = []
    for _ in range(7):
        began = time.perf_counter()
        for _ in range(100):
            work()
        means.append((time.perf_counter() - began) * 1e4)
    return min(means)
