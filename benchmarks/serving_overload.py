"""Measure the goodput of the model server beyond its capacity: answers per second within the deadline.

    python benchmarks/serving_overload.py

Requests arrive at a constant rate, whether or not earlier ones were answered. The model needs some 30 ms per row and
gains little by batches, so that the requests cost the load generator, which shares the machine, much less than the
server. The capacity is the rate of answers to a few clients that wait for each.
"""

from __future__ import annotations

import argparse
import asyncio
import json
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
    def by_row(self, x):
        return {"y": tf.map_fn(lambda row: self.serve(row[None])["y"][0], x, fn_output_signature=tf.float32)}
model = Model()
tf.saved_model.save(model, sys.argv[1], signatures={"serving_default": model.by_row})
"""
BODY = json.dumps({"instances": [[1.0] * 64]}).encode()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--deadline", type=float, default=1.0)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "model").mkdir()
        subprocess.run([sys.executable, "-c", MODEL, f"{folder}/model/1"], check=True, stderr=subprocess.DEVNULL)
        port = free_port()
        server = start_server("model", Path(folder) / "model", port, None, "--workers", str(options.workers))
        try:
            asyncio.run(measure(f"http://127.0.0.1:{port}/v1/models/model:predict", options.seconds, options.deadline))
        finally:
            end([server])


async def measure(url: str, seconds: float, deadline: float) -> None:
    import aiohttp

    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def ask() -> tuple[int, float]:
            started = time.monotonic()
            async with session.post(url, data=BODY, headers={"X-Request-Timeout": str(deadline)}) as response:
                await response.read()
                return response.status, time.monotonic() - started

        async def client(end_at: float) -> int:
            count = 0
            while time.monotonic() < end_at:
                count += (await ask())[0] == 200
            return count

        await ask()
        capacity = sum(await asyncio.gather(*[client(time.monotonic() + seconds) for _ in range(4)])) / seconds
        print(f"capacity: {capacity:.0f} requests per second")
        for times in (1, 2, 5, 10):
            started, tasks = time.monotonic(), []
            while (elapsed := time.monotonic() - started) < seconds:
                due = int(elapsed * capacity * times)
                tasks += [asyncio.ensure_future(ask()) for _ in range(due - len(tasks))]
                await asyncio.sleep(0.005)
            answers = await asyncio.gather(*tasks)
            accepted = [latency for status, latency in answers if status == 200]
            good = sum(latency <= deadline for latency in accepted) / seconds
            statuses = {status: sum(one == status for one, _ in answers) for status, _ in sorted(answers)}
            p99 = statistics.quantiles(accepted, n=100)[98] if len(accepted) > 1 else float("nan")
            print(f"{times} times: {good:.0f}/s in time ({good / capacity:.0%}); p99 {p99:.2f} s; statuses {statuses}")


if __name__ == "__main__":
    main()
