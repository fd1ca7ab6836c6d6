"""Python workers for Beam's engines: one pool on each host, for `--environment_type=EXTERNAL`.

    python -m kerasline.pipeline.runners.worker_pool --port 50000

It replaces Beam's own `apache_beam.runners.worker.worker_pool_main` and starts jobs faster. Workers are forked from a
process that has imported Beam, pyarrow, TensorFlow and Keras, so they are ready in 0.1 s instead of 7 s and share that
memory. They print where the pool prints.

A worker computes on one core unless `--threads` says otherwise, because an engine gives it one slot. By default NumPy,
Arrow and TensorFlow would each use all cores, and the workers of a host would compete for them.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from typing import Any

from kerasline.components.core import garbage_collection, malloc

# Imported once, in the process from which workers are forked.
PRELOADED = [
    "apache_beam.runners.worker.sdk_worker",
    "pyarrow.parquet",
    "tensorflow",
    "keras",
    "kerasline.components.data.fold",
    "kerasline.components.data.sources.csv_files",
    "kerasline.components.data.sources.csv_ranges",
    "kerasline.components.statistics_gen.feature_statistics",
    "kerasline.components.data.row_groups",
    "kerasline.components.preprocessing.adaptation.passes",
    "kerasline.components.evaluator.evaluate",
    "kerasline.components.bulk_inferrer.inference",
]
# OpenBLAS and Arrow read the first of these variables when they are imported, TensorFlow the other two.
THREAD_VARIABLES = ["OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"]
GRACE_SECONDS = 10.0


def main(arguments: list[str] | None = None) -> None:
    """Serve until SIGTERM or SIGINT, then end the workers."""
    parser = argparse.ArgumentParser(
        prog="python -m kerasline.pipeline.runners.worker_pool", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--port", type=int, default=50000, help="0 for any free port")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; the engine runs on the same host")
    parser.add_argument("--threads", type=int, default=1, help="threads of NumPy, Arrow and TensorFlow in each worker")
    given = parser.parse_args(arguments)
    os.environ |= dict.fromkeys(THREAD_VARIABLES, str(given.threads))
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    workers = ForkServer(PRELOADED)
    server, port = _serve(workers, given.host, given.port)
    print(f"workers for Beam: --environment_type=EXTERNAL --environment_config={given.host}:{port}", flush=True)
    ended.wait()
    server.stop(None)
    workers.stop_all(GRACE_SECONDS)


def _work(name: str, control: str) -> None:
    """Run a worker that asks the engine at `control`, host and port, for work until the engine closes the connection.

    The name does not identify a worker: two task managers of Flink on one host use the same names. Beam's own pool
    stops a worker by its name, and so may stop the wrong one.
    """
    garbage_collection.freeze()
    malloc.retain_freed()
    import grpc
    from apache_beam.runners.worker.sdk_worker import SdkHarness

    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))  # without waiting for its threads
    harness = SdkHarness(control, worker_id=name, state_cache_size=0, data_buffer_time_limit_ms=-1)
    with contextlib.suppress(grpc.RpcError):  # the engine has closed the connection
        harness.run()


def _serve(workers: ForkServer, host: str, port: int) -> tuple[Any, int]:
    """Start a server of BeamFnExternalWorkerPool (Beam's beam_fn_api.proto), and return it and its port."""
    from concurrent.futures import ThreadPoolExecutor

    import grpc
    from apache_beam.portability.api import beam_fn_api_pb2 as messages
    from apache_beam.portability.api import beam_fn_api_pb2_grpc as services

    class Service(services.BeamFnExternalWorkerPoolServicer):
        def StartWorker(self, request: Any, _context: Any) -> Any:
            try:
                workers.start(_work, request.worker_id, request.control_endpoint.url)
            except Exception as error:  # reported to the engine, which handles it
                return messages.StartWorkerResponse(error=f"{type(error).__name__}: {error}")
            return messages.StartWorkerResponse()

        def StopWorker(self, _request: Any, _context: Any) -> Any:
            return messages.StopWorkerResponse()

    server = grpc.server(ThreadPoolExecutor(16))
    services.add_BeamFnExternalWorkerPoolServicer_to_server(Service(), server)
    port = server.add_insecure_port(f"{host}:{port}")
    server.start()
    return server, port


class ForkServer:
    """Starts processes in a tenth of a second, with their imports in shared memory.

    Args:
        preload: modules to import once. None of them may start a thread when imported.
    """

    def __init__(self, preload: Sequence[str]) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(list(preload))
        forkserver.ensure_running()
        self._processes: list[BaseProcess] = []
        self._lock = threading.Lock()

    def start(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Call a function in a new process."""
        process = self._context.Process(target=function, args=arguments)
        process.start()
        with self._lock:
            self._processes = [process, *filter(BaseProcess.is_alive, self._processes)]

    def stop_all(self, grace_seconds: float) -> None:
        """End all processes: with SIGTERM, and after the grace period with SIGKILL."""
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.join(grace_seconds)
            process.kill()


if __name__ == "__main__":
    main()
