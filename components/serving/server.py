"""The server's life: listen, load, answer, drain, end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import ssl
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from aiohttp import web

from kerasline.components.core import garbage_collection
from kerasline.components.core.errors import KeraslineError
from kerasline.components.serving.http.access_log import AccessLog
from kerasline.components.serving.http.connections import GuardedServer
from kerasline.components.serving.http.gate import Gate
from kerasline.components.serving.http.rest import RestFace
from kerasline.components.serving.runtime.errors import RequestError
from kerasline.components.serving.runtime.metrics import Metrics
from kerasline.components.serving.runtime.models import Models
from kerasline.components.serving.runtime.versions import are_small, check_sources, find_versions
from kerasline.components.serving.settings import ServerSettings

log = logging.getLogger(__name__)
# While load balancers notice that readiness is gone, requests are still taken.
NOTICE_SECONDS = 0.5
# When nobody can connect any more, those who just did still get to send their request.
LAST_SECONDS = 0.2
FLUSH_SECONDS = 1.0


def run(settings: ServerSettings, tell: Callable[[str], None] = print) -> None:
    """Serves until SIGTERM or SIGINT. `tell` is given the lines for the person at the screen.

    Raises:
        KeraslineError: a folder has nothing to serve, a model cannot be loaded, a port is taken, or a
            certificate cannot be read.
    """
    check_sources(settings.models)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # each bad request would be lines of its log
    if all(are_small(find_versions(source).values()) for source in settings.models):
        # oneDNN's set-up of a softmax alone takes 0.1 ms, three times a small model's execution.
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    for name in ("tensorflow", "absl", "aiohttp"):
        logging.getLogger(name).setLevel(logging.ERROR)
    asyncio.run(_Server(settings, tell).run())


class _Server:
    def __init__(self, settings: ServerSettings, tell: Callable[[str], None]):
        self._settings, self._tell = settings, tell
        self._metrics = Metrics()
        self._log = AccessLog(settings.access_log) if settings.access_log else None
        self._gate = Gate(settings.limits, settings.api_key, self._metrics, self._log)
        self._threads = ThreadPoolExecutor(
            max(2, os.cpu_count() or 2, len(settings.models)), thread_name_prefix="execute"
        )
        self._tasks: list[asyncio.Task] = []
        self._ssl = _ssl_context(settings)
        self._listener: asyncio.Server | None = None

    async def run(self) -> None:
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, _on_signal, ended)
        models = Models(self._settings, self._metrics, self._threads)
        rest = grpc_server = None
        try:
            rest = await self._start_rest(models)
            grpc_server = self._new_grpc(models)
            if not await _unless(ended, models.start()):
                return
            if grpc_server is not None:
                self._grpc_port = await grpc_server.start()
            self._start_task(models.watch())
            self._start_task(self._flush())
            garbage_collection.settle()
            self._announce(models)
            await ended.wait()
        finally:
            await self._drain(rest, grpc_server, models)

    async def _start_rest(self, models: Models) -> web.ServerRunner | None:
        """Listens at once, so that health can be asked for while models are loaded."""
        port = self._settings.rest_port
        if port is None:
            return None
        server = GuardedServer(RestFace(models, self._gate, self._metrics), self._settings.limits, self._metrics)
        runner = web.ServerRunner(server, shutdown_timeout=self._settings.drain_seconds)
        await runner.setup()
        patience = self._settings.limits.idle_seconds if self._ssl else None
        try:
            self._listener = await asyncio.get_running_loop().create_server(
                server, self._settings.host, port, backlog=1024, ssl=self._ssl, ssl_handshake_timeout=patience
            )
        except OSError as error:
            await runner.cleanup()
            raise KeraslineError(
                f"serve: REST cannot listen on {self._settings.host}:{port}: {error.strerror}; try --rest-port"
            ) from error
        self._rest_port = self._listener.sockets[0].getsockname()[1]
        self._start_task(server.watch())
        return runner

    def _new_grpc(self, models: Models) -> Any:
        """Before models are loaded, so that what is missing is told at once; it listens when they are."""
        if self._settings.grpc_port is None:
            return None
        from kerasline.components.serving.grpc.server import GrpcServer
        from kerasline.components.serving.grpc.service import GrpcFace

        return GrpcServer(GrpcFace(models, self._gate), self._settings)

    def _start_task(self, work: Any) -> None:
        self._tasks.append(asyncio.ensure_future(work))

    async def _flush(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            if self._log is not None:
                self._log.flush()

    def _announce(self, models: Models) -> None:
        settings = self._settings
        scheme = "https" if settings.certificate else "http"
        for name in models.names():
            places = []
            if settings.rest_port is not None:
                places.append(f"{scheme}://{settings.host}:{self._rest_port}/v1/models/{name}")
            if settings.grpc_port is not None:
                places.append(f"gRPC {settings.host}:{self._grpc_port}")
            served = models.find(name).number
            others = [v.number for v in models.status(name) if v.state == "AVAILABLE" and v.number != served]
            versions = ", ".join(map(str, [served, *others]))
            self._tell(f"serving {name} version {versions}: {', '.join(places)}")
        if settings.host not in ("127.0.0.1", "::1", "localhost") and not settings.api_key:
            self._tell(f"note: {settings.host} can be reached from outside, and no API key is asked for")
        self._tell("ready; end with Ctrl-C or SIGTERM")

    async def _drain(self, rest: web.ServerRunner | None, grpc_server: Any, models: Models) -> None:
        """Readiness goes first, then new connections, then, when their requests are answered, the rest."""
        started = time.monotonic()
        self._gate.is_draining = True
        is_ready = models.is_ready()
        if is_ready:
            log.info("draining")
            await asyncio.sleep(NOTICE_SECONDS)
        if self._listener is not None:
            self._listener.close()
            await asyncio.sleep(LAST_SECONDS if is_ready else 0)
        endings = []
        if rest is not None:
            endings.append(rest.cleanup())
        if grpc_server is not None:
            endings.append(grpc_server.stop())
        await asyncio.gather(*endings)
        for task in self._tasks:
            task.cancel()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(models.close(), max(1.0, self._settings.drain_seconds))
        self._threads.shutdown(wait=False, cancel_futures=True)
        if self._log is not None:
            self._log.close()
        if is_ready:
            log.info("ended (%.1f s)", time.monotonic() - started)


async def _unless(ended: asyncio.Event, work: Any) -> bool:
    """Waits for the work, or for the end; True if the work was done. A model that fails is the user's to mend."""
    task, end = asyncio.ensure_future(work), asyncio.ensure_future(ended.wait())
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


def _on_signal(ended: asyncio.Event) -> None:
    """The first signal ends in order, the second at once."""
    if ended.is_set():
        os._exit(1)
    ended.set()


def _ssl_context(settings: ServerSettings) -> ssl.SSLContext | None:
    if settings.certificate is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(settings.certificate, settings.key)
    except (OSError, ssl.SSLError) as error:
        raise KeraslineError(f"serve: {settings.certificate}, {settings.key}: {error}") from error
    return context
