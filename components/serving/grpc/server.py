"""The HTTP/2 server for gRPC: h2corn, which is written in Rust and leaves the event loop free for answers.

An empty call to grpcio's own server takes ten times the CPU time (docs/SERVING.md).
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from kerasline.components.core.errors import KeraslineError
from kerasline.components.serving.runtime.settings import ServerSettings

if TYPE_CHECKING:
    from kerasline.components.serving.grpc.services import GrpcServices

# One thread besides the event loop's. A second one only competes with both.
HTTP2_THREADS = 1
# Flow-control window: how much a client may send before it is read.
WINDOW_BYTES = 1 << 20


class GrpcServer:
    """Serve gRPC between `start` and `stop`."""

    def __init__(self, services: GrpcServices, settings: ServerSettings):
        try:
            import h2corn
        except ImportError as error:
            raise KeraslineError(
                "serve: gRPC needs h2corn: pip install 'kerasline[serve]', or serve REST alone with --no-grpc"
            ) from error
        limits = settings.limits
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        config = h2corn.Config(
            bind=(f"{host}:{settings.grpc_port}",),
            grpc=True,
            http1=False,
            lifespan="off",
            loop="asyncio",
            access_log=False,
            reuse_port=settings.workers > 1,
            certfile=settings.certificate,
            keyfile=settings.key,
            ca_certs=settings.client_ca,
            cert_reqs="required" if settings.client_ca else "none",
            runtime_threads=HTTP2_THREADS,
            limit_connections=limits.connections,
            max_concurrent_streams=limits.connections,
            h2_initial_stream_window_size=WINDOW_BYTES,
            h2_initial_connection_window_size=WINDOW_BYTES,
            request_policies=(_policy(h2corn, limits.idle_seconds),),
            timeout_keep_alive=limits.idle_seconds,
            timeout_handshake=limits.idle_seconds,
            timeout_request_header=limits.idle_seconds,
            timeout_graceful_shutdown=settings.drain_seconds,
        )
        self._server = h2corn.Server(services, config)
        self._serving: asyncio.Task[None] | None = None

    async def start(self) -> int:
        """Start to listen and return the port.

        Raises:
            KeraslineError: the port is in use, or the certificate cannot be used.
        """
        self._serving = asyncio.ensure_future(self._server.serve())
        try:
            await self._server.wait_started()
        except (OSError, ValueError) as error:
            await asyncio.gather(self._serving, return_exceptions=True)
            self._serving = None
            hint = "; try --grpc-port" if "could not bind" in str(error) else ""
            raise KeraslineError(f"serve: gRPC cannot listen: {error}{hint}") from error
        return int(self._server.addresses[0].rpartition(":")[2])

    async def stop(self) -> None:
        """Answer the calls in progress, for at most `drain_seconds`, then close."""
        if self._serving is None:
            return
        self._server.shutdown()
        with contextlib.suppress(RuntimeError):  # drain_seconds were exceeded
            await self._serving


def _policy(h2corn: Any, idle_seconds: float) -> Any:
    """Close connections that are idle for this long. `GrpcServices` itself limits the size of messages."""
    return h2corn.RequestPolicy(
        path="/*",
        max_request_body_size=0,
        timeout_request_body_idle=idle_seconds,
        h2_timeout_response_stall=idle_seconds,
    )
