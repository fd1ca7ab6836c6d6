"""Compare the model server with minimal HTTP servers, and measure the cost of each layer.

    python run_pipeline.py run --root /tmp/penguins
    python benchmarks/serving.py --penguins /tmp/penguins/served/penguins

Needs wrk, hey and h2load (Debian: wrk, hey, nghttp2-client), ghz where it is on the PATH
(go install github.com/bojand/ghz/cmd/ghz@v0.120.0), and tensorflow-serving-api's stubs. Servers and load
generators share the cores of the machine, and ghz uses as much CPU time per request as the server. REST and gRPC
are therefore compared with h2load, which supports both. Minimal servers read the same body and return a constant
of the same size. All servers are measured in turn, and the median of the rounds is reported, beside the CPU time
of the server process per request, which depends less on other load on the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
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

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from benchmarks.serving_loads import (  # noqa: E402
    PREDICT,
    Load,
    ghz,
    h2load,
    h2load_grpc,
    hey,
    microseconds,
    sequential_latency,
    write_grpc,
    write_lua,
    write_protoset,
    wrk,
)

PENGUIN = {
    "island": ["Torgersen"],
    "sex": ["male"],
    "bill_length_mm": [39.1],
    "bill_depth_mm": [18.7],
    "flipper_length_mm": [181.0],
    "body_mass_g": [3750.0],
}
GRPC_ENGINES = ("grpc.aio", "h2corn")
API_KEY = "a key of some length"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--penguins", type=Path, help="The folder of versions that Pusher wrote.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=("penguins", "network"), help="Measure one model, within 4 minutes.")
    parser.add_argument("--bare", nargs=3, metavar=("KIND", "PORT", "BYTES"), help=argparse.SUPPRESS)
    parser.add_argument("--layers", nargs=2, metavar=("FOLDER", "ROW"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.bare:
        asyncio.run(bare(options.bare[0], int(options.bare[1]), int(options.bare[2])))
    elif options.layers:
        print(json.dumps(layers(Path(options.layers[0]), json.loads(options.layers[1]))))
    else:
        measure(options.penguins, options.rounds, options.only)


def measure(penguins: Path, rounds: int, only: str | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        subprocess.run([sys.executable, "-c", NETWORK, folder], check=True, stderr=subprocess.DEVNULL)
        row = {"pixels": [round(n / 784, 3) for n in range(784)]}
        models = {"penguins": (penguins, PENGUIN), "network": (Path(folder) / "network", row)}
        write_protoset()
        for name, (path, one) in models.items():
            if only not in (None, name):
                continue
            print(f"\n## {name}")
            measure_layers(path, one)
            measure_server(name, path, one, rounds)
            measure_extras(name, path, one, rounds)
        if only is None:
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
    """Print the microseconds per call without a server, in separate processes with and without oneDNN."""
    for onednn in ("1", "0"):
        done = subprocess.run(
            [sys.executable, __file__, "--layers", str(newest(folder)), json.dumps(row)],
            env={**os.environ, "TF_ENABLE_ONEDNN_OPTS": onednn, "TF_CPP_MIN_LOG_LEVEL": "3"},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            check=True,
        )
        print(f"in process, oneDNN {'on' if onednn == '1' else 'off'}, microseconds: {done.stdout.strip()}")


def layers(folder: Path, row: dict[str, Any]) -> dict[str, float]:
    import numpy as np
    import tensorflow as tf

    from kerasline.components.models.session import SavedModelSession
    from kerasline.components.models.signatures import DEFAULT_SIGNATURE
    from kerasline.components.serving.http import json_codec, wide_rows
    from kerasline.components.serving.runtime import tensor_codec
    from kerasline.components.serving.runtime.messages import messages

    session = SavedModelSession(folder)
    signature = session.signatures[DEFAULT_SIGNATURE]
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
            if wide_rows.read(text, signature) is None:
                json_codec.predict_inputs(json_codec.parse(text), signature)[0].arrays()

        request = messages().PredictRequest()
        for (input_name, spec), array in zip(signature.inputs.items(), arrays):
            tensor_codec.to_proto(array, spec.data_type, request.inputs[input_name])

        def decode_message(text: bytes = request.SerializeToString()) -> None:
            tensor_codec.predict_arrays(messages().PredictRequest.FromString(text).inputs, signature)

        def encode_message(given: Any = outputs) -> None:
            response = messages().PredictResponse()
            tensor_codec.fill_outputs(response.outputs, signature, given, ())
            response.SerializeToString()

        works: dict[str, Callable[[], Any]] = {
            "signature call": signature_call,
            "session call": lambda given=arrays: session.call(signature, given),
            "JSON in": decode,
            "JSON out": lambda given=outputs: json_codec.predict_response(list(signature.outputs), given, rows=True),
            "message in": decode_message,
            "message out": encode_message,
        }
        assert np.isfinite(outputs[-1]).all()
        for name, work in works.items():
            found[f"{name}, {rows}"] = round(microseconds(work), 1)
    return found


def measure_server(name: str, folder: Path, row: dict[str, Any], rounds: int) -> None:
    """Measure REST, gRPC and the minimal servers in turn."""
    rest, grpc_port = free_port(), free_port()
    path = f"/v1/models/{name}:predict"
    server = start_server(name, folder, rest, grpc_port)
    body = json.dumps({"instances": [row]}).encode()
    answer = urllib.request.urlopen(f"http://127.0.0.1:{rest}{path}", body).read()
    ports = {kind: free_port() for kind in ("application", "low-level", "grpc.aio", "h2corn")}
    bare_servers = {
        kind: subprocess.Popen([sys.executable, __file__, "--bare", kind, str(port), str(len(answer))])
        for kind, port in ports.items()
    }
    try:
        for port in ports.values():
            wait_listening(port)
        write_lua(body)
        request, request_64 = write_grpc(name, row, 1), write_grpc(name, row, 64)
        works = {
            f"bare {kind}": (
                bare_servers[kind],
                lambda p=port, k=kind: h2load_grpc(p, request) if k in GRPC_ENGINES else wrk(p, path),
            )
            for kind, port in ports.items()
        }
        json_file = Path("rest.json")
        json_file.write_bytes(body)
        works |= {
            "REST": (server, lambda: wrk(rest, path)),
            "REST, h2load": (server, lambda: h2load(f"http://127.0.0.1:{rest}{path}", json_file, "--h1")),
            "gRPC, h2load": (server, lambda: checked(rest, lambda: h2load_grpc(grpc_port, request))),
            "gRPC, ghz": (server, lambda: ghz(grpc_port, request)),
        }
        rates = in_turn(works, rounds)
        print(f"REST: {rates['REST'] / rates['bare application']:.2f} of the bare application")
        print(f"gRPC: {rates['gRPC, h2load'] / rates['REST, h2load']:.2f} of REST")
        write_lua(json.dumps({"instances": [row] * 64}).encode())
        works = {
            "REST, 64 rows": (server, lambda: wrk(rest, path)),
            "gRPC, 64 rows": (server, lambda: checked(rest, lambda: h2load_grpc(grpc_port, request_64))),
        }
        in_turn(works, rounds)
        (Path("body.json")).write_bytes(body)
        print(f"REST, 1 row at 70 % load: {hey(rest, path, 0.7 * rates['REST'])}")
        print(
            f"one client, 1 row, p50 in ms: {sequential_latency(name, rest, grpc_port, path, body, request)}",
            flush=True,
        )
    finally:
        end((server, *bare_servers.values()))


def checked(rest: int, work: Callable[[], Load]) -> Load:
    """Exit unless the server counts a successful response per request: h2load does not read gRPC's trailers."""
    before = successful_responses(rest)
    load = work()
    if successful_responses(rest) - before < load.requests:
        raise SystemExit(f"{successful_responses(rest) - before:.0f} of {load.requests} gRPC requests were answered")
    return load


