"""The model server against a bare HTTP server, and what each of its layers costs.

    python run_pipeline.py run --root /tmp/penguins
    python benchmarks/serving.py --penguins /tmp/penguins/served/penguins

Needs wrk (Debian: wrk) and hey (Debian: hey); for gRPC's throughput ghz, where it is on the PATH
(go install github.com/bojand/ghz/cmd/ghz@v0.120.0), and tensorflow-serving-api's stubs. All of it runs on
the machine's own cores, load generators included. Bare servers and ours are measured in turn, and the
median of the rounds counts.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

HOUSE = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(HOUSE))
CONNECTIONS, SECONDS = 32, 4
PENGUIN = {
    "island": ["Torgersen"], "sex": ["male"], "bill_length_mm": [39.1], "bill_depth_mm": [18.7],
    "flipper_length_mm": [181.0], "body_mass_g": [3750.0],
}  # fmt: skip
PROTOSET = "serving.protoset"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--penguins", type=Path, help="The folder of versions that Pusher wrote.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bare", nargs=3, metavar=("KIND", "PORT", "BYTES"), help=argparse.SUPPRESS)
    parser.add_argument("--layers", nargs=2, metavar=("FOLDER", "ROW"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.bare:
        asyncio.run(bare(options.bare[0], int(options.bare[1]), int(options.bare[2])))
    elif options.layers:
        print(json.dumps(layers(Path(options.layers[0]), json.loads(options.layers[1]))))
    else:
        measure(options.penguins, options.rounds)


def measure(penguins: Path, rounds: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        subprocess.run([sys.executable, "-c", NETWORK, folder], check=True, stderr=subprocess.DEVNULL)
        row = {"pixels": [round(n / 784, 3) for n in range(784)]}
        models = {"penguins": (penguins, PENGUIN), "network": (Path(folder) / "network", row)}
        write_protoset()
        for name, (path, one) in models.items():
            print(f"\n## {name}")
            measure_layers(path, one)
            measure_server(name, path, one, rounds)
        measure_cold_start(penguins)


NETWORK = """
import sys, keras, tensorflow as tf
keras.utils.set_random_seed(0)
layers = keras.layers
net = keras.Sequential([keras.Input((784,)), layers.Dense(128, "relu"), layers.Dense(64, "relu"),
                        layers.Dense(10, "softmax")])
