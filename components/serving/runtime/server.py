"""The server process: listen, load the models, answer, drain, exit."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import signal
import ssl
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiohttp import web

from kerasline.components.core import garbage_collection
from kerasline.components.core.errors import KeraslineError
from kerasline.components.models.session import import_tensorflow
from kerasline.components.serving.http.connections import BoundedServer
from kerasline.components.serving.http.endpoints import RestEndpoints
from kerasline.components.serving.runtime.access_log import AccessLog
from kerasline.components.serving.runtime.admission import AdmissionControl
from kerasline.components.serving.runtime.errors import RequestError
from kerasline.components.serving.runtime.metrics import Metrics
from kerasline.components.serving.runtime.model_folders import are_fast_models, check_sources, find_versions
from kerasline.components.serving.runtime.models import Models
from kerasline.components.serving.runtime.request_log import RequestLog
from kerasline.components.serving.runtime.settings import ServerSettings
from kerasline.components.serving.runtime.sockets import BACKLOG, ServerSockets
from kerasline.components.serving.runtime.workers import run_workers

if TYPE_CHECKING:
    from kerasline.components.serving.grpc.server import GrpcServer

log = logging.getLogger(__name__)
# Accept connections this long after readiness is withdrawn, so that load balancers notice.
UNREADY_SECONDS = 0.5
# After the listener closes, give clients that just connected this long to send their request.
LAST_REQUESTS_SECONDS = 0.2
FLUSH_SECONDS = 1.0
EXECUTION_NICENESS = 5
CERTIFICATE_SECONDS = 1.0
# Connections to accept in one turn of the event loop. asyncio would accept as many as may wait.
ACCEPTED_AT_ONCE = 16
# Maximum number of executions of all models at once. Each signature has a lower limit of its own.
MAX_EXECUTIONS = 256


def run(settings: ServerSettings, report: Callable[[str], None] = print) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        report: receives each line for the user.

    Raises:
        KeraslineError: a folder contains no model, a model cannot be loaded, a port is in use, or a certificate
            cannot be read.
    """
    check_sources(settings.models)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow would log every bad request
    if all(are_fast_models(find_versions(source).values()) for source in settings.models):
        # oneDNN takes 0.1 ms to set up one softmax: three times the execution of a small model.
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    for name in ("tensorflow", "absl", "aiohttp"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with contextlib.closing(ServerSockets(settings)) as sockets:
        if settings.workers == 1:
            asyncio.run(_Server(settings, sockets, report).run())
        else:
            run_workers(settings.workers, functools.partial(_serve_in_worker, settings, sockets), report)


def _serve_in_worker(settings: ServerSettings, sockets: ServerSockets, report: Callable[[str], None]) -> None:
    sockets.open_in_worker()
    asyncio.run(_Server(settings, sockets, report).run())


class _Server:
    def __init__(self, settings: ServerSettings, sockets: ServerSockets, report: Callable[[str], None]):
        self._settings, self._sockets, self._report = settings, sockets, report
        self._metrics = Metrics()
        self._log = AccessLog(settings.access_log) if settings.access_log else None
        self._request_log = RequestLog(*settings.request_log) if settings.request_log else None
        self._admission = AdmissionControl(settings.limits, settings.api_key, self._metrics, self._log)
        self._threads = ThreadPoolExecutor(
            MAX_EXECUTIONS,
            thread_name_prefix="execute",
            initializer=_yield_to_the_event_loop,
        )
        self._tasks: list[asyncio.Future[None]] = []
        _ssl_context(settings)  # an unusable certificate is reported before models load
        self._certificates = _change_times(settings)
        self._rest_server: BoundedServer | None = None
        self._grpc_server: GrpcServer | None = None
        self._listeners: list[asyncio.Server] = []

    async def run(self) -> None:
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, _on_signal, stopping)
        models = Models(self._settings, self._metrics, self._threads, self._request_log)
        loop.add_signal_handler(signal.SIGHUP, self._reopen, models)
        rest = None
        try:
            rest = await self._start_rest(models)
            await loop.run_in_executor(None, import_tensorflow)
            self._grpc_server = self._new_grpc(models)
            if not await _completes_before(stopping, models.start()):
                return
            if self._grpc_server is not None:
                await self._grpc_server.start()
            self._start_task(models.watch())
            self._start_task(self._flush(models))
            if self._certificates:
                self._start_task(self._watch_certificates())
            garbage_collection.tune_for_server()
            self._announce(models)
            await stopping.wait()
        finally:
            await self._drain(rest, models)

    async def _start_rest(self, models: Models) -> web.ServerRunner | None:
        """Listen at once, so that clients can query health while models load."""
        if not self._sockets.rest:
            return None
        endpoints = RestEndpoints(models, self._admission, self._metrics, self._settings.cors_origins)
        self._rest_server = BoundedServer(endpoints, self._settings.limits, self._metrics)
        runner = web.ServerRunner(self._rest_server, shutdown_timeout=self._settings.drain_seconds)
        await runner.setup()
        try:
            await self._listen_for_rest()
        except BaseException:
            await runner.cleanup()
            raise
        self._start_task(self._rest_server.watch())
        return runner

    async def _listen_for_rest(self) -> None:
        """Listen with the certificate as it is now. Connections of an earlier call stay open.

        Raises:
            KeraslineError: the certificate cannot be used, or the port is in use.
        """
        context = None if self._settings.rest_socket else _ssl_context(self._settings)
        listeners = []
        assert self._rest_server is not None, "called only if REST is enabled"
        try:
            for one in self._sockets.rest:
                listener = await asyncio.get_running_loop().create_server(
                    self._rest_server,
                    sock=one.dup(),
                    backlog=ACCEPTED_AT_ONCE,
                    ssl=context,
                    ssl_handshake_timeout=self._settings.limits.idle_seconds if context else None,
                )
                one.listen(BACKLOG)
                listeners.append(listener)
        except OSError as error:
            address = self._sockets.address("rest")
            raise KeraslineError(f"serve: REST cannot listen on {address}: {error.strerror}") from error
        for earlier in self._listeners:
            earlier.close()
        self._listeners = listeners

    def _reopen(self, models: Models) -> None:
        """Open the access log, read the certificates and the file of --models again, and write the request log."""
        if self._log is not None:
            self._log.reopen()
        if self._request_log is not None:
            self._threads.submit(self._request_log.write)
        self._certificates = dict.fromkeys(self._certificates, 0.0)  # as if they had changed
        if models.is_ready():
            models.request_reload()

    async def _watch_certificates(self) -> None:
        """Use a changed certificate for new connections. One that cannot be read leaves the current one in use."""
        while True:
            await asyncio.sleep(CERTIFICATE_SECONDS)
            found = _change_times(self._settings)
            if found == self._certificates:
                continue
            self._certificates = found
            try:
                _ssl_context(self._settings)  # both interfaces change, or none
                if self._rest_server is not None:
                    await self._listen_for_rest()
                if self._grpc_server is not None:
                    await self._grpc_server.start()
                log.info("the certificate was read again")
            except KeraslineError as error:
                log.error("%s; the earlier certificate stays in use", error)

    def _new_grpc(self, models: Models) -> GrpcServer | None:
        """Create the gRPC server before models load, so that missing packages are reported at once."""
        if not self._sockets.grpc:
            return None
        from kerasline.components.serving.grpc.server import GrpcServer
        from kerasline.components.serving.grpc.services import GrpcServices

        return GrpcServer(GrpcServices(models, self._admission), self._settings, self._sockets.grpc)

    def _start_task(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.ensure_future(work))

    async def _flush(self, models: Models) -> None:
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            models.record_load()
            if self._log is not None:
                self._log.flush()
            if self._request_log is not None:
                self._request_log.write_if_due(self._threads)

    def _announce(self, models: Models) -> None:
        settings, sockets = self._settings, self._sockets
        scheme = "https" if settings.certificate else "http"
        for name in models.names():
            addresses = []
            if sockets.rest:
                where = sockets.address("rest")
                addresses.append(f"REST {where}" if settings.rest_socket else f"{scheme}://{where}/v1/models/{name}")
            if sockets.grpc:
                addresses.append(f"gRPC {sockets.address('grpc')}")
            served = models.find(name).number
            others = [v.number for v in models.status(name) if v.state == "AVAILABLE" and v.number != served]
            versions = ", ".join(map(str, [served, *others]))
            self._report(f"serving {name} version {versions}: {', '.join(addresses)}")
        if sockets.is_reachable() and not settings.api_key:
            self._report(f"warning: {settings.host} is reachable from other machines, and no API key is required")
        self._report("ready; stop with Ctrl-C or SIGTERM")

    async def _drain(self, rest: web.ServerRunner | None, models: Models) -> None:
        """Withdraw readiness, refuse new connections, answer the requests in progress, then release the models."""
        started = time.monotonic()
        self._admission.is_draining = True
        is_ready = models.is_ready()
        if is_ready:
            log.info("draining")
            await asyncio.sleep(UNREADY_SECONDS)
        for listener in self._listeners:
            listener.close()
        for one in self._sockets.rest:
            one.close()
        if self._listeners and is_ready:
            await asyncio.sleep(LAST_REQUESTS_SECONDS)
        shutdowns: list[Coroutine[Any, Any, None]] = []
        if rest is not None:
            shutdowns.append(rest.cleanup())
        if self._grpc_server is not None:
            shutdowns.append(self._grpc_server.stop())
        await asyncio.gather(*shutdowns)
        for task in self._tasks:
            task.cancel()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(models.close(), max(1.0, self._settings.drain_seconds))
        self._threads.shutdown(wait=False, cancel_futures=True)
        if self._log is not None:
            self._log.close()
        if self._request_log is not None:
            self._request_log.write()
        if is_ready:
            log.info("stopped (%.1f s)", time.monotonic() - started)