def successful_responses(rest: int) -> float:
    text = urllib.request.urlopen(f"http://127.0.0.1:{rest}/metrics").read().decode()
    lines = [line for line in text.splitlines() if line.startswith("kerasline_requests_total{")]
    return sum(float(line.split()[-1]) for line in lines if 'code="OK"' in line and 'protocol="grpc"' in line)


def measure_extras(name: str, folder: Path, row: dict[str, Any], rounds: int) -> None:
    """Measure the cost of the access log, the API key and TLS per REST request, each with its own server."""
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-keyout",
            "key.pem",
            "-out",
            "certificate.pem",
            "-subj",
            "/CN=localhost",
            "-days",
            "1",
        ],
        check=True,
        capture_output=True,
    )
    here, path = Path.cwd(), f"/v1/models/{name}:predict"
    extras = {
        "neither": [],
        "access log": ["--access-log", str(here / "access.jsonl")],
        "API key": ["--api-key", API_KEY],
        "TLS": ["--tls-certificate", str(here / "certificate.pem"), "--tls-key", str(here / "key.pem")],
    }
    ports = {what: free_port() for what in extras}
    servers = {
        what: start_server(name, folder, ports[what], None, *options, scheme="https" if what == "TLS" else "http")
        for what, options in extras.items()
    }
    try:
        write_lua(json.dumps({"instances": [row]}).encode(), {"X-API-Key": API_KEY})
        works = {
            what: (servers[what], lambda p=port, s="https" if what == "TLS" else "http": wrk(p, path, s))
            for what, port in ports.items()
        }
        in_turn(works, rounds)
    finally:
        end(servers.values())