archive = keras.export.ExportArchive()
archive.track(net)
spec = tf.TensorSpec((None, 784), tf.float32, name="pixels")
answer = lambda x: {"probabilities": net(x, training=False)}
archive.add_endpoint("serving_default", answer, input_signature=[spec])
archive.write_out(sys.argv[1] + "/network/1", verbose=False)
"""


def measure_layers(folder: Path, row: dict[str, Any]) -> None:
    """Microseconds a call, in one process, no server: each in a process of its own with and without oneDNN."""
    for onednn in ("1", "0"):
        done = subprocess.run(
            [sys.executable, __file__, "--layers", str(newest(folder)), json.dumps(row)],
            env={**os.environ, "TF_ENABLE_ONEDNN_OPTS": onednn, "TF_CPP_MIN_LOG_LEVEL": "3"},
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True,
        )  # fmt: skip
        print(f"in process, oneDNN {'on' if onednn == '1' else 'off'}, microseconds: {done.stdout.strip()}")


def layers(folder: Path, row: dict[str, Any]) -> dict[str, float]:
    import numpy as np
    import tensorflow as tf

    from components.serving import json_codec
    from components.serving.engine import SavedModelSession

    session = SavedModelSession(folder)
    signature = session.signature("")
    call = tf.saved_model.load(str(folder)).signatures["serving_default"]
    found = {}
    for rows in (1, 64):
        body = json.dumps({"instances": [row] * rows}).encode()
        document = json_codec.parse(body)
        arrays = json_codec.predict_inputs(document, signature)[0].arrays()
        tensors = {name: tf.constant(array) for name, array in zip(signature.inputs, arrays)}
        outputs = session.call(signature, arrays)

        def signature_call(given: Any = tensors) -> None:
            {name: value.numpy() for name, value in call(**given).items()}

        def decode(text: bytes = body) -> None:
            json_codec.predict_inputs(json_codec.parse(text), signature)[0].arrays()

        works: dict[str, Callable[[], Any]] = {
            "signature call": signature_call,
            "session call": lambda given=arrays: session.call(signature, given),
            "JSON in": decode,
            "JSON out": lambda given=outputs: json_codec.predict_answer(
                list(signature.outputs), given, rows=True
            ),
        }
        assert np.isfinite(outputs[-1]).all()
        for name, work in works.items():
            found[f"{name}, {rows}"] = round(microseconds(work), 1)
    return found


def microseconds(work: Callable[[], Any]) -> float:
    """The median of seven means."""
    for _ in range(30):
        work()
    means = []
    for _ in range(7):
        began = time.perf_counter()
        for _ in range(100):
            work()
        means.append((time.perf_counter() - began) * 1e4)
    return statistics.median(means)


def measure_server(name: str, folder: Path, row: dict[str, Any], rounds: int) -> None:
    """REST, gRPC and the bare servers in turn."""
    rest, grpc_port, application, low_level = (free_port() for _ in range(4))
    path = f"/v1/models/{name}:predict"
    command = [sys.executable, str(HOUSE / "run_pipeline.py"), "serve", "--model", f"{name}={folder}"]
    server = subprocess.Popen(
        [*command, "--rest-port", str(rest), "--grpc-port", str(grpc_port)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=HOUSE,
    )  # fmt: skip
    wait_ready(rest)
    body = json.dumps({"instances": [row]}).encode()
    answer = urllib.request.urlopen(f"http://127.0.0.1:{rest}{path}", body).read()
    bare_servers = [
        subprocess.Popen([sys.executable, __file__, "--bare", kind, str(port), str(len(answer))])
        for kind, port in (("application", application), ("low-level", low_level))
    ]
    time.sleep(3)
    try:
        ports = {"bare application": application, "bare low-level": low_level, "REST": rest}
        figures: dict[str, list[tuple[float, str]]] = {}
        write_lua(body)
        request, request_64 = write_grpc(name, row, 1), write_grpc(name, row, 64)
        for _ in range(rounds):
            for what, port in ports.items():
                figures.setdefault(what, []).append(wrk(port, path))
            figures.setdefault("gRPC", []).append(ghz(grpc_port, request))
        medians = {what: statistics.median(rate for rate, _ in found) for what, found in figures.items()}
        for what, found in figures.items():
            share = medians[what] / medians["bare application"]
            print(f"{what}, 1 row: {medians[what]:.0f}/s, {share:.2f} of the bare application; "
                  f"p99 {', '.join(p for _, p in found)}")  # fmt: skip
        write_lua(json.dumps({"instances": [row] * 64}).encode())
        print(f"REST, 64 rows: {statistics.median(wrk(rest, path)[0] for _ in range(rounds)):.0f}/s")
        print(
            f"gRPC, 64 rows: {statistics.median(ghz(grpc_port, request_64)[0] for _ in range(rounds)):.0f}/s"
        )
        (Path("body.json")).write_bytes(body)
        print(f"REST, 1 row at 70 % load: {hey(rest, path, 0.7 * medians['REST'])}")
        print(f"one client, 1 row, p50 in ms: {alone(name, rest, grpc_port, path, body, request)}")
    finally:
        for process in (server, *bare_servers):
            process.terminate()
            process.wait()


async def bare(kind: str, port: int, size: int) -> None:
    """A server of the same engine that reads the body and answers a constant."""
    from aiohttp import web

    constant = b"x" * size

    async def answer(request: web.BaseRequest) -> web.Response:
        await request.read()
        return web.Response(body=constant, content_type="application/json")

    if kind == "application":
        application = web.Application()
        application.router.add_post("/v1/models/{name}:predict", answer)
        runner: Any = web.AppRunner(application, access_log=None)
    else:
        runner = web.ServerRunner(web.Server(answer, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


def write_lua(body: bytes) -> None:
    Path("body.lua").write_text(
        f"wrk.method = 'POST'\nwrk.body = [==[{body.decode()}]==]\n"
        "wrk.headers['Content-Type'] = 'application/json'\n"
    )


def wrk(port: int, path: str) -> tuple[float, str]:
    """Requests a second, and the 99th percentile; fails if anything but 2xx came."""
    done = subprocess.run(
        ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS}", "--latency", "-s", "body.lua",
         f"http://127.0.0.1:{port}{path}"], capture_output=True, text=True, check=True,
    )  # fmt: skip
    if "Non-2xx" in done.stdout or "Socket errors" in done.stdout:
        raise SystemExit(done.stdout)
    return float(re.search(r"Requests/sec:\s+(\S+)", done.stdout)[1]), re.search(r"99%\s+(\S+)", done.stdout)[
        1
    ]


def hey(port: int, path: str, rate: float) -> str:
    workers = 16
    done = subprocess.run(
        ["hey", "-z", f"{2 * SECONDS}s", "-c", str(workers), "-q", str(max(1, round(rate / workers))),
         "-m", "POST", "-T", "application/json", "-D", "body.json", f"http://127.0.0.1:{port}{path}"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    got = float(re.search(r"Requests/sec:\s+(\S+)", done.stdout)[1])
    p50, p99 = (float(re.search(rf"{p}% in (\S+) secs", done.stdout)[1]) * 1e3 for p in (50, 99))
    return f"{got:.0f}/s (asked {rate:.0f}), p50 {p50:.2f} ms, p99 {p99:.2f} ms, ratio {p99 / p50:.1f}"


def ghz(port: int, request: Path) -> tuple[float, str]:
    if shutil.which("ghz") is None:
        return float("nan"), "ghz is not on the PATH"
    done = subprocess.run(
        ["ghz", "--insecure", "--protoset", PROTOSET, "--call", "tensorflow.serving.PredictionService/Predict",
         "-B", str(request), "-c", str(CONNECTIONS), "--connections", "4", "-z", f"{SECONDS}s",
         "--duration-stop", "wait", f"127.0.0.1:{port}"], capture_output=True, text=True, check=True,
    )  # fmt: skip
    if re.search(r"\[(?!OK)\w+\]\s+\d+ responses", done.stdout):
        raise SystemExit(done.stdout)
    return (
        float(re.search(r"Requests/sec:\s+(\S+)", done.stdout)[1]),
        re.search(r"99 % in (\S+ \S+)", done.stdout)[1].replace(" ", ""),
    )


def alone(name: str, rest: int, grpc_port: int, path: str, body: bytes, request: Path) -> str:
    """What one client that waits for each answer sees: http.client, and the genuine gRPC stub."""
    import http.client

    import grpc
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    connection = http.client.HTTPConnection("127.0.0.1", rest)

    def ask_rest() -> None:
        connection.request("POST", path, body)
        connection.getresponse().read()

    message = predict_pb2.PredictRequest.FromString(request.read_bytes())
    with grpc.insecure_channel(f"127.0.0.1:{grpc_port}") as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        return ", ".join(
            f"{what} {microseconds(work) / 1e3:.2f}"
            for what, work in (("REST", ask_rest), ("gRPC", lambda: stub.Predict(message)))
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
    """The genuine service's description, for ghz."""
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


def measure_cold_start(folder: Path, runs: int = 5) -> None:
    """From the command to readiness; and what importing TensorFlow takes of it."""
    ready, imported = [], []
    for _ in range(runs):
        rest, grpc_port = free_port(), free_port()
        began = time.perf_counter()
        server = subprocess.Popen(
            [sys.executable, str(HOUSE / "run_pipeline.py"), "serve", str(folder), "--rest-port", str(rest),
             "--grpc-port", str(grpc_port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=HOUSE,
        )  # fmt: skip
        wait_ready(rest)
        ready.append(time.perf_counter() - began)
        server.terminate()
        server.wait()
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import tensorflow"], stderr=subprocess.DEVNULL, check=True)
        imported.append(time.perf_counter() - began)
    print(f"\ncold start: {statistics.median(ready):.1f} s (slowest {max(ready):.1f}); "
          f"importing TensorFlow alone {statistics.median(imported):.1f} s")  # fmt: skip


def wait_ready(port: int) -> None:
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=10).close()
            return
        except (OSError, urllib.error.URLError):
            time.sleep(0.02)


def newest(folder: Path) -> Path:
    return max((path for path in folder.iterdir() if path.name.isdigit()), key=lambda path: int(path.name))


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


if __name__ == "__main__":
    main()
