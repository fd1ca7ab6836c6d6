"""Measure the goodput of the model server beyond its capacity: answers per second within the deadline.

    python benchmarks/serving_overload.py --model slow
    python benchmarks/serving_overload.py --model quick

Requests arrive at a constant rate, whether or not earlier ones were answered. The slow model needs some 30 ms per row
and gains little by batches; the quick one costs less than the request around it. On Linux the server has the first core
to itself and the load generator the second one, so that neither slows the other. The capacity is the rate of answers to
clients that wait for each. The actual rate of requests is printed, because the generator may not reach the requested
one.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from benchmarks.serving import end, free_port, start_server  # noqa: E402

MODEL = """
import sys, tensorflow as tf
class Model(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([None, 64], tf.float32, name="x")])
    def serve(self, x):
        weights = tf.eye(64) * 0.999
        return {"y": tf.while_loop(lambda n, _: n < 3000, lambda n, y: (n + 1, y @ weights), [0, x])[1][:, :1]}
    @tf.function(input_signature=[tf.TensorSpec([None, 64], tf.float32, name="x")])
    def slow(self, x):
        return {"y": tf.map_fn(lambda row: self.serve(row[None])["y"][0], x, fn_output_signature=tf.float32)}
    @tf.function(input_signature=[tf.TensorSpec([None, 64], tf.float32, name="x")])
    def quick(self, x):
        return {"y": x @ tf.eye(64)[:, :1]}
model = Model()
tf.saved_model.save(model, sys.argv[1], signatures={"serving_default": getattr(model, sys.argv[2])})
"""
BODY = json.dumps({"instances": [[1.0] * 64]}).encode()
# As many as a client library keeps open. More would cost the load generator more than the requests.
MAX_CONNECTIONS = 500
# Clients that measure the capacity: enough for full batches.
CLIENTS = {"slow": 4, "quick": 32}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=CLIENTS, default="slow")
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--deadline", type=float, default=1.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/model/1"
        Path(path).parent.mkdir()
        subprocess.run([sys.executable, "-c", MODEL, path, options.model], check=True, stderr=subprocess.DEVNULL)
        port = free_port()
        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        if len(cores) > 1:
            os.sched_setaffinity(0, cores[:1])  # which the server inherits
        server = start_server("model", Path(path).parent, port, None, "--connections", "10000")
        if len(cores) > 1:
            os.sched_setaffinity(0, cores[1:2])
        try:
            load = Load(port, options.deadline)
            asyncio.run(load.measure(CLIENTS[options.model], options.seconds))
        finally:
            end([server])


class Load:
    """Sends requests on connections that are kept and reused, with as little work for each as possible."""

    def __init__(self, port: int, deadline: float):
        self.port, self.deadline = port, deadline
        self.request = (
            b"POST /v1/models/model:predict HTTP/1.1\r\nHost: localhost\r\nX-Request-Timeout: %g\r\n"
            b"Content-Length: %d\r\n\r\n" % (deadline, len(BODY))
        ) + BODY
        self.free: list[Connection] = []
        self.answers: list[tuple[int, float]] = []
        self.sent = self.unsent = self.connections = 0

    def send(self) -> None:
        """Send a request on a free connection or a new one. Count it as not sent if there are too many connections."""
        if self.free:
            self.sent += 1
            self.free.pop().send()
        elif self.connections == MAX_CONNECTIONS:
            self.unsent += 1
        else:
            self.sent += 1
            self.connections += 1
            loop = asyncio.get_running_loop()
            loop.create_task(loop.create_connection(lambda: Connection(self), "127.0.0.1", self.port))

    async def rate(self, clients: int, seconds: float) -> float:
        """Return the answers per second to clients that wait for each."""
        self.answers.clear()
        end_at = time.monotonic() + seconds
        for _ in range(clients):
            self.send()
        while time.monotonic() < end_at:
            answered = len(self.answers)
            await asyncio.sleep(0)
            for _ in range(len(self.answers) - answered):
                self.send()
        found = sum(status == 200 for status, _ in self.answers) / seconds
        await asyncio.sleep(1)
        return found

    async def measure(self, clients: int, seconds: float) -> None:
        await self.rate(clients, seconds)  # warms up
        capacity = await self.rate(clients, seconds)
        print(f"capacity: {capacity:.0f} requests per second", flush=True)
        for times in (1, 2, 5, 10):
            self.answers.clear()
            self.sent = self.unsent = 0
            started = time.monotonic()
            while (elapsed := time.monotonic() - started) < seconds:
                for _ in range(min(1000, int(elapsed * capacity * times) - self.sent - self.unsent)):
                    self.send()
                await asyncio.sleep(0.001)
            await asyncio.sleep(self.deadline + 1)
            accepted = [latency for status, latency in self.answers if status == 200]
            good = sum(latency <= self.deadline for latency in accepted) / seconds
            statuses = dict(sorted(collections.Counter(status for status, _ in self.answers).items()))
            p99 = statistics.quantiles(accepted, n=100)[98] if len(accepted) > 1 else float("nan")
            print(
                f"{times} times ({self.sent / seconds / capacity:.1f} sent): {good:.0f}/s in time "
                f"({good / capacity:.0%}); p99 {p99:.2f} s; statuses {statuses}",
                flush=True,
            )


class Connection(asyncio.Protocol):
    """A connection to the server. It sends one request at a time."""

    def __init__(self, load: Load):
        self.load, self.started = load, time.monotonic()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport), "a connection can be written to"
        self.transport = transport
        transport.write(self.load.request)

    def send(self) -> None:
        self.started = time.monotonic()
        self.transport.write(self.load.request)

    def data_received(self, data: bytes) -> None:
        """The responses are short: each arrives at once."""
        self.load.answers.append((int(data[9:12]), time.monotonic() - self.started))
        if b"onnection: close" not in data[:300]:
            self.load.free.append(self)

    def connection_lost(self, error: Exception | None) -> None:
        self.load.connections -= 1
        if self in self.load.free:
            self.load.free.remove(self)


if __name__ == "__main__":
    main()
