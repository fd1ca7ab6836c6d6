"""Measure the gain of several workers of the model server, and its memory over swaps of versions.

    python benchmarks/serving_scaling.py workers
    python benchmarks/serving_scaling.py swaps

The load of `workers` shares the cores with the server: the model takes some 5 ms per row, so that it costs little.
`swaps` replaces a version of 96 MB thirty times under requests, and compares the memory after the last swaps with that
after the first ones.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from benchmarks.serving import end, free_port, start_server  # noqa: E402
from benchmarks.serving_overload import BODY, Load  # noqa: E402

MODEL = """
import sys, tensorflow as tf
class Model(tf.Module):
    def __init__(self, megabytes):
        super().__init__()
        self.weights = tf.Variable(tf.random.normal([megabytes << 8, 1024]))
    @tf.function(input_signature=[tf.TensorSpec([None, 64], tf.float32, name="x")])
    def slow(self, x):
        eye = tf.eye(64) * 0.999
        one = lambda row: tf.while_loop(lambda n, _: n < 500, lambda n, y: (n + 1, y @ eye), [0, row[None]])[1][0, :1]
        return {"y": tf.map_fn(one, x)}
    @tf.function(input_signature=[tf.TensorSpec([None, 64], tf.float32, name="x")])
    def large(self, x):
        return {"y": x[:, :1] + tf.reduce_sum(self.weights[:64, :64])}
model = Model(int(sys.argv[3]))
tf.saved_model.save(model, sys.argv[1], signatures={"serving_default": getattr(model, sys.argv[2])})
"""
# The kernel distributes connections among workers at random: many clients make the shares even.
CLIENTS = 32
SWAPS, MEGABYTES, AVERAGED = 30, 96, 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("check", choices=("workers", "swaps"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        {"workers": measure_workers, "swaps": measure_swaps}[options.check](Path(folder))


def save(path: Path, signature: str, megabytes: int) -> None:
    path.parent.mkdir(exist_ok=True)
    command = [sys.executable, "-c", MODEL, str(path), signature, str(megabytes)]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)


def measure_workers(folder: Path) -> None:
    save(folder / "model" / "1", "slow", 0)
    ports = {workers: free_port() for workers in (1, 2)}
    servers = [
        start_server("model", folder / "model", port, None, "--workers", str(workers), "--executors", "1")
        for workers, port in ports.items()
    ]
    rates: dict[int, list[float]] = {workers: [] for workers in ports}
    try:
        for _ in range(4):
            for workers, port in ports.items():
                rates[workers].append(asyncio.run(Load(port, 30.0).rate(CLIENTS, 8.0)))
    finally:
        end(servers)
    one, two = (statistics.median(found[1:]) for found in rates.values())  # the first round warms up
    print(f"1 worker {one:.0f}/s, 2 workers {two:.0f}/s: {two / one:.2f} times")


def measure_swaps(folder: Path) -> None:
    save(folder / "whole", "large", MEGABYTES)
    (folder / "model").mkdir()
    shutil.copytree(folder / "whole", folder / "model" / "1")
    port = free_port()
    server = start_server("model", folder / "model", port, None, "--poll", "0.2")
    memory = []
    try:
        for number in range(2, SWAPS + 2):
            shutil.copytree(folder / "whole", folder / "copy")
            (folder / "copy").rename(folder / "model" / str(number))
            while states(port) != {number}:
                request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/models/model:predict", BODY)
                urllib.request.urlopen(request).read()
                time.sleep(0.01)
            shutil.rmtree(folder / "model" / str(number - 1))
            status = Path(f"/proc/{server.pid}/status").read_text()
            memory.append(int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024)
    finally:
        end([server])
    first, last = statistics.mean(memory[:AVERAGED]), statistics.mean(memory[-AVERAGED:])
    print(f"{SWAPS} swaps of {MEGABYTES} MB: {first:.0f} MB at first, {last:.0f} MB at last ({last / first - 1:+.1%})")
    print("after each swap:", " ".join(f"{one:.0f}" for one in memory))


def states(port: int) -> set[int]:
    """Return the versions that are loaded or being unloaded."""
    text = urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models/model").read()
    found = json.loads(text)["model_version_status"]
    return {int(one["version"]) for one in found if one["state"] != "END"}


if __name__ == "__main__":
    main()
