"""Python workers for Beam's engines: one pool on each host, for `--environment_type=EXTERNAL`.

    python -m kerasline.pipeline.runners.worker_pool --port 50000

As Beam's own `apache_beam.runners.worker.worker_pool_main`, but for what a job's start costs: workers are forked
from a process that has imported Beam, pyarrow, TensorFlow and Keras, so they are there in a tenth of a second
and not in seven, and share that memory. What workers print goes where the pool prints.

A worker computes on one core unless `--threads` says otherwise, as an engine that gives it one slot takes for
granted; NumPy, Arrow and TensorFlow would each take all cores, which two workers of a host then quarrel for.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import signal
import threading
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from typing import Any

from kerasline.components.core import garbage_collection, malloc

# Imported once, by the process from which workers are forked. None of them starts a thread when imported.
PRELOADED = [
    "apache_beam.runners.worker.sdk_worker",
    "pyarrow.parquet",
    "tensorflow",
    "keras",
    "kerasline.components.data.fold",
    "kerasline.components.data.sources.csv_files",
    "kerasline.components.data.sources.csv_ranges",
    "kerasline.components.statistics_gen.statistics",
    "kerasline.components.data.row_groups",
    "kerasline.components.preprocessing.adaptation.passes",
    "kerasline.components.evaluator.evaluate",
    "kerasline.components.bulk_inferrer.inference",
]
# What OpenBLAS and Arrow (the first), and TensorFlow heed when they are imported.
THREADS = ["OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"]
PATIENCE_SECONDS = 10.0


def main(arguments: list[str] | None = None) -> None:
    """Serves until SIGTERM or SIGINT, and ends its workers then."""
    parser = argparse.ArgumentParser(
        prog="python -m kerasline.pipeline.runners.worker_pool", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--port", type=int, default=50000, help="0 for any that is free")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen at; the engine is on the same host")
    parser.add_argument("--threads", type=int, default=1, help="of a worker, for NumPy, Arrow and TensorFlow")
    given = parser.parse_args(arguments)
    os.environ |= dict.fromkeys(THREADS, str(given.threads))
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    workers = Workers()
    server, port = _serving(workers, given.host, given.port)
    print(f"workers for Beam: --environment_type=EXTERNAL --environment_config={given.host}:{port}", flush=True)
    ended.wait()
    server.stop(None)
    workers.stop_all()


class Workers:
    """The worker processes. Each ends by itself when its engine hangs up, which an engine does that ends.

    They are not told apart by the names that engines give them: two task managers of Flink on one host give the
    same. (Beam's own pool, told to stop one manager's worker, stops the other's.)
    """

    def __init__(self) -> None:
        self._made = multiprocessing.get_context("forkserver")
        self._made.set_forkserver_preload(PRELOADED)
        forkserver.ensure_running()
        self._processes: list[BaseProcess] = []
        self._lock = threading.Lock()

    def start(self, name: str, control: str) -> None:
        """Starts a worker, which asks the engine at `control`, host and port, for its work."""
        worker = self._made.Process(target=_work, args=(name, control))
        worker.start()
        with self._lock:
            self._processes = [worker, *filter(BaseProcess.is_alive, self._processes)]

    def stop_all(self) -> None:
        for worker in self._processes:
            worker.terminate()
        for worker in self._processes:
            worker.join(PATIENCE_SECONDS)
            worker.kill()


def _work(name: str, control: str) -> None:
    garbage_collection.keep()
    malloc.keep_freed()
    import grpc
    from apache_beam.runners.worker.sdk_worker import SdkHarness

    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))  # its threads need not be waited for
    harness = SdkHarness(control, worker_id=name, state_cache_size=0, data_buffer_time_limit_ms=-1)
    with contextlib.suppress(grpc.RpcError):  # the engine has hung up
        harness.run()


def _serving(workers: Workers, host: str, port: int) -> tuple[Any, int]:
    """A server of BeamFnExternalWorkerPool (Beam's beam_fn_api.proto), and its port."""
    from concurrent.futures import ThreadPoolExecutor

    import grpc
    from apache_beam.portability.api import beam_fn_api_pb2 as messages
    from apache_beam.portability.api import beam_fn_api_pb2_grpc as services

    class Service(services.BeamFnExternalWorkerPoolServicer):
        def StartWorker(self, request, _context):
            try:
                workers.start(request.worker_id, request.control_endpoint.url)
            except Exception as error:  # told to the engine, which knows what to do
                return messages.StartWorkerResponse(error=f"{type(error).__name__}: {error}")
            return messages.StartWorkerResponse()

        def StopWorker(self, _request, _context):
            return messages.StopWorkerResponse()

    server = grpc.server(ThreadPoolExecutor(16))
    services.add_BeamFnExternalWorkerPoolServicer_to_server(Service(), server)
    port = server.add_insecure_port(f"{host}:{port}")
    server.start()
    return server, port


if __name__ == "__main__":
    main()
