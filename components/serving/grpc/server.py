"""The HTTP/2 server for gRPC: h2corn, which is written in Rust and leaves the event loop free for answers.

An empty call to grpcio's own server takes ten times the CPU time (docs/SERVING.md).
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kerasline.components.core.errors import KeraslineError
from kerasline.components.serving.runtime.settings import ServerSettings
from kerasline.components.serving.runtime.sockets import BACKLOG

if TYPE_CHECKING:
    from kerasline.components.serving.grpc.services import GrpcServices

# One thread besides the event loop's. A second one only competes with both.
HTTP2_THREADS = 1
# Flow-control window: how much a client may send before it is read.
WINDOW_BYTES = 1 << 20


class GrpcServer:
    """Serve gRPC on sockets between `start` and `stop`."""

    def __init__(self, services: GrpcServices, settings: ServerSettings, sockets: Sequence[socket.socket]):
        try:
            import h2corn
        except ImportError as error:
            raise KeraslineError(
                "serve: gRPC needs h2corn: pip install 'kerasline[serve]', or serve REST alone with --no-grpc"
            ) from error
        self._services, self._settings, self._sockets = services, settings, sockets
        self._h2corn = h2corn
        self._server: Any = None
        self._serving: set[asyncio.Future[None]] = set()

    async def start(self) -> None:
        """Start to listen. Called again, it reads the certificate again, and earlier connections end gracefully.

        Raises:
            KeraslineError: the port is in use, or the certificate cannot be used.
        """
        try:
            for one in self._sockets:
                one.listen(BACKLOG)
            server = self._h2corn.Server(self._services, self._config())
        except (OSError, ValueError) as error:
            raise KeraslineError(f"serve: gRPC cannot listen: {error}") from error
        serving = asyncio.ensure_future(server.serve())
        try:
            await server.wait_started()
        except (OSError, ValueError) as error:
            await asyncio.gather(serving, return_exceptions=True)
            raise KeraslineError(f"serve: gRPC cannot listen: {error}") from error
        self._serving.add(serving)
        serving.add_done_callback(self._serving.discard)
        if self._server is not None:
            self._server.shutdown()
        self._server = server

    async def stop(self) -> None:
        """Answer the calls in progress, for at most `drain_seconds`, then close."""
        if self._server is None:
            return
        for one in self._sockets:
            one.close()
        self._server.shutdown()
        await asyncio.gather(*self._serving, return_exceptions=True)  # RuntimeError if drain_seconds were exceeded

    def _config(self) -> Any:
        settings, limits = self._settings, self._settings.limits
        has_tls = settings.certificate is not None and settings.grpc_socket is None
        return self._h2corn.Config(
            bind=tuple(f"fd://{one.fileno()}" for one in self._sockets),
            grpc=True,
            http1=False,
            lifespan="off",
            loop="asyncio",
            access_log=False,
            certfile=settings.certificate if has_tls else None,
            keyfile=settings.key if has_tls else None,
            ca_certs=settings.client_ca if has_tls else None,
            cert_reqs="required" if has_tls and settings.client_ca else "none",
            runtime_threads=HTTP2_THREADS,
            limit_connections=limits.connections,
            max_concurrent_streams=limits.connections,
            h2_initial_stream_window_size=WINDOW_BYTES,
            h2_initial_connection_window_size=WINDOW_BYTES,
            request_policies=(_policy(self._h2corn, limits.idle_seconds),),
            timeout_keep_alive=limits.idle_seconds,
            timeout_handshake=limits.idle_seconds,
            timeout_request_header=limits.idle_seconds,
            timeout_graceful_shutdown=settings.drain_seconds,
        )


def _policy(h2corn: Any, idle_seconds: float) -> Any:
    """Close connections that are idle for this long. `GrpcServices` itself limits the size of messages."""
    return h2corn.RequestPolicy(
        path="/*",
        max_request_body_size=0,
        timeout_request_body_idle=idle_seconds,
        h2_timeout_response_stall=idle_seconds,
    )