def in_turn(works: dict[str, tuple[subprocess.Popen, Callable[[], Load]]], rounds: int) -> dict[str, float]:
    """Load the servers in turn, print the medians, and return the rates."""
    found: dict[str, list[tuple[Load, float]]] = {what: [] for what in works}
    for _ in range(rounds):
        for what, (server, work) in works.items():
            before = cpu_seconds(server)
            load = work()
            spent = (cpu_seconds(server) - before) / load.requests if load.requests else float("nan")
            found[what].append((load, spent * 1e6))
    for what, loads in found.items():
        rate, spent = (statistics.median(values) for values in zip(*((load.rate, cpu) for load, cpu in loads)))
        p99 = ", ".join(load.p99 for load, _ in loads)
        print(f"{what}: {rate:.0f}/s, {spent:.0f} us of CPU per request; p99 {p99}", flush=True)
    return {what: statistics.median(load.rate for load, _ in loads) for what, loads in found.items()}


def start_server(
    name: str, folder: Path, rest: int, grpc_port: int | None, *options: str, scheme: str = "http"
) -> subprocess.Popen:
    """Start the model server and wait until it is ready."""
    grpc_options = ["--no-grpc"] if grpc_port is None else ["--grpc-port", str(grpc_port)]
    server = subprocess.Popen(
        [
            sys.executable,
            str(REPOSITORY / "run_pipeline.py"),
            "serve",
            "--model",
            f"{name}={folder}",
            "--rest-port",
            str(rest),
            *grpc_options,
            *options,
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=REPOSITORY,
    )
    wait_ready(server, rest, scheme)
    return server


def end(processes: Any) -> None:
    for process in processes:
        process.terminate()
        process.wait()


def cpu_seconds(process: subprocess.Popen) -> float:
    """Return the CPU time of a process so far, in user and kernel mode."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def bare(kind: str, port: int, size: int) -> None:
    """Run a minimal server of the same engine that reads the body and returns a constant."""
    from aiohttp import web

    constant = b"x" * size
    if kind in GRPC_ENGINES:
        await bare_grpc(kind, port)
        return

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


async def bare_grpc(kind: str, port: int) -> None:
    """Run a minimal gRPC server. An empty response is valid for any message type, so nothing is parsed or built."""
    if kind == "h2corn":
        import h2corn

        config = h2corn.Config(bind=(f"127.0.0.1:{port}",), grpc=True, lifespan="off", access_log=False)
        await h2corn.Server(answer_empty, config).serve()
        return
    import grpc

    async def answer(body: bytes, context: Any) -> bytes:
        return b""

    method = grpc.unary_unary_rpc_method_handler(answer)
    server = grpc.aio.server(handlers=[grpc.method_handlers_generic_handler(PREDICT, {"Predict": method})])
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await asyncio.Event().wait()


async def answer_empty(scope: Any, receive: Any, send: Any) -> None:
    """Answer a gRPC call with an empty message, as an ASGI application."""
    while (await receive()).get("more_body"):
        pass
    headers = [(b"content-type", b"application/grpc")]
    await send({"type": "http.response.start", "status": 200, "headers": headers, "trailers": True})
    await send({"type": "http.response.body", "body": bytes(5)})
    await send({"type": "http.response.trailers", "headers": [(b"grpc-status", b"0")]})


def measure_cold_start(folder: Path, runs: int = 5) -> None:
    """Measure the time from the command to readiness, and of importing TensorFlow alone."""
    ready, imported = [], []
    for _ in range(runs):
        rest, grpc_port = free_port(), free_port()
        began = time.perf_counter()
        server = subprocess.Popen(
            [
                sys.executable,
                str(REPOSITORY / "run_pipeline.py"),
                "serve",
                str(folder),
                "--rest-port",
                str(rest),
                "--grpc-port",
                str(grpc_port),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=REPOSITORY,
        )
        wait_ready(server, rest)
        ready.append(time.perf_counter() - began)
        server.terminate()
        server.wait()
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import tensorflow"], stderr=subprocess.DEVNULL, check=True)
        imported.append(time.perf_counter() - began)
    print(
        f"\ncold start: {statistics.median(ready):.1f} s (slowest {max(ready):.1f}); "
        f"importing TensorFlow alone {statistics.median(imported):.1f} s"
    )


def wait_ready(server: subprocess.Popen, port: int, scheme: str = "http") -> None:
    import ssl

    unchecked = ssl.create_default_context()  # a self-signed certificate for this run
    unchecked.check_hostname, unchecked.verify_mode = False, ssl.CERT_NONE
    while server.poll() is None:
        try:
            urllib.request.urlopen(f"{scheme}://127.0.0.1:{port}/readyz", timeout=10, context=unchecked).close()
            return
        except (OSError, urllib.error.URLError):
            time.sleep(0.02)
    raise SystemExit(f"the server ended with {server.returncode}")


def wait_listening(port: int) -> None:
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.02)


def newest(folder: Path) -> Path:
    return max((path for path in folder.iterdir() if path.name.isdigit()), key=lambda path: int(path.name))


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


if __name__ == "__main__":
    main()