def _yield_to_the_event_loop() -> None:
    """Lower the priority of this thread, so that executions on all cores do not delay answers and rejections."""
    if sys.platform == "linux":  # where threads have priorities of their own
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + EXECUTION_NICENESS)


async def _completes_before(stopping: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Run the work until it completes or the server stops. Return whether it completed.

    Raises:
        KeraslineError: a model cannot be loaded.
    """
    task, end = asyncio.ensure_future(work), asyncio.ensure_future(stopping.wait())
    await asyncio.wait((task, end), return_when=asyncio.FIRST_COMPLETED)
    end.cancel()
    if not task.done():
        task.cancel()
        return False
    try:
        task.result()
    except RequestError as error:
        raise KeraslineError(f"serve: {error}") from error
    return True


def _on_signal(stopping: asyncio.Event) -> None:
    """Shut down gracefully at the first signal, exit at once at the second."""
    if stopping.is_set():
        os._exit(1)
    stopping.set()


def _change_times(settings: ServerSettings) -> dict[Path, float]:
    """Return when the files for TLS were last changed, 0 for one that is missing while it is replaced."""
    times = {}
    for file in filter(None, (settings.certificate, settings.key, settings.client_ca)):
        try:
            times[file] = file.stat().st_mtime
        except OSError:
            times[file] = 0.0
    return times


def _ssl_context(settings: ServerSettings) -> ssl.SSLContext | None:
    if settings.certificate is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(settings.certificate, settings.key)
        if settings.client_ca is not None:
            context.load_verify_locations(settings.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as error:
        raise KeraslineError(f"serve: {settings.certificate}, {settings.key}: {error}") from error
    return context
